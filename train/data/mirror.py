"""Mirrored samples: image, boxes and the words left and right exchange their sides."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from varytoy.data.boxes import SCALE, Box, rewrite
from varytoy.data.sample import Sample

_OTHER = {"left": "right", "right": "left", "左": "右", "右": "左"}
_SIDES = re.compile(r"\b(?:left|right)\b|[左右]", re.IGNORECASE)


@dataclass
class MirroredSample(Sample):
    """A sample whose image is mirrored when it is opened."""

    def open_images(self) -> list[Image.Image]:
        return [ImageOps.mirror(image) for image in super().open_images()]


def mirrored(sample: Sample) -> MirroredSample:
    messages = [{**message, "content": _text(message["content"])} for message in sample.messages]
    references = [_text(reference) for reference in sample.annotations.references]
    boxes = [Box(_text(box.label), _flip(box.xyxy)) for box in sample.boxes]
    annotations = replace(sample.annotations, references=references)
    values = {**vars(sample), "id": f"{sample.id}-mirrored", "messages": messages, "boxes": boxes}
    return MirroredSample(**{**values, "annotations": annotations})


def with_mirrored(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, and after those of each image their mirrored twins."""
    both: list[Sample] = []
    for _, group in itertools.groupby(samples, key=lambda sample: (sample.folder, sample.images)):
        own = list(group)
        both += [*own, *(mirrored(sample) for sample in own if can_mirror(sample))]
    return both


def is_mirrored(sample: Sample) -> bool:
    """Whether the sample's image is mirrored when it is opened; also of a row of several such samples."""
    return isinstance(sample, MirroredSample) or any(map(is_mirrored, getattr(sample, "parts", ())))


def can_mirror(sample: Sample) -> bool:
    """Whether it is about one picture without text: letters cannot be mirrored."""
    parts = getattr(sample, "parts", None) or [sample]
    return len(sample.images) == 1 and not sample.target_images and not any(map(_is_text, parts))


def _is_text(sample: Sample) -> bool:
    known = sample.annotations
    return sample.task in ("ocr", "markdown") or bool(known.letters or known.lines or known.words or known.plain_text)


def _flip(xyxy: Sequence[int]) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = xyxy
    return SCALE - x2, y1, SCALE - x1, y2


def _text(text: str) -> str:
    return rewrite(text, _flip, _words)


def _words(text: str) -> str:
    def other(match: re.Match) -> str:
        word = _OTHER[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return _SIDES.sub(other, text)
