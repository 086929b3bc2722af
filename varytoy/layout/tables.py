"""Tables: which blocks of a page are one, and the grid of its cells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from varytoy.layout.blocks import Block, Cell, around
from varytoy.layout.ink import RULE, Analysis

_LEAST = 2
"""Rows of several cells, and columns, of a table."""
_BETWEEN = 5.0
"""Widest gap between two rows of a table, in x-heights."""
_CROSSED = 0.15
"""Share of the rows whose cells may stand between two columns, as those above several do."""
_FULL = 0.75
"""Share of the columns that two lines fill if they are rows of their own and no cells of several lines."""
_JUMP = 1.25
"""By how much the gap between two rows is wider than that between two lines of a cell."""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        start, stop: its blocks on the page.
        rows: for each row and column the numbers of its cells, among those of these blocks, in the order of reading.
    """

    start: int
    stop: int
    rows: tuple[tuple[tuple[int, ...], ...], ...]

    def markdown(self, texts: Sequence[str]) -> str:
        """A pipe table, whose first row is its head. ``texts``: of the cells of its blocks."""
        lines = [[_joined(texts, cell) for cell in row] for row in self.rows]
        lines = [line for line in lines if any(line)]
        if not lines:
            return ""
        head, *body = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([head, f"|{' --- |' * len(self.rows[0])}", *body])


def _joined(texts: Sequence[str], cell: Sequence[int]) -> str:
    text = " ".join(texts[number].strip() for number in cell if number < len(texts))
    return " ".join(text.replace("|", "\\|").split())


def find_tables(blocks: Sequence[Block], analysis: Analysis) -> list[Grid]:
    """The tables among the blocks of a page."""
    found, start = [], 0
    while start < len(blocks):
        stop = start + 1
        while stop < len(blocks) and _goes_on(blocks[stop - 1], blocks[stop]):
            stop += 1
        first, last = start, stop
        while first < last and not _several(blocks[first]):
            first += 1
        while last > first and not _several(blocks[last - 1]):
            last -= 1
        grid = _grid(blocks, first, last, analysis) if last > first else None
        found += [grid] if grid else []
        start = stop
    return found


def _several(block: Block) -> bool:
    """Whether it has a row of several cells."""
    return any(len(row) > 1 for row in block.rows)


def _goes_on(above: Block, below: Block) -> bool:
    """Whether a block stands under another, or beside it, as the next rows or columns of its table would."""
    size = max(above.text_size, below.text_size)
    if not above.rows or not below.rows or size > 1.6 * min(above.text_size, below.text_size):
        return False
    if below.box[0] > above.box[2]:
        return _level(above, below)
    gap = below.box[1] - above.box[3]
    shared = min(above.box[2], below.box[2]) - max(above.box[0], below.box[0])
    narrow = min(above.box[2] - above.box[0], below.box[2] - below.box[0])
    return -size < gap < _BETWEEN * size and shared > 0.3 * narrow


def _level(left: Block, right: Block) -> bool:
    """Whether most rows of two blocks side by side are at the same heights, and there are several."""
    heights = [[_middle(row) for row in block.rows] for block in (left, right)]
    few, many = sorted(heights, key=len)
    near = sum(min(abs(one - other) for other in many) < left.text_size for one in few)
    return near >= max(_LEAST, 0.7 * len(many))


def _middle(line: Sequence[Cell]) -> float:
    _, top, _, bottom = around([cell.box for cell in line])
    return (top + bottom) / 2


def _lines(blocks: Sequence[Block]) -> list[list[tuple[int, Cell]]]:
    """The lines of some blocks, those at the same height as one; cells with their numbers in the order of reading."""
    count, lines = 0, []
    for row in (row for block in blocks for row in block.rows):
        lines.append([(count + place, cell) for place, cell in enumerate(row)])
        count += len(row)
    size = max(block.text_size for block in blocks)
    joined: list[list[tuple[int, Cell]]] = []
    for line in sorted(lines, key=lambda line: _middle([cell for _, cell in line])):
        middle = _middle([cell for _, cell in line])
        last = [cell for _, cell in joined[-1]] if joined else []
        apart = last and (line[0][1].box[0] > last[-1].box[2] or line[-1][1].box[2] < last[0].box[0])
        if apart and middle - _middle(last) < 0.8 * size:
            joined[-1] = sorted([*joined[-1], *line], key=lambda each: each[1].box[0])
        else:
            joined.append(line)
    return joined


