"""Box format: how boxes are written in samples, in model text and in answers.

In samples and in model text a box is ``[x1, y1, x2, y2]``: integers 0-1000 of the image's width and height, three
digits zero-padded, as the Vary-toy paper writes them (``[009, 552, 058, 737]``); several objects are written
``Person: [..], [..]; Car: [..];``. In every answer that a user sees, a box is in pixels of the file.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

SCALE = 1000
Coordinates = tuple[int, int, int, int]


@dataclass(frozen=True)
class Box:
    """A labelled box, xyxy, integers 0-1000 of the image. Runs of white space in the label become one space."""

    label: str
    xyxy: Coordinates

    def __post_init__(self):
        object.__setattr__(self, "label", " ".join(self.label.split()))
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

    def to_json(self) -> dict:
        """As in a sample's ``boxes``."""
        return {"label": self.label, "box": list(self.xyxy)}

    @classmethod
    def from_pixels(cls, label: str, xyxy: Sequence[float], width: int, height: int) -> "Box":
        """From pixel corners, clipped to the image."""
        x1, x2 = sorted(min(max(round(value * SCALE / width), 0), SCALE) for value in xyxy[0::2])
        y1, y2 = sorted(min(max(round(value * SCALE / height), 0), SCALE) for value in xyxy[1::2])
        return cls(label, (x1, y1, x2, y2))


def format_box(xyxy: Sequence[int]) -> str:
    return "[" + ", ".join(f"{value:03d}" for value in xyxy) + "]"


def rewrite(
    text: str, change: Callable[[Sequence[int]], Sequence[int]], words: Callable[[str], str] = lambda text: text
) -> str:
    """The text with each written box changed, and what stands between them changed by ``words``."""
    parts, end = [], 0
    for box in written_boxes(text):
        start, stop = box.sides[0][0] - 1, box.sides[3][1] + 1
        parts += [words(text[end:start]), format_box(change(box.numbers(text)))]
        end = stop
    return "".join([*parts, words(text[end:])])


