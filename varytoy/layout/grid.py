"""The grid of a table: its columns from the ink, its rows from rules, gaps and the heights of its cells."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from varytoy.layout.blocks import Cell, around
from varytoy.layout.ink import RULE, Analysis

_GUTTER, _FEW_GUTTER = 0.8, 1.2
"""Narrowest white space between two columns, in x-heights, and that of less than ``_FEW`` lines, whose words may stand
below each other by chance; word spaces have about 0.6."""
_FEW = 6
_CROSSED = 0.2
"""Share of the lines that may run across a gutter, as heads of several columns do."""
_RULED = 0.6
"""Share of a column's width that a rule below a cell has."""
_FULL, _DENSE = 0.75, 0.4
"""Share of the columns that two lines fill if they are rows of their own and no cells of several lines. Columns with
less than ``_DENSE`` of the cells of others, as of currency signs, do not count."""
_JUMP, _PITCH = 1.25, 3.0
"""By how much two rows are farther apart than two lines of a cell, and how far those may be, in x-heights."""


@dataclass(frozen=True)
class Entry:
    """A cell of the grid.

    Attributes:
        cells: numbers of the cells of the page that it holds, in the order of reading.
        columns, rows: first and last that it covers.
    """

    cells: tuple[int, ...]
    columns: tuple[int, int]
    rows: tuple[int, int]

    @property
    def covered(self) -> range:
        """Its columns."""
        return range(self.columns[0], self.columns[1] + 1)

    @property
    def spans(self) -> bool:
        """Whether it covers several rows or columns."""
        return self.columns[0] < self.columns[1] or self.rows[0] < self.rows[1]

    @property
    def attributes(self) -> str:
        """Of its ``<td>``."""
        spans = {"rowspan": self.rows[1] - self.rows[0] + 1, "colspan": self.columns[1] - self.columns[0] + 1}
        return "".join(f' {name}="{count}"' for name, count in spans.items() if count > 1)


@dataclass
class _Part:
    """Lines in the same columns that may become an entry. ``top``, ``bottom``: heights without the page's skew."""

    numbers: list[int]
    columns: tuple[int, int]
    tops: list[float]
    bottoms: list[float]

    @property
    def top(self) -> float:
        return min(self.tops)

    @property
    def bottom(self) -> float:
        return max(self.bottoms)

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


def gutters(lines: Sequence[Sequence[Cell]], analysis: Analysis, size: float) -> list[tuple[float, float]]:
    """Left and right of the white space between the columns of a table, in pixels of the page.

    Args:
        lines: cells at the same height. ``size``: x-height.
    """
    left, _, right, _ = around([cell.box for line in lines for cell in line])
    first, last = int(left * analysis.scale), int(np.ceil(right * analysis.scale))
    covers = np.array([_cover(line, analysis, first, last) for line in lines])
    free = np.concatenate([[0], (covers.sum(axis=0) <= _most_across(len(lines))).astype(np.int8), [0]])
    least = (_GUTTER if len(lines) >= _FEW else _FEW_GUTTER) * size * analysis.scale
    found = []
    for start, stop in np.flatnonzero(np.diff(free)).reshape(-1, 2):
        start, stop = _trimmed(covers, int(start), int(stop), least)
        if stop - start >= least and start > 0 and stop < last - first:
            found.append(((start + first) / analysis.scale, (stop + first) / analysis.scale))
    return _used([cell for line in lines for cell in line], found, analysis)


def _used(cells: Sequence[Cell], between: list[tuple[float, float]], analysis: Analysis) -> list[tuple[float, float]]:
    """The gutters between columns in which at least two cells stand alone."""
    pieces = [piece for cell in cells for piece in parted(cell, between, analysis)]
    alone = Counter(first for first, last in (_columns_of(piece, between) for piece in pieces) if first == last)
    for column in range(len(between) + 1):
        if alone[column] < 2 and between:
            beside = [n for n in (column - 1, column) if 0 <= n < len(between)]
            narrow = min(beside, key=lambda n: between[n][1] - between[n][0])
            return _used(cells, between[:narrow] + between[narrow + 1 :], analysis)
    return between


def _trimmed(covers: np.ndarray, start: int, stop: int, least: float) -> tuple[int, int]:
    """The white space without what lines that end in it take; those that run across are left."""
    low, high = start, stop
    for cover in covers[covers[:, start:stop].any(axis=1)]:
        inside = np.flatnonzero(np.concatenate([[True], cover[start:stop], [True]])) - 1 + start
        widest = int(np.diff(inside).argmax())
        gap = int(inside[widest]) + 1, int(inside[widest + 1])
        if gap[1] - gap[0] >= least:
            low, high = max(low, gap[0]), min(high, gap[1])
    return low, high


