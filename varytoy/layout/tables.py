"""Tables: which blocks of a page are one, and the grid of its cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

import numpy as np

from varytoy.layout.blocks import Block, Cell, around
from varytoy.layout.grid import Entry, grid, gutters, parted
from varytoy.layout.ink import RULE, Analysis

_LEAST = 2
"""Rows of several cells, and columns, of a table."""
_BETWEEN = 5.0
"""Widest gap between two rows of a table, in x-heights."""
_PROSE = 30.0
"""Widest single cell that a row of a table may be, in x-heights; wider ones are text between two tables."""
_NEAR = 0.75
"""Of the distance of two rows: how near a cell of several rows stands to the next one."""
_BACK = 3.0
"""How far a row may begin above the end of those before it, in x-heights, as a cell does that covers several."""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        start, stop: its blocks on the page.
        columns: how many it has.
        rows: the entries that begin in each row. Their cells are numbered among those of these blocks.
    """

    start: int
    stop: int
    columns: int
    rows: tuple[tuple[Entry, ...], ...]

    def markdown(self, texts: Sequence[str]) -> str:
        """A pipe table, whose first row is its head; a table of HTML where entries cover several rows or columns.
        ``texts``: of the cells of its blocks."""
        if any(entry.spans for row in self.rows for entry in row):
            return self._html(texts)
        lines = []
        for row in self.rows:
            cells = {entry.columns[0]: _joined(texts, entry.cells).replace("|", "\\|") for entry in row}
            if any(cells.values()):
                lines.append([cells.get(column, "") for column in range(self.columns)])
        if not lines:
            return ""
        head, *body = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([head, f"|{' --- |' * self.columns}", *body])

    def _html(self, texts: Sequence[str]) -> str:
        lines = []
        taken: set[tuple[int, int]] = set()
        for number, row in enumerate(self.rows):
            own = {entry.columns[0]: entry for entry in row}
            cells = []
            for column in range(self.columns):
                if (number, column) in taken:
                    continue
                entry = own.get(column, Entry((), (column, column), (number, number)))
                taken |= {(r, c) for r in range(entry.rows[0], entry.rows[1] + 1) for c in entry.covered}
                cells.append(f"<td{entry.attributes}>{escape(_joined(texts, entry.cells), quote=False)}</td>")
            lines.append(f"<tr>{''.join(cells)}</tr>")
        return "\n".join(["<table>", *lines, "</table>"]) if any(map(str.strip, texts)) else ""


def _joined(texts: Sequence[str], cell: Sequence[int]) -> str:
    text = " ".join(texts[number].strip() for number in cell if number < len(texts))
    return " ".join(text.split())


def find_tables(blocks: Sequence[Block], analysis: Analysis) -> tuple[list[Block], list[Grid]]:
    """The blocks of a page, cells of tables cut where their columns part, and the tables among them."""
    found, tables, start = list(blocks), [], 0
    while start < len(blocks):
        stop = start + 1
        while stop < len(blocks) and _goes_on(blocks[start:stop], blocks[stop]):
            stop += 1
        first, last = _ends(blocks[start:stop])
        first, last = first + start, last + start
        table = _table(blocks, first, last, analysis) if last > first else None
        if table:
            found[first:last] = table[0]
            tables.append(table[1])
        start = stop
    return found, tables


def _several(block: Block) -> bool:
    """Whether it has a row of several cells."""
    return any(len(row) > 1 for row in block.rows)


def _ends(blocks: Sequence[Block]) -> tuple[int, int]:
    """First and end of the blocks from the first to the last row of several cells, with single cells near them: those
    that cover two rows stand half a row away, titles and captions farther."""
    first, last = 0, len(blocks)
    while first < last and not _several(blocks[first]):
        first += 1
    while last > first and not (_several(blocks[last - 1]) or _beside(blocks[first : last - 1], blocks[last - 1])):
        last -= 1
    heights = sorted(_middle(row) for block in blocks[first:last] for row in block.rows)
    if len(heights) < _LEAST:
        return first, last
    near = _NEAR * float(np.median(np.diff(heights)))
    while first > 0 and heights[0] - _middle(blocks[first - 1].rows[-1]) < near:
        first -= 1
        heights.insert(0, _middle(blocks[first].rows[0]))
    while last < len(blocks) and _middle(blocks[last].rows[0]) - heights[-1] < near:
        heights.append(_middle(blocks[last].rows[-1]))
        last += 1
    return first, last