def around(boxes: Sequence[Sequence[float]]) -> Coordinates:
    """The box around boxes, xyxy."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def even_rows(xyxy: Coordinates, count: int) -> list[Coordinates]:
    """The box cut into ``count`` rows of the same height."""
    x1, y1, x2, y2 = xyxy
    edges = [round(y1 + (y2 - y1) * number / count) for number in range(count + 1)]
    return [(x1, top, x2, bottom) for top, bottom in zip(edges, edges[1:], strict=False)]


def on_grid(xyxy: Sequence[int], bins: int) -> Coordinates:
    """The box with each side in the middle of its bin, of ``bins`` from 0 to 1000."""
    x1, y1, x2, y2 = (round((min(side * bins // SCALE, bins - 1) + 0.5) * SCALE / bins) for side in xyxy)
    return x1, y1, x2, y2


def text_on_grid(text: str, bins: int) -> str:
    """The text with each written box on the grid of ``on_grid``."""
    return rewrite(text, lambda box: on_grid(box, bins))


def format_boxes(boxes: Iterable[Box]) -> str:
    """Group by label in order of first appearance: ``Person: [..], [..]; Car: [..];``. ``parse_boxes`` reads the same
    boxes back.

    Raises:
        ValueError: a label that cannot be written (``check_label``).
    """
    groups: dict[str, list[str]] = {}
    for box in boxes:
        check_label(box.label)
        groups.setdefault(box.label, []).append(format_box(box.xyxy))
    return " ".join(map(_group, groups, groups.values()))


def _group(label: str, boxes: Iterable[str]) -> str:
    return f"{label}: {', '.join(boxes)};"


@lru_cache(4096)
def check_label(label: str) -> None:
    """Raises ValueError for a label that ``parse_boxes`` would not read back from an answer."""
    box = Box(label, (1, 2, 3, 4))
    written, other = _group(box.label, [format_box(box.xyxy)]), Box("other", (5, 6, 7, 8))
    end = _group(other.label, [format_box(other.xyxy)])
    if parse_boxes(f"{written} {end}") != [box, other] or parse_boxes(f"{end} {written}") != [other, box]:
        raise ValueError(
            f"the label {label[:80]!r} cannot be written in an answer: leave out ';', a box in numbers, tags such as "
            "<ref>, a list mark at the beginning and '*' around it"
        )


_NUMBER = r"\s*(\d{1,4})\s*"
_FOUR = r"[\[(]" + ",".join([_NUMBER] * 4) + r"[\])]"
_PAIRS = r"\(" + _NUMBER + "," + _NUMBER + r"\)\s*(?:,\s*)?\(" + _NUMBER + "," + _NUMBER + r"\)"
_BOX = re.compile(f"(?:{_FOUR})|(?:{_PAIRS})")
_WRITTEN = re.compile(r"\[" + ", ".join([r"(\d{1,4})"] * 4) + r"\]")
_REFERENCE = re.compile(r"<(\|?)ref\1>([^<]*)<(?:\|/|/)ref\1>")
_TAGS = re.compile(r"</?(?:ref|box|quad)>|<\|/?(?:ref|det|grounding)\|>")
_LIST_MARK = re.compile(r"\s*[-*+\u2022]\s+")
_LABEL_EDGE = " \t\r\n:;,.-*[]()"
Span = tuple[int, int]


def parse_boxes(text: str, scale: int = SCALE) -> list[Box]:
    """Every well-formed box in a model's text, labelled by the words before it.

    Accepts padded and unpadded numbers, a missing ``;``, text before the first box, ``[[..]]``, Qwen's
    ``<ref>..</ref><box>(x1,y1),(x2,y2)</box>``, DeepSeek-OCR's ``<|det|>`` (give ``scale=999``) and reversed corners.
    A box with a number above ``scale`` is skipped. A label applies to the boxes after it until the next label.
    """
    boxes: list[Box] = []
    label, end = "", 0
    for match in _BOX.finditer(text):
        gap = text[end : match.start()]
        span, end = _label_span(gap, first=end == 0), match.end()
        if span is not None:
            label = gap[slice(*span)]
        values = [int(group) for group in match.groups() if group is not None]
        if max(values) > scale:
            continue
        values = [round(value * SCALE / scale) for value in values]
        x1, x2 = sorted(values[0::2])
        y1, y2 = sorted(values[1::2])
        boxes.append(Box(label, (x1, y1, x2, y2)))
    return boxes


@dataclass(frozen=True)
class WrittenBox:
    """Position in an answer of a box as ``format_boxes`` writes it.

    Attributes:
        start: first character, including the label.
        label: span of the label; None if this is not the first box of its label.
        sides: spans of x1, y1, x2 and y2.
    """

    start: int
    label: Span | None
    sides: tuple[Span, ...]

    def numbers(self, text: str) -> list[int]:
        """x1, y1, x2 and y2 in the answer that it was found in."""
        return [int(text[slice(*side)]) for side in self.sides]


def written_boxes(text: str) -> Iterator[WrittenBox]:
    """The boxes of a training answer in order. For model output use ``parse_boxes``."""
    end = 0
    for match in _WRITTEN.finditer(text):
        span = _label_span(text[end : match.start()], first=end == 0)
        label = None if span is None or span[0] == span[1] else (end + span[0], end + span[1])
        if label and text[label[1] : label[1] + 1] != ":":  # words of a sentence
            label = None
        yield WrittenBox(label[0] if label else match.start(), label, tuple(match.span(side) for side in range(1, 5)))
        end = match.end()


def _label_span(gap: str, first: bool) -> Span | None:
    """Span of a box's label in ``gap``, the text between it and the previous box, or before the ``first``; None if the
    previous label applies. A label that ends in a colon or a closing tag is taken unchanged, others without the
    punctuation around them."""
    references = list(_REFERENCE.finditer(gap))
    if references:
        return _stripped(gap, *references[-1].span(2))
    gap = _TAGS.sub(lambda tag: " " * len(tag[0]), gap)
    start = max(gap.rfind(";"), gap.rfind("\n")) + 1
    fresh = first or start > 0  # the text from here on does not belong to the previous box
    mark = _LIST_MARK.match(gap, start)
    start = mark.end() if mark else start
    end = len(gap[start:].rstrip(" \t\r[(")) + start  # [[..]]
    if gap[start:end].endswith(":"):
        if not fresh:
            start = end - 1 - len(gap[start : end - 1].lstrip(_LABEL_EDGE))
        start, end = _stripped(gap, start, end - 1)
        marks = min(_stars(gap[start:end]), _stars(gap[start:end][::-1]), (end - start) // 2)
        start, end = _stripped(gap, start + marks, end - marks)
        return (start, end) if fresh or start < end else None
    start, end = _stripped(gap, start, end, _LABEL_EDGE)
    return (start, end) if start < end else None


def _stripped(text: str, start: int, end: int, characters: str | None = None) -> Span:
    """The span without ``characters`` (None: white space) at its ends."""
    part = text[start:end].rstrip(characters)
    return start + len(part) - len(part.lstrip(characters)), start + len(part)


def _stars(text: str) -> int:
    return len(text) - len(text.lstrip("*"))


def iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes; 0 where both are empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return width * height / (both - width * height)
