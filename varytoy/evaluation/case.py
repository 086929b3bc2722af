"""A case of a suite, and what a system answers to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from varytoy.data.boxes import Box
from varytoy.data.documents import open_pages
from varytoy.data.shards import read_member, shard_of
from varytoy.layout.frames import Place, find_place, in_pixels


@dataclass(frozen=True)
class Case:
    """One question about one page or picture.

    Attributes:
        id: unique in its suite; a resumed run knows cases by it.
        task: name of a task of varytoy.tasks.
        file: the picture or document. Cases of the same file and page are drawn together when intervals are computed.
        page: of a document, from 1.
        prompt: what the task takes: a question, a phrase, classes. Empty for reading.
        references: the right answers, each as good as the others; the text, for reading.
        boxes: true boxes, in thousandths of the image.
        place: the part of the page that is asked about, xyxy in thousandths or the colour of a frame; None for all.
        group: part of the suite with scores of its own; empty for none.
        facts: what the suite's own metrics need beside this.
    """

    id: str
    task: str
    file: Path
    page: int = 1
    prompt: str = ""
    references: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    place: Place | None = None
    group: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def truth(self) -> str:
        """The first reference; empty if there is none."""
        return self.references[0] if self.references else ""

    def place_in(self, image: Image.Image) -> Place | None:
        """``place`` in pixels of the image."""
        if self.place is None or isinstance(self.place, str):
            return self.place
        return in_pixels(self.place, image.size)

    def part(self, image: Image.Image) -> Image.Image:
        """The part of the image that is asked about, for systems that take no place. Raises ValueError."""
        place = self.place_in(image)
        return image if place is None else image.crop(find_place(place, image))

    def open(self) -> Image.Image:
        """RGB, upright by EXIF; a file in a shard is read there. Raises DocumentError, OSError."""
        shard = None if self.file.is_file() else shard_of(self.file)
        return next(iter(open_pages(read_member(*shard) if shard else self.file, [self.page]))).image


@dataclass
class Prediction:
    """An answer.

    Attributes:
        text: the text, or markdown where the task asks for it.
        boxes: predicted boxes in thousandths of the image, in the order of the answer; those of text lines are
            labelled with their text.
        seconds: share of the time that its batch took.
        confidence: 0 to 1; None where the system gives none.
        stop_reason: as of ``varytoy.data.answer.Answer``.
        error: why there is no answer. It is scored as an empty one and counted as a failure.
    """

    text: str = ""
    boxes: tuple[Box, ...] = ()
    seconds: float = 0.0
    confidence: float | None = None
    stop_reason: str = "end"
    error: str = ""

    def to_json(self) -> dict:
        return {
            "prediction": self.text,
            "boxes": [box.to_json() for box in self.boxes],
            "seconds": round(self.seconds, 3),
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "stop_reason": self.stop_reason,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Prediction":
        boxes = tuple(Box(each["label"], tuple(each["box"])) for each in row["boxes"])
        return cls(row["prediction"], boxes, row["seconds"], row["confidence"], row["stop_reason"], row["error"])