def _goes_on(table: Sequence[Block], block: Block) -> bool:
    """Whether a block stands under others, or beside them, as the next rows or columns of a table."""
    last = table[-1]
    size = max(last.text_size, block.text_size)
    if not last.rows or not block.rows or size > 1.6 * min(last.text_size, block.text_size):
        return False
    if block.box[0] > last.box[2] and block.box[1] < last.box[3] - size:
        return _beside(table, block)
    if not _several(block) and block.box[2] - block.box[0] > _PROSE * size:
        return False
    box = around([each.box for each in table])
    gap = block.box[1] - box[3]
    shared = min(box[2], block.box[2]) - max(box[0], block.box[0])
    narrow = min(box[2] - box[0], block.box[2] - block.box[0])
    merged = len(block.cells) == 1 and block.box[2] < box[0]  # the name of several rows, to their left
    return -_BACK * size < gap < _BETWEEN * size and (shared > 0.3 * narrow or merged)


def _beside(table: Sequence[Block], block: Block) -> bool:
    """Whether a block stands to the right of the last with most of its rows, and several, at the heights of theirs."""
    if not table or block.box[0] <= table[-1].box[2]:
        return False
    heights = [_middle(row) for each in table for row in each.rows]
    near = sum(min(abs(_middle(row) - height) for height in heights) < block.text_size for row in block.rows)
    return near >= max(_LEAST, 0.7 * len(block.rows))


def _middle(line: Sequence[Cell]) -> float:
    """Height of a line where it would cross the left edge of the page."""
    left, top, right, bottom = around([cell.box for cell in line])
    return (top + bottom) / 2 - (left + right) / 2 * math.tan(math.radians(line[0].skew))


def _lines(blocks: Sequence[Block]) -> list[list[Cell]]:
    """The lines of some blocks from top to bottom, those at the same height as one."""
    size = max(block.text_size for block in blocks)
    lines: list[list[Cell]] = []
    for row in sorted((row for block in blocks for row in block.rows), key=_middle):
        last = lines[-1] if lines else []
        apart = last and (row[0].box[0] > last[-1].box[2] or row[-1].box[2] < last[0].box[0])
        if apart and _middle(row) - _middle(last) < 0.8 * size:
            lines[-1] = sorted([*last, *row], key=lambda cell: cell.box[0])
        else:
            lines.append(list(row))
    return lines


def _is_ruled(lines: Sequence[Sequence[Cell]], analysis: Analysis) -> bool:
    """Whether rules stand between at least three of the lines."""
    left, _, right, _ = around([cell.box for line in lines for cell in line])
    middles = [_middle(line) for line in lines]
    found = 0
    for above, below in zip(middles, middles[1:], strict=False):
        x0, y0, x1, y1 = (round(side * analysis.scale) for side in (left, above, right, below))
        part = analysis.owners[y0:y1, x0:x1] == RULE
        found += bool(part.size) and bool((part.mean(axis=1) > 0.6).any())
    return found >= 3


def _table(blocks: Sequence[Block], start: int, stop: int, analysis: Analysis) -> tuple[list[Block], Grid] | None:
    """The blocks with their cells cut at the columns, and their grid; None if they are no table."""
    several = [len(row) > 1 for block in blocks[start:stop] for row in block.rows]
    lines = _lines(blocks[start:stop])
    if sum(several) < (_LEAST if _is_ruled(lines, analysis) else max(_LEAST, 0.5 * len(several))):
        return None  # as two columns of text side by side
    size = float(np.median([cell.text_size for line in lines for cell in line]))
    between = gutters(lines, analysis, size)
    if len(between) + 1 < _LEAST:
        return None
    cut = [
        replace(block, rows=tuple(tuple(p for c in row for p in parted(c, between, analysis)) for row in block.rows))
        for block in blocks[start:stop]
    ]
    rows = grid([cell for block in cut for cell in block.cells], between, analysis, size)
    return (cut, Grid(start, stop, len(between) + 1, rows)) if len(rows) >= _LEAST else None
