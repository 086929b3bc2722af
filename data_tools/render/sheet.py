"""Sheet: what is printed on one page, in reading order, and the picture and annotations that follow from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from data_tools.render.glyphs import Style, draw_words
from varytoy.data.boxes import SCALE

Colour = tuple[int, int, int]
Placed = tuple[str, int, int, Style, str]
"""A word, the pixel at its left end on its base line, its style, and the white space before it in the text."""


@dataclass
class Sheet:
    """A page that is filled line by line.

    Attributes:
        size: width and height, pixels.
        darkness: exponent of the ink's coverage: below 1 letters are darker, above 1 lighter.
    """

    size: tuple[int, int]
    paper: Colour = (255, 255, 255)
    darkness: float = 1.0
    words: list[Placed] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    """For each line the index of its first word, and what stands between it and the line before in the text."""
    shapes: list[tuple[str, tuple, Colour, int]] = field(default_factory=list)
    pictures: list[tuple[Image.Image, tuple[int, int]]] = field(default_factory=list)

    def line(self, words: Iterable[Placed], joint: str = "\n") -> None:
        """Print a line; ``joint``: a line break before it, or a space if it goes on with the line before."""
        words = list(words)
        if words:
            self.lines.append((len(self.words), joint))
            self.words += words

    def box(self, x1: float, y1: float, x2: float, y2: float, colour: Colour) -> None:
        """Fill a box; its right and lower ends are outside."""
        edges = (round(x1), round(y1), max(round(x2) - 1, round(x1)), max(round(y2) - 1, round(y1)))
        self.shapes.append(("fill", edges, colour, 0))

    def frame(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, width: int = 1) -> None:
        self.shapes.append(("frame", (round(x1), round(y1), round(x2), round(y2)), colour, width))

    def rule(self, x1: float, y1: float, x2: float, y2: float, colour: Colour, width: int = 1) -> None:
        """A horizontal or vertical line."""
        self.shapes.append(("rule", (round(x1), round(y1), round(x2), round(y2)), colour, width))

    def paste(self, picture: Image.Image, x: float, y: float) -> None:
        self.pictures.append((picture, (round(x), round(y))))

    @property
    def grey(self) -> bool:
        """Whether nothing has a colour, so that one channel is enough."""
        colours = {self.paper} | {shape[2] for shape in self.shapes} | {word[3].colour for word in self.words}
        return all(len(set(colour)) == 1 for colour in colours) and all(
            each.mode in ("L", "LA") for each, _ in self.pictures
        )

    def line_texts(self) -> list[str]:
        starts = [start for start, _ in self.lines]
        spans = zip(starts, [*starts[1:], len(self.words)], strict=True)
        return ["".join(f"{word[4]}{word[0]}" for word in self.words[start:end]) for start, end in spans]

    def text(self) -> str:
        """The printed text with its line breaks."""
        joints = [joint for _, joint in self.lines]
        return "".join(
            (joint if number else "") + text
            for number, (joint, text) in enumerate(zip(joints, self.line_texts(), strict=True))
        )

    def draw(self) -> tuple[Image.Image, np.ndarray]:
        """The picture, grey where that is enough, and the boxes of the words' ink in pixels, [N, 4]."""
        grey = self.grey
        pick = (lambda colour: colour[0]) if grey else tuple
        image = Image.new("L" if grey else "RGB", self.size, pick(self.paper))
        pen = ImageDraw.Draw(image)
        for kind, edges, colour, width in self.shapes:
            if kind == "rule":
                pen.line(edges, fill=pick(colour), width=width)
            elif kind == "fill":
                pen.rectangle(edges, fill=pick(colour))
            else:
                pen.rectangle(edges, outline=pick(colour), width=width)
        for picture, place in self.pictures:
            alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
            image.paste(picture.convert(image.mode), place, alpha)
        boxes = np.zeros((len(self.words), 4), np.int64)
        if not self.words:
            return image, boxes
        pixels = np.array(image)
        groups: dict[Style, list[int]] = {}
        for index, word in enumerate(self.words):
            groups.setdefault(word[3], []).append(index)
        for style, indices in groups.items():
            boxes[indices] = self._print(pixels, [self.words[index] for index in indices], style)
        width, height = self.size
        boxes = np.clip(boxes, 0, [width, height, width, height])
        return Image.fromarray(pixels), boxes

    def _print(self, pixels: np.ndarray, words: Sequence[Placed], style: Style) -> np.ndarray:
        """Print words of one style on the part of the page where they stand."""
        ys = [word[2] for word in words]
        top = max(min(ys) - round(1.5 * style.size), 0)
        bottom = min(max(ys) + round(0.7 * style.size), self.size[1])
        if bottom <= top:
            raise ValueError(f"'{words[0][0]}' would be printed outside the page")
        texts, xs = [word[0] for word in words], [word[1] for word in words]
        coverage, boxes = draw_words(texts, xs, [y - top for y in ys], style, (self.size[0], bottom - top))
        part = pixels[top:bottom]
        places = np.flatnonzero(coverage > 0)
        strength = coverage.reshape(-1)[places]
        if self.darkness != 1:
            table = (255 * (np.arange(256) / 255) ** self.darkness + 0.5).astype(np.uint8)
            strength = table[strength]
        share = strength.astype(np.float32) / 255
        if part.ndim == 2:
            flat = part.reshape(-1)
            flat[places] = flat[places] + (style.colour[0] - flat[places].astype(np.float32)) * share + 0.5
        else:
            flat = part.reshape(-1, 3)
            below = flat[places].astype(np.float32)
            flat[places] = below + (np.array(style.colour, np.float32) - below) * share[:, None] + 0.5
        return boxes + [0, top, 0, top]

    def annotations(self, boxes: np.ndarray) -> dict:
        """Words and lines with the boxes (0-1000) that follow from the words' ``boxes`` in pixels, [N, 4]."""
        if not self.words:
            return {}
        starts = [start for start, _ in self.lines]
        lines = np.concatenate(
            [np.minimum.reduceat(boxes[:, :2], starts), np.maximum.reduceat(boxes[:, 2:], starts)], 1
        )
        return {
            "lines": self.line_texts(),
            "line_boxes": thousandths(lines, self.size),
            "words": [word[0] for word in self.words],
            "word_boxes": thousandths(boxes, self.size),
        }


def thousandths(boxes: np.ndarray, size: tuple[int, int]) -> list[int]:
    """Boxes in pixels as integers 0-1000 that hold them, one after the other."""
    scaled = boxes * (SCALE / np.array([*size, *size], np.float64))
    scaled = np.concatenate([np.floor(scaled[:, :2] + 1e-9), np.ceil(scaled[:, 2:] - 1e-9)], 1)
    return np.clip(scaled, 0, SCALE).astype(int).reshape(-1).tolist()
