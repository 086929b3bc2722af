"""Lines of a PDF page in reading order: columns one after the other, what spans them between.

A page is cut at the gutter that most lines stand beside. Lines that cross it (titles, wide figures) cut the columns
into bands; each column of a band is cut in turn. Where no gutter is, lines follow one another from top to bottom, and
what stands in one row is one line. The top and the bottom row of a page (running heads, page numbers) are lines of
their own where they stand apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_tools.pdf.characters import Word
from data_tools.pdf.rules import Table

_SPLIT = 1.2
"""Ems between words from which they may be of different columns."""
_GUTTER = 0.8
"""Ems: width of a gutter at least."""
_COLUMN = 7.0
"""Ems: width of a column at least."""
_FILLED, _FILLED_LONG, _LONG = 0.7, 0.4, 12
"""Share of its column's width that the median line of a column has at least, and of a column of this many lines:
terms beside their descriptions, or cells of a table, are shorter."""
_FULL, _FULL_SHARE = 0.8, 0.2
"""Or the share of its lines that fill this share of the width, where the others are code or formulas."""
_TALL = 3
"""Lines that stand beside others, at least, in a band with columns."""
_APART = 0.9
"""Ems between the first or last row of a page and the rest, at least, where it is a running head or foot."""
_JOINED = 0.15
"""Ems between words that are printed without a space."""


@dataclass
class Line:
    """Words from left to right. ``box``: of its ink, xyxy, points; ``size``: of its largest share of letters."""

    words: list[Word]

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = zip(*(word.box for word in self.words), strict=True)
        return min(x1), min(y1), max(x2), max(y2)

    @cached_property
    def size(self) -> float:
        first = self.words[0].style
        if all(word.style is first for word in self.words):
            return first.size
        shares: dict[float, int] = {}
        for word in self.words:
            shares[word.style.size] = shares.get(word.style.size, 0) + len(word.text)
        return max(shares, key=lambda size: (shares[size], size))

    @cached_property
    def base(self) -> float:
        return max(self.words, key=lambda word: (word.style.size, len(word.text))).base

    @property
    def span(self) -> tuple[float, float]:
        """From the height of its capitals to its descenders, y."""
        return self.base - 0.72 * self.size, self.base + 0.22 * self.size

    @cached_property
    def text(self) -> str:
        return text_of(self.words)


def text_of(words: Sequence[Word]) -> str:
    """The words with spaces between them, but where they touch."""
    parts = []
    for number, word in enumerate(words):
        if number and not touch(words[number - 1], word):
            parts.append(" ")
        parts.append(word.text)
    return "".join(parts)


def touch(first: Word, second: Word) -> bool:
    """Whether no space is between them: a raised number, or what pdfium took apart."""
    gap = second.box[0] - first.box[2]
    return gap < _JOINED * min(first.style.size, second.style.size) and not second.spaced


@dataclass
class _Item:
    """A line or a table, with the box that places it."""

    box: tuple[float, float, float, float]
    content: Line | Table
    size: float


def segments(words: Sequence[Word]) -> list[Line]:
    """Words that follow each other in the file and on the page."""
    found: list[list[Word]] = []
    before: Word | None = None
    for word in words:
        size = word.style.size
        if (
            before is not None
            and -0.6 * size < word.box[0] - before.box[2] < _SPLIT * max(size, before.style.size)
            and abs(word.base - found[-1][0].base) < 0.6 * max(size, found[-1][0].style.size)
        ):
            found[-1].append(word)
        else:
            found.append([word])
        before = word
    return [Line(words) for words in found]


def reading_order(lines: Sequence[Line], tables: Sequence[Table]) -> list[list[Line | Table]]:
    """The columns of the page in reading order, each with its lines and tables from top to bottom; ``lines``: those of
    ``segments``."""
    items = [_Item((line.box[0], line.span[0], line.box[2], line.span[1]), line, line.size) for line in lines]
    items += [_Item(table.box, table, 0.0) for table in tables]
    if not items:
        return []
    sizes = sorted(item.size for item in items)
    em = sizes[len(sizes) // 2] or 10.0
    head, body, foot = _head_and_foot(items, em)
    return [_rows(part) for part in ([head] if head else []) + _ordered(body, em) + ([foot] if foot else [])]


def _head_and_foot(items: list[_Item], em: float) -> tuple[list[_Item], list[_Item], list[_Item]]:
    """The first and the last row where they stand apart from the rest."""
    rows: list[list[_Item]] = []
    end = -1e9
    for item in sorted(items, key=lambda item: item.box[1]):
        if item.box[1] >= end or not rows:
            rows.append([])
        rows[-1].append(item)
        end = max(end, item.box[3])
    if len(rows) < 3:
        return [], items, []

    def apart(row: list[_Item], gap: float) -> bool:
        height = max(item.box[3] for item in row) - min(item.box[1] for item in row)
        return gap > _APART * em and height < 1.6 * em and all(isinstance(item.content, Line) for item in row)

    head = rows[0] if apart(rows[0], _top(rows[1]) - _bottom(rows[0])) else []
    foot = rows[-1] if apart(rows[-1], _top(rows[-1]) - max(map(_bottom, rows[:-1]))) else []
    return head, [item for row in rows[bool(head) : len(rows) - bool(foot)] for item in row], foot


def _top(row: Sequence[_Item]) -> float:
    return min(item.box[1] for item in row)


def _bottom(row: Sequence[_Item]) -> float:
    return max(item.box[3] for item in row)


def _ordered(items: list[_Item], em: float) -> list[list[_Item]]:
    """Parts of a region in reading order."""
    if len(items) < 2 * _TALL:
        return [items] if items else []
    boxes = np.array([item.box for item in items])
    for gutter in _gutters(boxes, em):
        bands = _bands(items, boxes, gutter, em)
        if bands:
            return [part for band in bands for part in (_ordered(band, em) if len(band) < len(items) else [band])]
    return [items]


def _gutters(boxes: np.ndarray, em: float) -> list[float]:
    """Places of gutters that few lines cross, the best first."""
    left, right = boxes[:, 0].min(), boxes[:, 2].max()
    if right - left < 2 * _COLUMN * em:
        return []
    step = em / 5
    count = int((right - left) / step) + 1
    starts = np.clip(((boxes[:, 0] - left) / step).round().astype(int), 0, count)
    ends = np.clip(((boxes[:, 2] - left) / step).round().astype(int), 0, count)
    heights = boxes[:, 3] - boxes[:, 1]
    cover = np.zeros(count + 1)
    np.add.at(cover, starts, heights)
    np.add.at(cover, ends, -heights)
    cover = cover.cumsum()[:-1]
    width, edge = max(round(_GUTTER * em / step), 1), int(_COLUMN * em / step)
    if count <= 2 * edge + width:
        return []
    # The most that is crossed anywhere in a window of the gutter's width.
    windows = np.lib.stride_tricks.sliding_window_view(cover[edge : count - edge], width).max(1)
    found = []
    allowed = 0.5 * heights.sum()
    low = np.flatnonzero((windows <= allowed) & (windows <= np.minimum(np.roll(windows, 1), np.roll(windows, -1))))
    for run in np.split(low, np.flatnonzero(np.diff(low) > 1) + 1):
        if len(run):
            middle = run[len(run) // 2]
            found.append((windows[middle], left + (edge + middle + width / 2) * step))
    return [place for _, place in sorted(found)[:6]]


def _bands(items: list[_Item], boxes: np.ndarray, gutter: float, em: float) -> list[list[_Item]] | None:
    """The region's parts in reading order, if there are columns beside the gutter."""
    half = _GUTTER * em / 2
    crossing = (boxes[:, 0] < gutter - half * 0.9) & (boxes[:, 2] > gutter + half * 0.9)
    on_left = ~crossing & (boxes[:, 2] <= gutter + half)
    middles = boxes[:, [1, 3]].mean(1)
    band_of = np.searchsorted(np.sort(middles[crossing]), middles)
    bands: list[list[_Item]] = []
    loose: list[int] = []
    columns = 0
    for band in range(int(crossing.sum()) + 1):
        inside = (band_of == band) & ~crossing
        left, right = np.flatnonzero(inside & on_left), np.flatnonzero(inside & ~on_left)
        if _is_columns(boxes, left, right, em):
            columns += 1
            bands += [[items[number] for number in sorted(loose)]] if loose else []
            bands += [[items[number] for number in part] for part in (left, right)]
            loose = []
        else:
            loose += [*left, *right]
        loose += np.flatnonzero(crossing & (band_of == band)).tolist()
    bands += [[items[number] for number in sorted(loose)]] if loose else []
    return bands if columns else None