def _most_across(lines: int) -> int:
    return max(int(_CROSSED * lines), 1 if lines > 4 else 0)


def _cover(line: Sequence[Cell], analysis: Analysis, first: int, last: int) -> np.ndarray:
    """Bool [last - first]: where a line has letters, in working pixels."""
    found = np.zeros(last - first, bool)
    for cell in line:
        x0, y0, x1, y1 = (side * analysis.scale for side in cell.box)
        part = analysis.owners[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        start = int(x0) - first
        found[start : start + part.shape[1]] |= np.isin(part, list(cell.segments)).any(axis=0)
    return found


def parted(cell: Cell, between: Sequence[tuple[float, float]], analysis: Analysis) -> list[Cell]:
    """The cell, cut at the gutters in which it has no ink."""
    x0, y0, x1, y1 = cell.box
    ink = _cover([cell], analysis, int(x0 * analysis.scale), int(np.ceil(x1 * analysis.scale)))
    where = np.flatnonzero(ink) / analysis.scale + x0
    pieces = []
    for left, right in [*between, (x1, x1)]:
        if x0 < left < x1 and ((where > left) & (where < right)).any():
            continue
        own = where[(where >= x0) & (where < (left + right) / 2)]
        if len(own):
            pieces.append(replace(cell, box=(max(int(own[0]), x0), y0, min(int(own[-1]) + 2, x1), y1)))
            x0 = int((left + right) / 2)
    return pieces if len(pieces) > 1 else [cell]


def grid(
    cells: Sequence[Cell], between: Sequence[tuple[float, float]], analysis: Analysis, size: float
) -> tuple[tuple[Entry, ...], ...]:
    """The rows of a table, each with the entries that begin in it. ``cells``: in the order of reading; ``between``: its
    gutters."""
    left, _, right, _ = around([cell.box for cell in cells])
    columns = list(zip([left, *(b for _, b in between)], [*(a for a, _ in between), right], strict=True))
    boxes = np.array([cell.box for cell in cells], float)
    drop = (boxes[:, 0] + boxes[:, 2]) / 2 * analysis.skew
    places = [_columns_of(cell, between) for cell in cells]
    rules = _Rules(columns, analysis, size, (boxes[:, 1].min(), boxes[:, 3].max()))
    tops, bottoms = boxes[:, 1] - drop, boxes[:, 3] - drop
    parts = _parts(places, tops, bottoms, rules, len(columns))
    entries = rules.rows(parts)
    entries = apart([_widened(entry, entries, cells, columns, size) for entry in entries])
    used = sorted({row for entry in entries for row in entry.rows})
    number = {row: place for place, row in enumerate(used)}
    rows: list[list[Entry]] = [[] for _ in used]
    for entry in sorted(entries, key=lambda each: each.columns):
        rows[number[entry.rows[0]]].append(replace(entry, rows=(number[entry.rows[0]], number[entry.rows[1]])))
    return tuple(map(tuple, rows))


def apart(entries: Sequence[Entry]) -> list[Entry]:
    """Entries that share no place of the grid, with all their cells: those that cover several places give way to those
    with one, and what still meets becomes one."""
    taken: dict[tuple[int, int], int] = {}
    kept: list[Entry] = []
    for entry in sorted(entries, key=lambda each: (each.spans, each.rows, each.columns)):
        places = [(row, column) for row in range(entry.rows[0], entry.rows[1] + 1) for column in entry.covered]
        free = [place for place in places if place not in taken]
        if not free:
            other = taken[places[0]]
            kept[other] = replace(kept[other], cells=tuple(sorted(kept[other].cells + entry.cells)))
            continue
        if len(free) < len(places):
            (row, column), places = free[0], free[:1]
            entry = replace(entry, columns=(column, column), rows=(row, row))
        taken |= dict.fromkeys(places, len(kept))
        kept.append(entry)
    return kept


def _columns_of(cell: Cell, between: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """First and last column that a cell covers."""
    left, _, right, _ = cell.box
    first = sum((a + b) / 2 <= left for a, b in between)
    last = sum((a + b) / 2 < right for a, b in between)
    return first, max(first, last)


def _parts(
    places: Sequence[tuple[int, int]], tops: np.ndarray, bottoms: np.ndarray, rules: "_Rules", columns: int
) -> list[_Part]:
    """Lines of a column that are one cell, put together."""
    order = sorted(range(len(places)), key=lambda n: tops[n] + bottoms[n])
    follows = []
    for column in range(columns):
        own = [n for n in order if places[n][0] <= column <= places[n][1]]
        follows += [(a, b) for a, b in zip(own, own[1:], strict=False) if places[a] == places[b]]
    follows = list(dict.fromkeys(follows))
    middles = (tops + bottoms) / 2
    limit = _limit(np.array([middles[b] - middles[a] for a, b in follows]), rules.size)
    held = Counter(column for first, last in places for column in range(first, last + 1))
    dense = {column for column, count in held.items() if count >= _DENSE * max(held.values())}
    fill = [len(_filled(n, places, middles, bottoms - tops) & dense) / len(dense) for n in range(len(places))]
    parts = {n: _Part([n], places[n], [tops[n]], [bottoms[n]]) for n in order}
    for above, below in follows:
        step = middles[below] - middles[above]
        apart = step >= limit or min(fill[above], fill[below]) >= _FULL
        if step > rules.size and (apart or rules.between(places[above], bottoms[above], tops[below])):
            continue
        one, other = parts[above], parts[below]
        if one is other:
            continue
        one.numbers += other.numbers
        one.tops += other.tops
        one.bottoms += other.bottoms
        for number in other.numbers:
            parts[number] = one
    return list({id(part): part for part in parts.values()}.values())


def _filled(number: int, places: Sequence[tuple[int, int]], middles: np.ndarray, heights: np.ndarray) -> set[int]:
    """Columns with a line at the height of this one."""
    level = np.abs(middles - middles[number]) < 0.3 * heights[number]
    return {column for n in np.flatnonzero(level).tolist() for column in range(places[n][0], places[n][1] + 1)}


def _limit(steps: np.ndarray, size: float) -> float:
    """Least distance between two rows, from the distances of lines that follow each other in a column: those within a
    cell are the smaller ones, if they are close enough."""
    steps = steps[steps > size]
    pitch = float(np.quantile(steps, 0.1)) if len(steps) else 0.0
    return _JUMP * pitch if 0 < pitch <= _PITCH * size and steps.max() >= _JUMP * pitch else 0.0


class _Rules:
    """The horizontal rules of a table, which part it into bands, and its rows.

    Args:
        columns: left and right of each. ``span``: top and bottom.
    """

    def __init__(self, columns: Sequence[tuple[float, float]], analysis: Analysis, size: float, span: tuple):
        self.size = size
        scale = analysis.scale
        found: list[tuple[float, int]] = []
        top, bottom = int(span[0] * scale), int(np.ceil(span[1] * scale))
        for number, (left, right) in enumerate(columns):
            part = analysis.owners[top:bottom, max(int(left * scale), 0) : int(np.ceil(right * scale))] == RULE
            thick = part | np.pad(part[1:], ((0, 1), (0, 0))) | np.pad(part[:-1], ((1, 0), (0, 0)))
            across = np.concatenate([[0], (thick.mean(axis=1) > _RULED).astype(np.int8), [0]])
            drop = (left + right) / 2 * analysis.skew
            for start, stop in np.flatnonzero(np.diff(across)).reshape(-1, 2):
                if stop - start < size * scale:
                    found.append((((start + stop) / 2 + top) / scale - drop, number))
        self.heights: list[float] = []
        self.crossed: list[set[int]] = []
        for height, number in sorted(found):
            if not self.heights or height - self.heights[-1] > size / 2:
                self.heights.append(height)
                self.crossed.append(set())
            self.crossed[-1].add(number)
        self.columns = len(columns)

    def between(self, columns: tuple[int, int], above: float, below: float) -> bool:
        """Whether a rule stands between two heights of a column."""
        low, high = above - self.size / 2, below + self.size / 2
        return any(
            low < height < high and columns[0] in crossed
            for height, crossed in zip(self.heights, self.crossed, strict=True)
        )

    def band(self, height: float) -> int:
        return sum(each < height for each in self.heights)

    def bands(self, part: _Part) -> tuple[int, int]:
        """First and last band of a part: it reaches to the next rules of its column."""
        own = range(part.columns[0], part.columns[1] + 1)
        above = [n for n, at in enumerate(self.heights) if at < part.middle and self.crossed[n] & set(own)]
        below = [n for n, at in enumerate(self.heights) if at >= part.middle and self.crossed[n] & set(own)]
        return (above[-1] + 1 if above else 0), (below[0] if below else len(self.heights))

    def rows(self, parts: Sequence[_Part]) -> list[Entry]:
        """The entries, with their rows."""
        placed = [(part, *self.bands(part)) for part in parts]
        alone = Counter((part.columns, first, last) for part, first, last in placed)
        placed = [
            (part, *((first, last) if alone[part.columns, first, last] == 1 else [self.band(part.middle)] * 2))
            for part, first, last in placed
        ]
        filled = {first for _, first, last in placed if first == last}
        for number, (part, first, last) in enumerate(placed):
            if not filled & set(range(first, last + 1)):
                band = self.band(part.middle)
                placed[number] = (part, band, band)
                filled.add(band)
        entries, starts = [], [0]
        for band in range(len(self.heights) + 1):
            inside = [part for part, first, last in placed if first == last == band]
            anchors = self._anchors(inside)
            entries += [entry for part in inside for entry in _rows_of(part, anchors, starts[-1])]
            starts.append(starts[-1] + len(anchors))
        for part, first, last in placed:
            if first < last:
                entries.append(Entry(tuple(part.numbers), part.columns, (starts[first], starts[last + 1] - 1)))
        return entries

    def _anchors(self, parts: Sequence[_Part]) -> list[_Part]:
        """The parts of the column with most of them, one for each row of a band."""
        best: list[_Part] = []
        for column in range(self.columns):
            own = sorted((p for p in parts if p.columns[0] <= column <= p.columns[1]), key=lambda p: p.middle)
            if len(own) > len(best):
                best = own
        return best


def _rows_of(part: _Part, anchors: Sequence[_Part], start: int) -> list[Entry]:
    """The entries of a part among the rows of its band, whose first is ``start``."""
    numbers, middles = tuple(part.numbers), [anchor.middle for anchor in anchors]
    nearest = min(range(len(anchors)), key=lambda n: abs(middles[n] - part.middle))
    inside = [n for n, middle in enumerate(middles) if part.top < middle < part.bottom]
    if part not in anchors and len(inside) > 1:  # lines of several rows, as close as those of one
        owners = [
            min(inside, key=lambda n: abs(middles[n] - (top + bottom) / 2))
            for top, bottom in zip(part.tops, part.bottoms, strict=True)
        ]
        parted = {row: tuple(n for n, owner in zip(numbers, owners, strict=True) if owner == row) for row in owners}
        return [Entry(own, part.columns, (start + row, start + row)) for row, own in parted.items()]
    first = last = nearest
    if part not in anchors and not inside and not anchors[nearest].top < part.middle < anchors[nearest].bottom:
        first, last = _spanned(part.middle, middles, nearest)
    return [Entry(numbers, part.columns, (start + first, start + last))]


def _spanned(middle: float, anchors: Sequence[float], nearest: int) -> tuple[int, int]:
    """The rows that a cell in the middle between some covers: those whose middle is nearest to its own."""
    pairs = [(a, b) for a in range(len(anchors)) for b in range(a, len(anchors)) if anchors[a] <= middle <= anchors[b]]
    if not pairs:
        return nearest, nearest
    return min(pairs, key=lambda ab: (round(abs((anchors[ab[0]] + anchors[ab[1]]) / 2 - middle), 1), ab[1] - ab[0]))


def _widened(
    entry: Entry, entries: Sequence[Entry], cells: Sequence[Cell], columns: Sequence[tuple[float, float]], size: float
) -> Entry:
    """The entry with the empty columns beside it, if it stands in their middle: a head of several columns, or a line
    across some."""
    first, last = entry.columns
    if not (first < last or entry.rows[0] == 0) or entry.rows[0] != entry.rows[1]:
        return entry
    taken = {
        column
        for other in entries
        if other is not entry and other.rows[0] <= entry.rows[0] <= other.rows[1]
        for column in other.covered
    }
    low, high = first, last
    while low > 0 and low - 1 not in taken:
        low -= 1
    while high + 1 < len(columns) and high + 1 not in taken:
        high += 1
    left, _, right, _ = around([cells[number].box for number in entry.cells])
    extents = _extents(entries, cells, len(columns))

    def off(span: tuple[int, int]) -> float:
        inside = [extents[c] for c in range(span[0], span[1] + 1) if extents[c]]
        centre = (min(a for a, _ in inside) + max(b for _, b in inside)) / 2 if inside else np.inf
        return abs(centre - (left + right) / 2)

    spans = [(a, b) for a in range(low, first + 1) for b in range(last, high + 1)]
    best = min(spans, key=lambda span: (off(span), span[1] - span[0]))
    return replace(entry, columns=best) if off(best) + size < off((first, last)) else entry


def _extents(entries: Sequence[Entry], cells: Sequence[Cell], columns: int) -> list[tuple[int, int] | None]:
    """Left and right of what stands in each column alone."""
    found: list[tuple[int, int] | None] = []
    for column in range(columns):
        boxes = [cells[n].box for e in entries if e.columns == (column, column) for n in e.cells]
        found.append((min(b[0] for b in boxes), max(b[2] for b in boxes)) if boxes else None)
    return found
