"""The one box grammar: how boxes stand in samples, in model text and in answers.

In samples and in model text a box is ``[x1, y1, x2, y2]``: integers 0-1000 of the image's width and height, three
digits zero-padded, as the Vary-toy paper writes them (``[009, 552, 058, 737]``); several objects are written
``Person: [..], [..]; Car: [..];``. In every answer that a user sees, a box is in pixels of the file.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SCALE = 1000
Coordinates = tuple[int, int, int, int]


@dataclass(frozen=True)
class Box:
    """A labelled box, xyxy, integers 0-1000 of the image."""

    label: str
    xyxy: Coordinates

    def __post_init__(self):
        x1, y1, x2, y2 = self.xyxy
        if not (0 <= x1 <= x2 <= SCALE and 0 <= y1 <= y2 <= SCALE):
            raise ValueError(f"box {list(self.xyxy)} of '{self.label}' is not x1 <= x2, y1 <= y2 within 0-{SCALE}")

    def to_pixels(self, width: int, height: int) -> Coordinates:
        """Pixels of a ``width`` x ``height`` image, rounded."""
        x1, y1, x2, y2 = self.xyxy
        return (
            round(x1 * width / SCALE),
            round(y1 * height / SCALE),
            round(x2 * width / SCALE),
            round(y2 * height / SCALE),
        )

    @classmethod
    def from_pixels(cls, label: str, xyxy: Sequence[float], width: int, height: int) -> "Box":
        """From pixel corners, clipped to the image."""
        x1, x2 = sorted(min(max(round(value * SCALE / width), 0), SCALE) for value in xyxy[0::2])
        y1, y2 = sorted(min(max(round(value * SCALE / height), 0), SCALE) for value in xyxy[1::2])
        return cls(label, (x1, y1, x2, y2))


def format_box(xyxy: Coordinates) -> str:
    return "[" + ", ".join(f"{value:03d}" for value in xyxy) + "]"


def format_boxes(boxes: Iterable[Box]) -> str:
    """Group by label in order of first appearance: ``Person: [..], [..]; Car: [..];``."""
    groups: dict[str, list[str]] = {}
    for box in boxes:
        groups.setdefault(box.label, []).append(format_box(box.xyxy))
    return " ".join(f"{label}: {', '.join(found)};" for label, found in groups.items())


_SIDES = ", ".join(rf"(?P<{side}>\d+)" for side in ("x1", "y1", "x2", "y2"))
WRITTEN_BOX = re.compile(rf"(?:(?P<label>[\w' -]+): )?\[{_SIDES}\]")
"""A box as ``format_boxes`` writes it; ``label`` where it is the first of its label. For what a model wrote:
``parse_boxes``."""

_NUMBER = r"\s*(\d{1,4})\s*"
_FOUR = r"[\[(]" + ",".join([_NUMBER] * 4) + r"[\])]"
_PAIRS = r"\(" + _NUMBER + "," + _NUMBER + r"\)\s*,?\s*\(" + _NUMBER + "," + _NUMBER + r"\)"
_BOX = re.compile(f"(?:{_FOUR})|(?:{_PAIRS})")
_TAGS = re.compile(r"</?(?:ref|box|quad)>|<\|/?(?:ref|det|grounding)\|>")
_LABEL_EDGE = " \t\r\n:;,.-*[]()"


def parse_boxes(text: str, scale: int = SCALE) -> list[Box]:
    """Every well-formed box in a model's text, labelled by the words before it.

    Accepts padded and unpadded numbers, a missing ``;``, text before the first box, ``[[..]]``, Qwen's
    ``<ref>..</ref><box>(x1,y1),(x2,y2)</box>``, DeepSeek-OCR's ``<|det|>`` (give ``scale=999``) and reversed corners.
    A number above ``scale`` is no box. A label holds for the boxes after it until the next words.
    """
    boxes: list[Box] = []
    label, end = "", 0
    for match in _BOX.finditer(text):
        words = _TAGS.sub(" ", text[end : match.start()])
        words = re.split(r"[;\n]", words)[-1].strip(_LABEL_EDGE)
        label, end = words or label, match.end()
        values = [int(group) for group in match.groups() if group is not None]
        if max(values) > scale:
            continue
        values = [round(value * SCALE / scale) for value in values]
        x1, x2 = sorted(values[0::2])
        y1, y2 = sorted(values[1::2])
        boxes.append(Box(label, (x1, y1, x2, y2)))
    return boxes


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes; 0 where both are empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return width * height / (both - width * height)
