"""Boxes of a line's words: the line is cut at the gaps of its ink that fit the text read in it best."""

from collections.abc import Sequence

import numpy as np

from varytoy.layout.ink import Ink

Box = tuple[int, int, int, int]
_WIDEST = 0.3
"""Of a line's height: a wider gap is no likelier to be a word space."""
_GAP, _KNOWN, _ESTIMATED = 10.0, 1.0, 0.3
"""Weights, in line heights, of a gap's width and of its distance from where the word should start."""


def word_boxes(
    ink: Ink, row: Box, words: Sequence[str], starts: Sequence[float | None] = (), tolerance: float = 0.0
) -> list[Box]:
    """xyxy of the words of a line, in pixels of the page.

    Args:
        ink: the page's.
        row: the line's box in pixels of the page.
        words: from left to right.
        starts: where each word starts, in pixels of the page; None, or no list: estimated from the words' lengths.
        tolerance: how far the starts may be off, in pixels.
    """
    x0, y0, x1, y1 = row
    spans = _spans(ink, row, words, starts or [None] * len(words), tolerance)
    edges = [(min(max(round(a), x0), x1), min(max(round(b), x0), x1)) for a, b in spans]
    return [(a, y0, max(b, a), y1) for a, b in edges]


def _spans(
    ink: Ink, row: Box, words: Sequence[str], starts: Sequence[float | None], tolerance: float
) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = row
    scale, height = ink.scale, max(y1 - y0, 1)
    left = round(x0 * scale)
    columns = ink.mask[round(y0 * scale) : round(y1 * scale), left : round(x1 * scale)].any(axis=0)
    edges = np.flatnonzero(np.diff(np.pad(columns, 1).astype(np.int8)))
    inked = (edges + left) / scale  # start, end, start, end of the runs of ink
    lengths = np.array([len(word) + 1 for word in words], float)
    estimated = x0 + (x1 - x0) * (lengths.cumsum() - lengths) / max(lengths.sum() - 1, 1)
    gaps = inked[1:-1].reshape(-1, 2)  # [G, (start, end)]
    if len(gaps) < len(words) - 1:
        ends = estimated + (x1 - x0) * (lengths - 1) / max(lengths.sum() - 1, 1)
        return list(zip(estimated.tolist(), ends.tolist(), strict=True))
    cuts = _choose(gaps, [starts[k] for k in range(1, len(words))], estimated[1:], height, tolerance)
    firsts = [inked[0] if len(inked) else x0, *gaps[cuts, 1]]
    lasts = [*gaps[cuts, 0], inked[-1] if len(inked) else x1]
    return [(float(a), float(b)) for a, b in zip(firsts, lasts, strict=True)]


def _choose(
    gaps: np.ndarray, starts: Sequence[float | None], estimated: np.ndarray, height: float, tolerance: float
) -> list[int]:
    """The gap before each word but the first: increasing, with the least cost."""
    wide = _GAP * np.minimum((gaps[:, 1] - gaps[:, 0]) / height, _WIDEST)
    total, choices = np.zeros(len(gaps)), []
    for number, (start, guess) in enumerate(zip(starts, estimated, strict=True)):
        place, weight, free = (guess, _ESTIMATED, 0.0) if start is None else (start, _KNOWN, tolerance)
        cost = weight * np.maximum(np.abs(gaps[:, 1] - place) - free, 0) / height - wide
        if number:
            best = np.minimum.accumulate(total)
            last = np.maximum.accumulate(np.where(total <= best, np.arange(len(total)), 0))
            choices.append(np.concatenate([[-1], last[:-1]]))
            total = np.concatenate([[np.inf], best[:-1]])
        total = total + cost
    if not len(starts):
        return []
    cuts = [int(np.argmin(total))]
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    return cuts[::-1]
