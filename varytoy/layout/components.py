"""Connected components of ink, and which of them are neighbours.

Numpy only: SciPy's connected_components gives the same labels in the same time, but is a large package that takes long
to import.
"""

import numpy as np

MAX_PAIRS = 3_000_000
"""Neighbours among components, far above any page of text: the densest have 100,000; only textures have more."""


def joined(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Labels 0.. of the connected sets of ``count`` items under the edges a-b."""
    parent = np.arange(count)
    while len(a):
        low, high = np.minimum(parent[a], parent[b]), np.maximum(parent[a], parent[b])
        apart = low != high
        a, b = a[apart], b[apart]
        np.minimum.at(parent, high[apart], low[apart])
        while not np.array_equal(parent, above := parent[parent]):
            parent = above
    return (np.cumsum(parent == np.arange(count)) - 1)[parent]


def expand(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs (i, j) with start[i] <= j < stop[i]."""
    number = np.maximum(stop - start, 0)
    first = np.repeat(np.arange(len(start)), number)
    within = np.arange(len(first)) - np.repeat(np.cumsum(number) - number, number)
    return first, start[first] + within


def neighbours(
    x0: np.ndarray, x1: np.ndarray, y0: np.ndarray, y1: np.ndarray, band: float
) -> tuple[np.ndarray, ...] | None:
    """Pairs (i, j) of items whose ranges share a row, j starting right of i's start and left of its end ``x1``; None
    where they are more than ``MAX_PAIRS``."""
    order = np.argsort(x0, kind="stable")
    first, last = (np.floor((y[order] - y0.min()) / band).astype(int) for y in (y0, y1))
    stop = np.searchsorted(x0[order], x1[order], "right")  # rank at which the pairs of an item end
    item, row = expand(first, last + 1)  # an item is entered in every band of rows that it touches
    by_row = np.argsort(row * len(order) + item, kind="stable")
    item, row = item[by_row], row[by_row]
    key = row * len(order) + item
    following, end = np.arange(1, len(key) + 1), np.searchsorted(key, row * len(order) + stop[item])
    if np.maximum(end - following, 0).sum() > MAX_PAIRS:
        return None
    a, b = expand(following, end)
    a, b, row = item[a], item[b], row[a]
    once = row == np.maximum(first[a], first[b])
    a, b = a[once], b[once]
    shared = (y0[order[a]] <= y1[order[b]]) & (y0[order[b]] <= y1[order[a]])
    a, b = a[shared], b[shared]
    by_rank = np.argsort(a * len(order) + b, kind="stable")
    return order[a[by_rank]], order[b[by_rank]]


def label_components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Runs [R, 3] (row, x0, x1), component of each run [R], component boxes [C, 4] xyxy, areas [C]."""
    width = mask.shape[1] + 2
    flat = np.pad(mask, ((0, 0), (1, 1))).ravel().view(np.int8)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, stops = edges[::2], edges[1::2]
    rows = starts // width
    pairs = expand(np.searchsorted(stops, starts - width), np.searchsorted(starts, stops - width, "right"))
    label = joined(len(starts), *pairs)
    runs = np.stack([rows, starts - rows * width - 1, stops - rows * width - 1], axis=1)
    count = int(label.max()) + 1 if len(label) else 0
    boxes = np.tile(np.array([mask.shape[1], mask.shape[0], 0, 0]), (count, 1))
    np.minimum.at(boxes[:, 0], label, runs[:, 1])
    np.minimum.at(boxes[:, 1], label, runs[:, 0])
    np.maximum.at(boxes[:, 2], label, runs[:, 2])
    np.maximum.at(boxes[:, 3], label, runs[:, 0] + 1)
    return runs, label, boxes, np.bincount(label, runs[:, 2] - runs[:, 1], count)


def middle_of(values: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """Median of ``values`` per label; anything for a label without values."""
    order = np.lexsort((values, label))
    number = np.bincount(label, minlength=count)
    return values[order][np.maximum(np.cumsum(number) - number + (number - 1) // 2, 0)]


def dots(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Bool [C]: which components are nearly square and filled, as points and specks are."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return (areas > 0.7 * width * height) & (width < 1.6 * height) & (height < 1.6 * width)


def typical_height(boxes: np.ndarray, areas: np.ndarray) -> float | None:
    """Median height of letter candidates; dots and specks, which some pages have many of, are excluded."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    letter = (height >= 4) & (width >= 2) & ~dots(boxes, areas) & (width < 40 * height)
    return float(np.median(height[letter])) if letter.any() else None
