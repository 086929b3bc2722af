"""Item: a sample prepared for a batch."""

from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image

from train.data.dataset import PackedSample
from train.objectives.locations import glyph_locations
from varytoy.data.sample import Sample
from varytoy.processing.plan import ImagePlan


@dataclass
class Item:
    """A sample with its images (RGB) and their plans.

    Attributes:
        messages: the sample's; answers may hold place tokens.
        encoded: their ids and labels.
        segments: of a PackedSample, for each token the number of its part, 0 for what all parts share; else empty.
    """

    sample: Sample
    images: list[Image.Image]
    plans: list[ImagePlan]
    messages: list[dict]
    encoded: tuple[list[int], list[int]] = ((), ())
    segments: list[int] = field(default_factory=list)

    @property
    def parts(self) -> list[list[dict]]:
        """The messages of each conversation of the row."""
        if isinstance(self.sample, PackedSample):
            return [part.messages for part in self.sample.parts]
        return [self.messages]

    @cached_property
    def spots(self) -> list[list[tuple[int, float, float]]]:
        """``glyph_locations`` of each answer; empty unless the sample has exactly one image."""
        if len(self.images) != 1:
            return []
        answers = [message["content"] for message in self.sample.messages if message["role"] == "assistant"]
        return [glyph_locations(self.sample, answer, self.plans[0].size) for answer in answers]
