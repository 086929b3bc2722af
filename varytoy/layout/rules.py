"""Rules of a page: lines of tables, frames, underlines and forms, whose ink is no part of letters."""

import numpy as np

LONG, THIN = 5.0, 0.25
"""Length and thickness, in heights of a letter, of horizontal rules; the bar of a T is shorter or thicker."""
HIGH = 8.0
"""Length of vertical ones, in heights of a letter: l and | of a heading are shorter."""
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
