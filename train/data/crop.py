"""Random crops of pictures, with the boxes of their samples moved along."""

import random
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from train.data.mirror import can_mirror
from varytoy.data.boxes import SCALE, Box, Coordinates, on_grid, rewrite, written_boxes
from varytoy.data.sample import Sample

_TRIES = 4
_VISIBLE = 0.6
"""Least share of each box that a crop must show."""


def crop(
    sample: Sample, images: list[Image.Image], rng: random.Random, smallest: float, bins: int = 0
) -> tuple[Sample, list[Image.Image]]:
    """A random part of the picture, each side at least ``smallest`` of its own, and the sample with its boxes in it, on
    a grid of ``bins`` if that is not 0. Nothing changes where no part of four tries shows most of each box, and for
    samples of several pictures or with text, which crops would cut."""
    if not can_mirror(sample):
        return sample, images
    boxes = [box.xyxy for part in getattr(sample, "parts", None) or [sample] for box in part.boxes]
    for message in sample.messages:
        boxes += [found.numbers(message["content"]) for found in written_boxes(message["content"])]
    for _ in range(_TRIES):
        window = _window(rng, smallest)
        if all(_shown(box, window) >= _VISIBLE for box in boxes):
            (image,) = images
            width, height = image.size
            x1, y1, x2, y2 = (side * (width, height)[number % 2] for number, side in enumerate(window))
            part = image.resize(image.size, Image.Resampling.BILINEAR, box=(x1, y1, x2, y2))
            return _moved(sample, window, bins), [part]
    return sample, images


def _window(rng: random.Random, smallest: float) -> tuple[float, float, float, float]:
    """Left, top, right, bottom as shares of the picture."""
    width, height = rng.uniform(smallest, 1), rng.uniform(smallest, 1)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return left, top, left + width, top + height


def _shown(xyxy: Sequence[int], window: tuple[float, float, float, float]) -> float:
    """The share of a box that lies in the window."""
    x1, y1, x2, y2 = xyxy
    left, top, right, bottom = (side * SCALE for side in window)
    width, height = min(x2, right) - max(x1, left), min(y2, bottom) - max(y1, top)
    area = max(x2 - x1, 1) * max(y2 - y1, 1)
    return max(width, 0) * max(height, 0) / area


def _moved(sample: Sample, window: tuple[float, float, float, float], bins: int) -> Sample:
    left, top, right, bottom = window

    def move(xyxy: Sequence[int]) -> Coordinates:
        shares = [
            (side / SCALE - (left, top)[number % 2]) / (right - left, bottom - top)[number % 2]
            for number, side in enumerate(xyxy)
        ]
        x1, y1, x2, y2 = (round(min(max(share, 0), 1) * SCALE) for share in shares)
        return on_grid((x1, y1, x2, y2), bins) if bins else (x1, y1, x2, y2)

    messages = [{**message, "content": rewrite(message["content"], move)} for message in sample.messages]
    changed = {"messages": messages, "boxes": [Box(box.label, move(box.xyxy)) for box in sample.boxes]}
    if parts := getattr(sample, "parts", None):
        changed["parts"] = [_moved(part, window, bins) for part in parts]
    return replace(sample, **changed)
