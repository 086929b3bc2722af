"""Rules of a page: lines of tables, frames, underlines and forms, whose ink is no part of letters."""

import numpy as np

LONG, THIN = 5.0, 0.25
"""Length and thickness, in heights of a letter, of horizontal rules; the bar of a T is shorter or thicker."""
HIGH = 8.0
"""Length of vertical ones, in heights of a letter: l and | of a heading are shorter."""
MARKS, APART, SLIM = 12, 0.8, 0.5
"""Least number of the marks of a dotted or dashed rule, and, in heights of a letter, the widest gap between two and the
thickest mark. Points under each other in a column of numbers or colons are farther apart, or not evenly."""
BESIDE = 2.2
"""In heights of a letter: nearer to a letter a row of marks is text, as the dots of a table of contents."""
CRUMB = 0.4
"""Largest speck of a rule, in heights of a letter."""
_TOUCH = 2
"""Pixels between rules that meet."""
_GAP = 1
"""Pixels that may be missing in a rule."""
_FREE = 0.8
"""Share of a rule's length that has paper on both sides. Letters stand on what looks like one where they touch."""


def rules(mask: np.ndarray, height: float) -> np.ndarray:
    """Bool [H, W]: the ink [H, W] of rules, but for where letters cross them. ``height``: a typical letter's."""
    thick = max(round(THIN * height), 3)
    across = _thin_runs(mask, round(LONG * height), thick)
    down = _thin_runs(mask.T, round(HIGH * height), thick).T
    return across | down


def frame_sides(boxes: np.ndarray, ruled: np.ndarray, height: float) -> np.ndarray:
    """Bool [C]: the components that stand between two rules, as the sides of a box in a form, too short to be rules
    themselves. ``ruled``: bool [H, W], the ink of rules."""
    width, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    found = np.zeros(len(boxes), bool)
    for number in np.flatnonzero((tall >= 1.2 * height) & (width <= max(THIN * height, 2))):
        x0, y0, x1, y1 = boxes[number]
        beside = slice(max(x0 - _TOUCH, 0), x1 + _TOUCH)
        found[number] = ruled[max(y0 - _TOUCH, 0) : y0, beside].any() and ruled[y1 : y1 + _TOUCH, beside].any()
    return found


def crumbs(boxes: np.ndarray, ruled: np.ndarray, height: float) -> np.ndarray:
    """Bool [C]: the specks that touch a rule, as where two faint ones cross."""
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) < CRUMB * height
    for number in np.flatnonzero(small):
        x0, y0, x1, y1 = boxes[number]
        small[number] = ruled[max(y0 - _TOUCH, 0) : y1 + _TOUCH, max(x0 - _TOUCH, 0) : x1 + _TOUCH].any()
    return small


def dotted(boxes: np.ndarray, height: float) -> np.ndarray:
    """Bool [C]: the components, of boxes [C, 4], that are marks of a dotted or dashed rule."""
    down = _marks(boxes[:, [1, 0, 3, 2]], height)
    across = _marks(boxes, height)
    found = np.zeros(len(boxes), bool)
    for run in down:
        found[run] = True
    letters = boxes[boxes[:, 3] - boxes[:, 1] >= 0.55 * height]
    for run in across:
        (x0, y0), (x1, y1) = boxes[run, :2].min(0), boxes[run, 2:].max(0)
        level = (letters[:, 3] > y0 - 0.2 * height) & (letters[:, 1] < y1 + 0.2 * height)
        near = (letters[:, 2] > x0 - BESIDE * height) & (letters[:, 0] < x1 + BESIDE * height)
        found[run] |= not (level & near).any()
    return found


def _marks(boxes: np.ndarray, height: float) -> list[np.ndarray]:
    """The components of each rule from left to right: small ones in a row, at even distances."""
    width, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    small = np.flatnonzero((tall <= SLIM * height) & (width <= 1.2 * height))
    middle = (boxes[small, 1] + boxes[small, 3]) / 2
    rows, band = [], max(0.25 * height, 2.0)
    for shift in (0.0, 0.5):  # a row may lie across the border of two bands
        number = np.floor(middle / band + shift).astype(int)
        order = small[np.lexsort((boxes[small, 0], number))]
        number = np.sort(number)
        gap = boxes[order[1:], 0] - boxes[order[:-1], 2]
        for run in np.split(order, np.flatnonzero((np.diff(number) != 0) | (gap > APART * height)) + 1):
            if len(run) < MARKS or boxes[run[-1], 2] - boxes[run[0], 0] < LONG * height:
                continue
            step = np.diff((boxes[run, 0] + boxes[run, 2]) / 2)
            usual = np.median(step)
            if (np.abs(step - usual) <= 0.25 * usual + 1).mean() > 0.9:
                rows.append(run)
    return rows


def _thin_runs(mask: np.ndarray, long: int, thick: int) -> np.ndarray:
    """The ink of horizontal runs of at least ``long`` pixels which are at most ``thick`` together."""
    starts, stops, flat = _runs(mask)
    if not len(starts):
        return np.zeros_like(mask)
    apart = starts[1:] - stops[:-1] > _GAP  # the padding parts rows
    first = np.concatenate([[True], apart])
    group = np.cumsum(first) - 1
    length = stops[np.concatenate([apart, [True]])] - starts[first]
    kept = (length >= long)[group]
    found = _filled(starts[kept], stops[kept], flat) & mask
    if not found.any():
        return found
    tops, bottoms, turned = _runs(found.T)
    ink = np.pad(mask.T, ((0, 0), (_GAP + 1, _GAP + 1))).ravel()
    above, below = ink[tops - 1], ink[bottoms]
    thin = bottoms - tops <= thick
    free = thin & ~above & ~below
    share = np.concatenate([[0], _filled(tops[free], bottoms[free], turned).T.cumsum(axis=None)])
    width = flat[1] - 2 * (_GAP + 1)
    starts, stops = (edge - edge // flat[1] * 2 * (_GAP + 1) - _GAP - 1 for edge in (starts, stops))  # without padding
    inside = np.bincount(group, share[stops] - share[starts])
    kept &= (inside >= _FREE * np.bincount(group, stops - starts))[group]
    ruled = np.zeros(mask.size + 1, np.int8)
    ruled[starts[kept]], ruled[stops[kept]] = 1, -1
    thin &= ~(above & below)
    return (
        ruled[:-1].cumsum(dtype=np.int8).reshape(-1, width).astype(bool) & _filled(tops[thin], bottoms[thin], turned).T
    )


def _runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Starts and stops of the runs in the rows of a mask, in the flat mask with ``_GAP`` + 1 columns around it, and its
    shape."""
    padded = np.pad(mask, ((0, 0), (_GAP + 1, _GAP + 1)))
    edges = np.flatnonzero(np.diff(padded.ravel().view(np.int8))) + 1
    return edges[::2], edges[1::2], padded.shape


def _filled(starts: np.ndarray, stops: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask of runs."""
    steps = np.zeros(shape[0] * shape[1] + 1, np.int8)
    steps[starts], steps[stops] = 1, -1
    return steps[:-1].cumsum(dtype=np.int8).reshape(shape).astype(bool)[:, _GAP + 1 : -_GAP - 1]
