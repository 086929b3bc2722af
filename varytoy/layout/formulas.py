"""Displayed formulas: which parts of a page may be one, and the view of it that a model gets.

The rows of a fraction, the limits of a sum and the like become blocks of their own where text is looked for. Here they
are put together again. Whether something is a formula the ink does not tell for sure: a model decides.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from varytoy.layout.blocks import Block, Box, Cell, around
from varytoy.layout.components import dots
from varytoy.layout.crop import CellView
from varytoy.layout.ink import Ink
from varytoy.layout.page import PageLayout

LETTER = 13.0
"""Height in the view, in pixels, of most letters of a formula and of its larger signs."""
_LARGER = 75
"""Percentile of the heights of a formula's letters and signs: subscripts and points are smaller, sums larger."""
_ABOVE, _BESIDE = 0.6, 2.5
"""Widest gaps in a formula, in heights of letters: between what stands above each other, and beside each other."""
_LEVEL = 0.3
"""Of the height of a cell: how much of it is at the height of one beside it."""
_HIGHER = 1.6
"""Times the height of a cell: one above or below it that is so much higher is no line of the same text."""
_SPECK = 0.15
"""Of the height of letters: ink below it does not make a formula larger."""
_MOST_ROWS = 6
"""Of a block that may hold formulas."""
_TALLEST = 8.0
"""Heights of letters: taller ink is no bracket, but a rule, a fold of the paper or a picture."""
_WIDEST, _HIGHEST = 90.0, 12.0
"""Of a formula, in heights of letters."""


@dataclass(frozen=True)
class Place:
    """Where a formula may be.

    Attributes:
        cell: what a model is asked about.
        cells: numbers of the cells that lie in it, among those of all blocks of the page.
        stacked: whether some of these stand above each other so closely that they are no lines of text.
    """

    cell: Cell
    cells: tuple[int, ...]
    stacked: bool


def find_formulas(page: PageLayout, blocks: Sequence[Block]) -> list[Place]:
    """The places of an upright page that may be displayed formulas, in the order of their first cells. Lines of long
    paragraphs are in no place. ``blocks``: of the page."""
    cells: list[Cell] = []
    loose: list[int] = []
    signs = _Signs(page.ink)
    free = np.ones(len(signs.boxes), bool)
    for block in blocks:
        if block.kind == "text" and block.lines <= _MOST_ROWS:
            loose += range(len(cells), len(cells) + len(block.cells))
        else:
            free &= ~signs.inside(block.box)
        cells += block.cells
    found: list[Box] = []
    for number in loose:
        if not any(_holds(box, cells[number].box) for box in found):
            found = _with(found, signs.grown(cells[number].box, free))
    places = []
    for box in found:
        size = signs.size(box)
        own = tuple(number for number in loose if _holds(box, cells[number].box))
        if size is None or not own or box[2] - box[0] > _WIDEST * size or box[3] - box[1] > _HIGHEST * size:
            continue
        stacked = signs.has_bar(box, size) or _stacked([cells[number].box for number in own])
        places.append(Place(_cell(box, size), own, stacked))
    return sorted(places, key=lambda place: place.cells)


def _with(boxes: Sequence[Box], box: Box) -> list[Box]:
    """Boxes and another one; as one with those that it holds, and those that hold it."""
    same = [each for each in boxes if _holds(box, each) or _holds(each, box)]
    return [*(each for each in boxes if each not in same), around([box, *same])]


def view_of(place: Cell, page: PageLayout) -> Image.Image:
    """The view of a formula that a model gets."""
    return CellView.of(place, LETTER).image(page.image, page.analysis)


def formula_view(page: PageLayout) -> Image.Image | None:
    """The view of a picture of one formula; None if there is no ink."""
    cell = formula_cell(page)
    return None if cell is None else view_of(cell, page)


def formula_cell(page: PageLayout) -> Cell | None:
    """All ink of a picture of one formula; None if there is none."""
    signs = _Signs(page.ink)
    size = signs.size((0, 0, *page.image.size))
    if size is None:
        return None
    large = signs.large(size)
    box = (*signs.boxes[large, :2].min(axis=0), *signs.boxes[large, 2:].max(axis=0))
    return _cell(_whole(box, page.image.size), size)


def _cell(box: Box, size: float) -> Cell:
    """``size``: height of its letters."""
    return Cell(box, size, segments=None)


