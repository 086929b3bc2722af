"""Glyphs: draw all words of a page at once.

Pillow renders a glyph anew each time that it is drawn, and most of the time of a page goes there. Here each letter of a
font and size is rendered once, at four times the size without hinting's effect, and reduced to four horizontal
positions of a quarter of a pixel; a page is a sum of these, placed by NumPy. Letters stand at their unhinted widths,
without kerning, as word processors print by default.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_tools.render.font_tables import letters_and_widths

_ZOOM = 4
_ACROSS = 16
"""Cells side by side in the image that letters are rendered in."""
_FAINT = 6
"""Coverage, of 255, below which a pixel is left out."""


class MissingLetter(ValueError):
    """A text with a letter that the font does not have."""


class Style(NamedTuple):
    """A face at a size in pixels, and its colour."""

    path: str
    size: float
    colour: tuple[int, int, int] = (0, 0, 0)
    number: int = 0


class Face:
    """What a font file says of its letters: which there are, and their widths."""

    def __init__(self, path: str, number: int = 0):
        self._path = path
        self._codes, self._widths = letters_and_widths(path, number)
        self._known = frozenset(self._codes.tolist())
        shape = ImageFont.truetype(path, 200, index=number, layout_engine=ImageFont.Layout.BASIC)
        self.x_height = _height(shape, "x") / 200
        self.cap_height = _height(shape, "H") / 200

    def covers(self, text: str) -> bool:
        return self._known.issuperset(map(ord, text))

    def advances(self, codes: np.ndarray) -> np.ndarray:
        """Widths of letters, in ems. [N] code points -> [N]. Raises MissingLetter."""
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        missing = codes[self._codes[places] != codes]
        if len(missing):
            raise MissingLetter(f"{self._path} lacks the letter {chr(missing[0])!r}")
        return self._widths[places]

    def width(self, text: str) -> float:
        """Width in ems."""
        return float(self.advances(_codes(text)).sum()) if text else 0.0

    def widths(self, texts: Sequence[str]) -> list[float]:
        """Width of each text, none of them empty, in ems."""
        if not texts:
            return []
        starts = np.cumsum([0, *map(len, texts[:-1])])
        return np.add.reduceat(self.advances(_codes("".join(texts))), starts).tolist()


def _height(font: ImageFont.FreeTypeFont, letter: str) -> float:
    _, top, _, bottom = font.getbbox(letter)
    return bottom - top


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)


@lru_cache(maxsize=512)
def face(path: str, number: int = 0) -> Face:
    return Face(path, number)


class _Glyphs:
    """The letters of a face at one size, rendered as they are asked for.

    ``boxes`` [G, 4]: left, top, right, bottom of each glyph's ink beside its origin; ``starts`` and ``counts`` [G]: its
    pixels in ``columns``, ``rows`` and ``values``.
    """

    def __init__(self, path: str, size: float, number: int):
        self._font = ImageFont.truetype(path, size * _ZOOM, index=number, layout_engine=ImageFont.Layout.BASIC)
        self._face = face(path, number)
        self._size = size
        self._first: dict[int, int] = {}  # code point -> its glyph at the first of four positions
        self.boxes = np.zeros((0, 4), np.int32)
        self.starts, self.counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.columns, self.rows = np.zeros(0, np.int32), np.zeros(0, np.int32)
        self.values = np.zeros(0, np.float32)

    def ids(self, codes: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The glyph of each letter at its position, 0-3 quarters of a pixel."""
        unique, inverse = np.unique(codes, return_inverse=True)
        new = [code for code in unique.tolist() if code not in self._first]
        if new:
            self._render(new)
        return np.array([self._first[code] for code in unique.tolist()])[inverse] + positions

    def _render(self, codes: list[int]) -> None:
        size, count = self._size, len(codes)
        left, base = math.ceil(0.4 * size) + 1, math.ceil(1.35 * size)  # pixels of the final size
        widest = float(self._face.advances(np.array(codes)).max())
        width, height = left + math.ceil((widest + 0.4) * size) + 2, base + math.ceil(0.6 * size)
        down = math.ceil(count / _ACROSS)
        image = Image.new("L", (width * _ACROSS * _ZOOM + _ZOOM, height * down * _ZOOM))
        pen = ImageDraw.Draw(image)
        for number, code in enumerate(codes):
            x, y = number % _ACROSS * width + left, number // _ACROSS * height + base
            pen.text(((x + 1) * _ZOOM, y * _ZOOM), chr(code), fill=255, font=self._font, anchor="ls")
        cells = np.empty((count, _ZOOM, height, width), np.uint8)
        for position in range(_ZOOM):
            shift = _ZOOM - position
            box = (shift, 0, shift + width * _ACROSS * _ZOOM, height * down * _ZOOM)
            grid = np.asarray(image.reduce(_ZOOM, box)).reshape(down, height, _ACROSS, width)
            cells[:, position] = grid.transpose(0, 2, 1, 3).reshape(-1, height, width)[:count]
        cells = cells.reshape(-1, height, width)
        inked_pixels = np.flatnonzero(cells > _FAINT)
        glyphs, rest = np.divmod(inked_pixels, height * width)
        rows, columns = np.divmod(rest, width)
        counts = np.bincount(glyphs, minlength=len(cells))
        starts = np.cumsum(counts) - counts
        rows, columns = (rows - base).astype(np.int32), (columns - left).astype(np.int32)
        boxes = np.zeros((len(cells), 4), np.int32)
        inked = counts > 0
        at = starts[inked]
        if len(at):
            edges = (np.minimum.reduceat(columns, at), np.minimum.reduceat(rows, at))
            ends = (np.maximum.reduceat(columns, at) + 1, np.maximum.reduceat(rows, at) + 1)
            boxes[inked] = np.stack([*edges, *ends], 1)
        first = len(self.counts)
        self._first |= {code: first + _ZOOM * number for number, code in enumerate(codes)}
        self.starts = np.concatenate([self.starts, starts + len(self.values)])
        self.counts = np.concatenate([self.counts, counts])
        self.boxes = np.concatenate([self.boxes, boxes])
        self.rows, self.columns = np.concatenate([self.rows, rows]), np.concatenate([self.columns, columns])
        self.values = np.concatenate([self.values, cells.reshape(-1)[inked_pixels].astype(np.float32)])