def _is_columns(boxes: np.ndarray, left: np.ndarray, right: np.ndarray, em: float) -> bool:
    """Whether these lines are two columns of text: wide and filled, with lines beside each other."""
    if min(len(left), len(right)) < _TALL:
        return False
    both = min(boxes[left, 3].max(), boxes[right, 3].max()) - max(boxes[left, 1].min(), boxes[right, 1].min())
    if both < _TALL * 1.1 * em:
        return False
    for side in (left, right):
        width = boxes[side, 2].max() - boxes[side, 0].min()
        if width < _COLUMN * em:
            return False
        filled = (boxes[side, 2] - boxes[side, 0]) / width
        least = _FILLED_LONG if min(len(left), len(right)) >= _LONG else _FILLED
        full = int((filled >= _FULL).sum())
        if np.median(filled) < least and full < max(_TALL, _FULL_SHARE * len(side)):
            return False
    return True


def _rows(items: list[_Item]) -> list[Line | Table]:
    """The lines of a part without columns; what stands in a row is one line."""
    rows: list[list[_Item]] = []
    for item in sorted(items, key=lambda item: (item.box[1] + item.box[3], item.box[0])):
        if rows and isinstance(item.content, Line) and isinstance(rows[-1][0].content, Line):
            last = max(rows[-1], key=lambda other: other.size)
            both = min(item.box[3], last.box[3]) - max(item.box[1], last.box[1])
            if both > 0.5 * min(item.box[3] - item.box[1], last.box[3] - last.box[1]):
                rows[-1].append(item)
                continue
        rows.append([item])
    found: list[Line | Table] = []
    for row in rows:
        if len(row) == 1:
            found.append(row[0].content)
        else:
            words = [word for item in sorted(row, key=lambda item: item.box[0]) for word in item.content.words]
            found.append(Line(sorted(words, key=lambda word: word.box[0])))
    return found