class _Signs:
    """The connected ink of a page, in its pixels: letters, signs, rules."""

    def __init__(self, ink: Ink):
        _, _, boxes, areas = ink.components
        self.boxes = boxes / ink.scale
        self.limit = (ink.grey.shape[1] / ink.scale, ink.grey.shape[0] / ink.scale)
        self.width, self.height = (self.boxes[:, axis + 2] - self.boxes[:, axis] for axis in (0, 1))
        letters = (self.width <= 4 * self.height) & (self.height >= 3) & (self.width >= 2)
        self.letters = letters & ~dots(boxes, areas)

    def inside(self, box: Sequence[float]) -> np.ndarray:
        """Bool [C]: which have their middle in a box."""
        x, y = self.boxes[:, [0, 2]].mean(axis=1), self.boxes[:, [1, 3]].mean(axis=1)
        return (box[0] <= x) & (x <= box[2]) & (box[1] <= y) & (y <= box[3])

    def size(self, box: Sequence[float]) -> float | None:
        """Height of the larger letters in a box; None if there are none."""
        own = self.height[self.letters & self.inside(box)]
        return float(np.percentile(own, _LARGER)) if len(own) else None

    def large(self, size: float) -> np.ndarray:
        """Bool [C]: which are no specks beside letters of that height."""
        return (self.height > _SPECK * size) | (self.width > 2 * _SPECK * size)

    def has_bar(self, box: Box, size: float) -> bool:
        """Whether a line has letters above and below it, as in a fraction."""
        own = self.inside(box)
        for bar in self.boxes[own & (self.width > size) & (self.height < size / 4)]:
            above, below = (bar[0], bar[1] - size, bar[2], bar[1]), (bar[0], bar[3], bar[2], bar[3] + size)
            if all((self.letters & self.inside(side)).any() for side in (above, below)):
                return True
        return False

    def grown(self, box: Box, free: np.ndarray) -> Box:
        """A box with all ``free`` ink that stands as near as in one formula."""
        grown: tuple[float, ...] = box
        for _ in range(_MOST_ROWS * 4):
            size = self.size(grown)
            if size is None:
                break
            across, down = _BESIDE * size, _ABOVE * size
            level = (self.boxes[:, 0] < grown[2] + across) & (self.boxes[:, 2] > grown[0] - across)
            level &= (self.boxes[:, 1] < grown[3]) & (self.boxes[:, 3] > grown[1])
            stacked = (self.boxes[:, 0] < grown[2]) & (self.boxes[:, 2] > grown[0])
            stacked &= (self.boxes[:, 1] < grown[3] + down) & (self.boxes[:, 3] > grown[1] - down)
            near = free & (level | stacked) & self.large(size) & (self.height < _TALLEST * size)
            if not near.any():
                break
            larger = (
                *np.minimum(grown[:2], self.boxes[near, :2].min(axis=0)),
                *np.maximum(grown[2:], self.boxes[near, 2:].max(axis=0)),
            )
            if larger == grown:
                break
            grown = larger
        return _whole(grown, self.limit)


def _whole(box: Sequence[float], limit: Sequence[float]) -> Box:
    x0, y0 = (max(0, int(side)) for side in box[:2])
    x1, y1 = (min(int(most), int(np.ceil(side))) for side, most in zip(box[2:], limit, strict=True))
    return x0, y0, x1, y1


def _holds(outer: Box, inner: Box) -> bool:
    """Whether most of a box lies in another."""
    across = min(outer[2], inner[2]) - max(outer[0], inner[0])
    down = min(outer[3], inner[3]) - max(outer[1], inner[1])
    area = (inner[2] - inner[0]) * (inner[3] - inner[1])
    return across > 0 and down > 0 and across * down > 0.6 * area


def _stacked(boxes: Sequence[Box]) -> bool:
    """Whether one of the boxes of cells reaches into that below it or is much higher, or stands beside two that are
    above each other."""
    for above, below in itertools.permutations(boxes, 2):
        over = min(above[2], below[2]) > max(above[0], below[0]) and above[1] < below[1]
        heights = sorted((above[3] - above[1], below[3] - below[1]))
        if over and (below[1] < above[3] or heights[1] > _HIGHER * heights[0]):
            return True
    for box in boxes:
        beside = [each for each in boxes if (each[0] >= box[2] or each[2] <= box[0]) and _level(each, box)]
        if any(above[3] <= below[1] for above, below in itertools.permutations(beside, 2)):
            return True
    return False


def _level(box: Box, other: Box) -> bool:
    return min(other[3], box[3]) - max(other[1], box[1]) > _LEVEL * (box[3] - box[1])