@lru_cache(maxsize=96)
def _glyphs(path: str, size: float, number: int) -> _Glyphs:
    return _Glyphs(path, size, number)


def draw_words(
    texts: Sequence[str], xs: Sequence[int], ys: Sequence[int], style: Style, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Words in one style, each from a pixel on its base line. Glyphs that leave the page are cut.

    Args:
        texts: words, none of them empty, of letters that the face covers.
        size: width and height of the page.

    Returns:
        Coverage [H, W], 0-255, and the box of each word's ink [N, 4]: left, top, right, bottom.
    """
    width, height = size
    glyphs, metrics = _glyphs(style.path, style.size, style.number), face(style.path, style.number)
    lengths = np.array(list(map(len, texts)))
    starts = np.cumsum(lengths) - lengths
    codes = _codes("".join(texts))
    advances = metrics.advances(codes).astype(np.float64) * style.size
    before = np.cumsum(advances) - advances
    quarters = np.floor((before - np.repeat(before[starts], lengths)) * _ZOOM + 0.5).astype(np.int64)
    x = np.repeat(np.asarray(xs, np.int64), lengths) + quarters // _ZOOM
    y = np.repeat(np.asarray(ys, np.int64), lengths)
    ids = glyphs.ids(codes, quarters % _ZOOM)
    counts = glyphs.counts[ids]
    ends = np.cumsum(counts)
    pixels = np.arange(ends[-1] if len(ends) else 0) + np.repeat(glyphs.starts[ids] - (ends - counts), counts)
    column, row = glyphs.columns[pixels] + np.repeat(x, counts), glyphs.rows[pixels] + np.repeat(y, counts)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    places = row * width + column
    values = glyphs.values[pixels]
    if not inside.all():
        places, values = places[inside], values[inside]
    coverage = np.bincount(places, values, width * height)
    boxes = glyphs.boxes[ids] + np.stack([x, y, x, y], 1)
    empty = counts == 0
    if empty.any():  # they have no edges of their own
        boxes[empty] = (1 << 30, 1 << 30, -(1 << 30), -(1 << 30))
    edges = [reduce.reduceat(boxes[:, side], starts) for side, reduce in enumerate([np.minimum] * 2 + [np.maximum] * 2)]
    return np.minimum(coverage, 255).astype(np.uint8).reshape(height, width), np.stack(edges, 1)
