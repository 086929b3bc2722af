"""Blocks of a page in reading order, without a model: paragraphs of rows, whose cells a model reads one by one."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from varytoy.layout.columns import Cutter, Line, rows_of, span
from varytoy.layout.ink import Analysis, Segment, segments_size, text_mask

WIDEST_LINE, PIECE = 125, 65
"""In x-heights: longer lines are cut at word spaces into pieces of about ``PIECE``. Models that read blocks lose track
in long lines; lines of ordinary pages have up to 110."""
WIDE_GAP = 2.5
"""In x-heights: a gap in a row that parts two cells. Word spaces of justified lines are narrower."""
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Cell:
    """What a model reads at once: a line of text, or a part of it between wide gaps.

    Attributes:
        box: xyxy in pixels of the page.
        text_size: x-height in the same pixels.
        skew: degrees by which the line slopes down to the right.
        segments: numbers of the segments whose ink is its own (``Segment.number``); None: all ink in the box is.
    """

    box: Box
    text_size: float
    skew: float = 0.0
    segments: frozenset[int] | None = frozenset()


Row = tuple[Cell, ...]
"""Cells from left to right."""


@dataclass(frozen=True)
class Block:
    """A paragraph, a heading, a table, or a picture.

    Attributes:
        box: xyxy in pixels of the page.
        text_size: x-height in the same pixels, 0 for a picture.
        rows: from top to bottom; none for a picture.
    """

    box: Box
    text_size: float
    rows: tuple[Row, ...] = ()
    kind: str = "text"

    @property
    def lines(self) -> int:
        return len(self.rows)

    @cached_property
    def cells(self) -> list[Cell]:
        """Those of all rows, in the order of reading."""
        return [cell for row in self.rows for cell in row]


def around(boxes: Sequence[Box]) -> Box:
    """The box around boxes."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _size_of(line: Line) -> float:
    return segments_size(line) if sum(s.letters for s in line) else 0.0


def _paragraphs(group: list[Segment], pitch: float, unit: float) -> list[list[Line]]:
    """Lines of one column, split at wider gaps, changes of text size, indents and pictures."""
    lines = rows_of(group)
    spans = np.array([span(line) for line in lines])
    sizes = np.array([_size_of(line) for line in lines])
    bases = np.array([max(line, key=lambda s: s.letters).base for line in lines])
    steps = np.diff(bases)
    regular = steps[(steps > 1.9 * unit) & (steps < 7 * sizes[1:]) & (np.abs(np.diff(sizes)) < 0.15 * sizes[1:])]
    pitch = float(np.quantile(regular, 0.15)) if len(regular) >= 3 else pitch
    edge, width = spans[:, 0].min(), spans[:, 1].max() - spans[:, 0].min()
    paragraphs = [[lines[0]]]
    for i in range(1, len(lines)):
        a, b = sizes[i - 1], sizes[i]
        letters = [sum(s.letters for s in line) for line in (lines[i - 1], lines[i])]
        resized = max(a, b) > 1.25 * min(a, b) and min(letters) >= 3
        gap = steps[i - 1] > 1.25 * pitch * max(1.0, min(a, b) / unit)
        disjoint = min(spans[i, 1], spans[i - 1, 1]) + 6 * unit < max(spans[i, 0], spans[i - 1, 0])
        offset = spans[i, 0] - edge
        indent = 0.8 * unit < offset < 5 * unit and spans[i, 1] - edge > 0.85 * width
        indent &= spans[i - 1, 0] - edge < 0.5 * unit and i + 1 < len(lines) and spans[i + 1, 0] - edge < 0.5 * unit
        if resized or gap or disjoint or indent or min(letters) == 0:
            paragraphs.append([])
        paragraphs[-1].append(lines[i])
    return paragraphs


def _pitch(lines: list[Line], unit: float) -> float:
    """The typical baseline distance on the page."""
    steps = []
    for above, below in zip(lines, lines[1:], strict=False):
        step = below[0].base - above[0].base
        if 1.4 * unit < step < 4.5 * unit:
            steps.append(step)
    return float(np.median(steps)) if len(steps) >= 2 else 2.6 * unit


def _extent(segments: Sequence[Segment], scale: float, size: tuple[int, int]) -> Box:
    """xyxy in pixels of the page of ``size``."""
    boxes = np.stack([segment.box for segment in segments])
    x0, y0 = (max(0, int(v)) for v in boxes[:, :2].min(axis=0) / scale)
    x1, y1 = (min(limit, int(np.ceil(v))) for v, limit in zip(boxes[:, 2:].max(axis=0) / scale, size, strict=True))
    return x0, y0, x1, y1