def _grid(blocks: Sequence[Block], start: int, stop: int, analysis: Analysis) -> Grid | None:
    """The grid of some blocks; None if they are no table."""
    parted = [len(row) > 1 for block in blocks[start:stop] for row in block.rows]
    if sum(parted) < max(_LEAST, 0.5 * len(parted)):  # as two columns of text side by side
        return None
    numbered = _lines(blocks[start:stop])
    lines = [[cell for _, cell in line] for line in numbered]
    wide = [line for line in lines if len(line) > 1]
    size = float(np.median([cell.text_size for line in lines for cell in line]))
    columns = _columns(wide, size)
    if len(columns) < _LEAST:
        return None
    placed = [[_column_of(cell, columns) for cell in line] for line in lines]
    rows: list[tuple[tuple[int, ...], ...]] = []
    for group in _rows_of(lines, placed, len(columns), analysis):
        cells: list[list[int]] = [[] for _ in columns]
        for line in group:
            for (number, _), column in zip(numbered[line], placed[line], strict=True):
                cells[column].append(number)
        rows.append(tuple(tuple(cell) for cell in cells))
    return Grid(start, stop, tuple(rows)) if len(rows) >= _LEAST else None


def _columns(lines: Sequence[Sequence[Cell]], size: float) -> list[tuple[int, int]]:
    """Left and right end of each column: parted where hardly any cell stands."""
    left, _, right, _ = around([cell.box for line in lines for cell in line])
    cover = np.zeros(right - left + 1, np.int64)
    for line in lines:
        for cell in line:
            cover[cell.box[0] - left : cell.box[2] - left] += 1
    dense = np.concatenate([[0], (cover > _CROSSED * len(lines)).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(dense))
    spans = [(int(a) + left, int(b) + left) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    columns = spans[:1]
    for left, right in spans[1:]:
        if left - columns[-1][1] < size:
            columns[-1] = (columns[-1][0], right)
        else:
            columns.append((left, right))
    return columns


def _column_of(cell: Cell, columns: Sequence[tuple[int, int]]) -> int:
    """The column that a cell shares most with, or that is nearest."""
    left, _, right, _ = cell.box
    return max(range(len(columns)), key=lambda n: min(right, columns[n][1]) - max(left, columns[n][0]))


def _rows_of(
    lines: Sequence[Sequence[Cell]], placed: Sequence[Sequence[int]], columns: int, analysis: Analysis
) -> list[list[int]]:
    """The lines, which stand in order, of each row of a table: parted by rules where most rows have them, else where
    the gap is wider than that between the lines of a cell."""
    left, _, right, _ = around([cell.box for line in lines for cell in line])
    middles = [_middle(line) for line in lines]
    gaps = np.diff(middles)
    if not len(gaps):
        return [[0]]
    ruled = [_is_ruled(analysis, (left, a, right, b)) for a, b in zip(middles, middles[1:], strict=False)]
    if sum(ruled) >= max(2, 0.25 * len(gaps)):
        parted = np.array(ruled)
    else:
        parted = gaps >= _limit(gaps)
    rows = [[0]]
    for line in range(1, len(lines)):
        full = all(len(set(placed[each])) >= max(_FULL * columns, 2) for each in (line - 1, line))
        if parted[line - 1] or (full and not any(ruled)):
            rows.append([])
        rows[-1].append(line)
    return rows


def _limit(gaps: np.ndarray) -> float:
    """Least gap between two rows: gaps are of two sizes, or they are all between rows."""
    ordered = np.sort(np.maximum(gaps, 1.0))
    jumps = ordered[1:] / ordered[:-1]
    if not len(jumps) or jumps.max() < _JUMP:
        return 0.0
    return float(ordered[int(jumps.argmax()) + 1])


def _is_ruled(analysis: Analysis, box: tuple[float, float, float, float]) -> bool:
    """Whether a rule runs across a box of the page."""
    x0, y0, x1, y1 = (round(side * analysis.scale) for side in box)
    part = analysis.owners[y0:y1, x0:x1] == RULE
    return bool(part.size) and bool((part.mean(axis=1) > 0.6).any())
