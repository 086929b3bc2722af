"""Columns of a page: a recursive cut at white space groups line segments into columns, and each into rows."""

import threading
from collections.abc import Sequence

import numpy as np

from varytoy.layout.ink import Segment

MAX_VISITS = 400_000  # most segments x gutters tried; the densest pages have 130,000

Line = list[Segment]


def _same_row(lead: Segment, other: Segment) -> bool:
    """Whether a segment belongs to the line of a longer one."""
    if lead.picture or other.picture:
        return False
    reach = 1.0 if other.x1 - other.x0 < 4 * lead.size else 0.3  # short ones may be superscripts
    return lead.top - reach * lead.size < other.middle < lead.base + 0.3 * lead.size


def rows_of(segments: Sequence[Segment]) -> list[Line]:
    """Segments that share a row, from top to bottom; within a line from left to right."""
    lines: list[Line] = []
    leads: list[Segment] = []  # the longest segment of each line
    step = max(sum(s.size for s in segments) / max(len(segments), 1), 1.0)
    candidates: dict[int, list[int]] = {}  # lines that a segment may belong to, by vertical position
    # Long ones first: a quotation mark or a superscript says little about the position of its line.
    for segment in sorted(segments, key=lambda s: s.x0 - s.x1):
        middle, nearest, smallest = segment.middle, -1, np.inf
        for k in candidates.get(int(middle // step), ()):
            distance = abs(leads[k].middle - middle)
            if distance < smallest and _same_row(leads[k], segment):
                nearest, smallest = k, distance
        if nearest >= 0:
            lines[nearest].append(segment)
            continue
        if not segment.picture:
            low, high = segment.top - segment.size, segment.base + 0.3 * segment.size
            for row in range(int(low // step), int(high // step) + 1):
                candidates.setdefault(row, []).append(len(lines))
        lines.append([segment])
        leads.append(segment)
    order = sorted(range(len(lines)), key=lambda k: leads[k].middle)
    return [sorted(lines[k], key=lambda s: s.x0) for k in order]


def span(line: Line) -> tuple[float, float]:
    return min(s.x0 for s in line), max(s.x1 for s in line)


def _are_columns(left: list[Segment], right: list[Segment], unit: float) -> bool:
    """Whether the two sides of a gutter are columns, and not cells that are read row by row (table, contents)."""
    if any(s.picture and s.base - s.top > 6 * unit for s in left + right):
        return True
    if max(len(left), len(right)) < 3:
        return False
    sides = [rows_of(side) for side in (left, right)]
    few, many = sorted(len(side) for side in sides)
    gutter = min(s.x0 for s in right) - max(s.x1 for s in left)
    if many < 3:
        return False
    fills, widths = [], []
    for side in sides:
        spans = np.array([span(line) for line in side])
        extent = spans[:, 1].max() - spans[:, 0].min()
        width = float(np.quantile([sum(s.x1 - s.x0 for s in line) for line in side], 0.65))
        fills.append(width / extent)
        widths.append(width)
    bases = [np.array([max(line, key=lambda s: s.letters).base for line in side]) for side in sides]
    if any(len(b) > 1 and np.median(np.diff(b)) > 7 * unit for b in bases):
        return False
    low, high = max(b.min() for b in bases) - unit, min(b.max() for b in bases) + unit
    shorter, longer = sorted((b[(b >= low) & (b <= high)] for b in bases), key=len)
    aligned = float((np.abs(shorter[:, None] - longer).min(axis=1) < 0.4 * unit).mean()) if len(shorter) else 0.0
    if aligned < 0.5 and len(shorter) >= 2:
        return min(widths) > 4 * unit
    enough = few >= 4 or (few >= 2 and many >= 6 and gutter > 2.2 * unit)
    return enough and min(widths) > 13 * unit and min(fills) > 0.55 and len(shorter) > 0.55 * len(longer)


def _stretches(segments: list[Segment], x: float) -> list[tuple[list, list, list]]:
    """From top to bottom: the (left, right) segments of a gutter at ``x`` and the rows across it that end them.

    ``segments``: by their middles.
    """
    parts: list[tuple[list, list, list]] = [([], [], [])]
    over = [s for s in segments if s.x0 < x < s.x1]
    rows = sorted((s.middle - 0.6 * s.size, s.middle + 0.6 * s.size) for s in over)
    row, end = 0, -np.inf  # the lowest point of the rows across that start above the segment
    for segment in segments:
        middle = segment.middle
        while row < len(rows) and rows[row][0] <= middle:
            end = max(end, rows[row][1])
            row += 1
        across = segment.x0 < x < segment.x1 or (middle <= end and not segment.picture)
        if parts[-1][2]:
            if not across:
                last = parts[-1][2][-1]  # the short last line of a paragraph that goes across
                across = segment.base - last.base < 3.4 * last.size and abs(segment.x0 - last.x0) < last.size
                across = across and 0.85 < segment.size / last.size < 1.18
            if not across:
                parts.append(([], [], []))
        parts[-1][2 if across else int(segment.x0 >= x)].append(segment)
    return parts


def _gutters(segments: list[Segment], unit: float) -> list[float]:
    """Middles of the x ranges that few segments cross."""
    x0, x1 = np.sort([s.x0 for s in segments]), np.sort([s.x1 for s in segments])
    positions = np.arange(x0[0] + 2 * unit, x1[-1] - 2 * unit, 0.25 * unit)
    if len(positions) < 3:
        return []
    crossed = np.searchsorted(x0, positions, "left") - np.searchsorted(x1, positions, "right")
    valley = (crossed[1:-1] <= crossed[:-2]) & (crossed[1:-1] <= crossed[2:]) & (crossed[1:-1] <= 0.4 * crossed.max())
    padded = np.pad(valley, 2)
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [float(positions[(a + b) // 2]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


class Cutter:
    """The recursive cut into columns. ``cancel``: when set, the rest is read row by row.

    Textures have arbitrarily many gutters, so the work is bounded; beyond the bound, segments are read row by row.
    """

    def __init__(self, unit: float, cancel: threading.Event | None = None):
        self.unit, self.cancel, self.left = unit, cancel, MAX_VISITS

    def columns(self, segments: list[Segment]) -> list[list[Segment]]:
        """Groups in reading order; each group is one column of rows."""
        best_score, parts = 0, []
        ordered = sorted(segments, key=lambda s: s.middle)
        for x in _gutters(segments, self.unit):
            self.left -= len(segments)
            if self.left < 0 or (self.cancel is not None and self.cancel.is_set()):
                break
            stretches = _stretches(ordered, x)
            sides = [(a, b) for a, b, _ in stretches if a and b]
            score = sum(len(a) + len(b) for a, b in sides)
            for a, b in sides:
                if score > best_score and not _are_columns(a, b, self.unit):
                    score -= len(a) + len(b)
            if score > best_score:
                best_score, parts = score, stretches
        if not best_score:
            return [segments]
        groups: list[list[Segment]] = []
        rest: list[Segment] = []
        for left, right, across in parts:
            if left and right and _are_columns(left, right, self.unit):
                if rest:
                    groups += self.columns(rest)
                groups += self.columns(left) + self.columns(right)
                rest = list(across)
            else:
                rest += left + right + across
        return groups + (self.columns(rest) if rest else [])