def cut(image: Image.Image, analysis: Analysis, cancel: threading.Event | None = None) -> list[Block]:
    """The blocks of an analysed page in reading order."""
    segments = list(analysis.segments)
    unit = segments_size(segments) if segments else 10.0
    for box in analysis.pictures:
        drop = (box[0] + box[2]) / 2 * analysis.skew
        segments.append(Segment(box[0], box[2], box[3] - drop, box[3] - box[1], 0, box))
    groups = Cutter(unit, cancel).columns(segments) if segments else []
    pitch = _pitch([line for group in groups for line in rows_of(group)], unit)
    paragraphs = [paragraph for group in groups for paragraph in _paragraphs(group, pitch, unit)]
    return [_block(image, paragraph, analysis) for paragraph in paragraphs]


def _block(image: Image.Image, lines: list[Line], analysis: Analysis) -> Block:
    parts = [segment for line in lines for segment in line]
    box = _extent(parts, analysis.scale, image.size)
    if parts[0].picture:
        return Block(box, 0.0, (), "picture")
    size = segments_size(parts)
    skew = float(np.degrees(np.arctan(analysis.skew)))
    rows = []
    for line in lines:
        row: list[Cell] = []
        for together in _cells(line):
            own = segments_size(together)
            other = max(own, size) > 1.2 * min(own, size) and sum(s.letters for s in together) >= 3
            cell = Cell(
                _extent(together, analysis.scale, image.size),
                (own if other else size) / analysis.scale,
                skew,
                frozenset(segment.number for segment in together),
            )
            row += _pieces(image, cell)
        rows.append(tuple(row))
    return Block(box, size / analysis.scale, tuple(rows))


def _cells(line: Line) -> list[Line]:
    """The line's segments, parted at wide gaps."""
    cells, end = [[line[0]]], line[0].x1
    size = _size_of(line)
    for segment in line[1:]:
        if segment.x0 - end > WIDE_GAP * size:
            cells.append([])
        cells[-1].append(segment)
        end = max(end, segment.x1)
    return cells


def _pieces(image: Image.Image, cell: Cell) -> list[Cell]:
    """The cell; if it is too long, cut at the widest gaps near equal parts."""
    x0, y0, x1, y1 = cell.box
    if x1 - x0 <= WIDEST_LINE * cell.text_size:
        return [cell]
    count = -(-(x1 - x0) // max(round(PIECE * cell.text_size), 1))
    edges = np.flatnonzero(np.diff(np.pad(~text_mask(image.crop(cell.box)).any(axis=0), 1).astype(np.int8)))
    gaps = edges.reshape(-1, 2)  # start, end
    middles, widths = gaps.mean(axis=1), gaps[:, 1] - gaps[:, 0]
    cuts = {x0, x1}
    for target in np.arange(1, count) * (x1 - x0) / count:
        near = np.flatnonzero((np.abs(middles - target) < PIECE / 4 * cell.text_size) & (widths > 1))
        if len(near):
            cuts.add(x0 + int(middles[near[widths[near].argmax()]]))
    sides = sorted(cuts)
    return [replace(cell, box=(a, y0, b, y1)) for a, b in zip(sides, sides[1:], strict=False)]


def lines_of(row: Row) -> list[Row]:
    """The cells of a row, parted where they stand apart; the pieces of a long line are one."""
    lines = [row[:1]]
    for before, cell in zip(row, row[1:], strict=False):
        if cell.box[0] - before.box[2] > WIDE_GAP * cell.text_size:
            lines.append(())
        lines[-1] = (*lines[-1], cell)
    return lines


def by_block(values: Sequence, blocks: Sequence[Block]) -> list[tuple[Sequence, Block]]:
    """Each block that was begun with the values of its cells, from those of all blocks' first cells."""
    parted, start = [], 0
    for block in blocks:
        if start < len(values):
            parted.append((values[start : start + len(block.cells)], block))
        start += len(block.cells)
    return parted


def join_rows(texts: Sequence[str], block: Block) -> str:
    """The text of a block, from the texts of its cells or of the first of them: a newline between rows, a space between
    cells; empty ones are left out."""
    lines, start = [], 0
    for row in block.rows:
        lines.append(" ".join(filter(None, map(str.strip, texts[start : start + len(row)]))))
        start += len(row)
    return "\n".join(filter(None, lines))
