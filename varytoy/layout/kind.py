"""Whether an image shows text or is a photograph, from its colours and its ink alone."""

import numpy as np
from PIL import Image

from varytoy.layout.components import joined, neighbours, typical_height
from varytoy.layout.ink import Ink

PIXELS = 600_000
"""Size at which an image is judged."""
PLAIN = 0.6
"""Least share of the pixels that have one colour on plain paper. Photographs mostly have less than 0.2."""
STROKE = 3.5
"""Mean width (pixels) below which marks are strokes of letters and drawings, not the things in a photograph."""
LETTERS = 0.28
"""Least share of the marks that stand in rows, as letters do, on paper of any kind."""
_SAMPLES = 160  # a side
_ALIKE = 16  # difference from the paper, of 255, that noise and compression make


def is_text(image: Image.Image) -> bool:
    """Whether an image (RGB or grey) shows text: no marks, thin marks on plain paper, or marks in rows, upright or
    sideways. Otherwise it is a photograph."""
    ink = Ink(image, PIXELS)
    runs, _, boxes, areas = ink.components
    if not len(boxes):
        return True
    if areas.sum() < STROKE * len(runs) and _plain(image) >= PLAIN:
        return True
    height = typical_height(boxes, areas)
    return height is not None and max(_in_rows(boxes, height), _in_rows(boxes[:, [1, 0, 3, 2]], height)) >= LETTERS


def _plain(image: Image.Image) -> float:
    """The share of the pixels that have the most frequent colour."""
    size = (min(image.width, _SAMPLES), min(image.height, _SAMPLES))
    colours = np.asarray(image.convert("RGB").resize(size, Image.Resampling.NEAREST)).reshape(-1, 3)
    bins = (colours >> 4).astype(int) @ [256, 16, 1]
    paper = np.median(colours[bins == np.bincount(bins).argmax()], axis=0)
    return float((np.abs(colours - paper).max(axis=1) <= _ALIKE).mean())


def _in_rows(boxes: np.ndarray, height: float) -> float:
    """The share of the marks [C, 4] xyxy that are as high as a mark beside them and level with it."""
    width, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    letters = boxes[(tall >= 0.55 * height) & (tall < 3 * height) & (width < 6 * height)]
    if not len(letters):
        return 0.0
    x0, y0, x1, y1 = letters.astype(float).T
    tall = y1 - y0
    pairs = neighbours(x0, x1 + 1.3 * tall, y0, y1, 1.5 * height)
    if pairs is None:  # texture
        return 0.0
    i, j = pairs  # j is right of i
    low, high = np.minimum(tall[i], tall[j]), np.maximum(tall[i], tall[j])
    shared = np.minimum(y1[i], y1[j]) - np.maximum(y0[i], y0[j])
    level = np.minimum(np.abs(y0[i] - y0[j]), np.abs(y1[i] - y1[j])) <= np.maximum(1, 0.25 * low)
    beside = level & (shared >= 0.45 * low) & (high < 2.2 * low) & (x0[j] >= x1[i] - 0.3 * low)
    row = joined(len(letters), i[beside], j[beside])
    return float((np.bincount(row)[row] > 1).sum()) / len(boxes)
