"""Resize and crop an image of text to the text size and margins that a block-reading model was trained on."""

import numpy as np
from PIL import Image

from varytoy.layout.page import Box, PageLayout


def fit_text(page: PageLayout, text_size: float, box: Box | None = None) -> Image.Image:
    """The image, or a box of it in its pixels, scaled to an x-height of ``text_size`` pixels; unscaled where no text is
    found."""
    scale, view = page.scale_to(text_size), page.image
    if scale != 1.0:
        view = view.resize((max(round(view.width * scale), 1), max(round(view.height * scale), 1)), Image.LANCZOS)
    if box is None:
        return view
    return view.crop(tuple(min(round(side * scale), view.size[number % 2]) for number, side in enumerate(box)))


def cut_long(image: Image.Image, ratio: int = 4) -> list[tuple[int, int, int, int]]:
    """xyxy boxes of pieces of at most about ``ratio`` : 1 of a long image, such as a receipt, that would be unreadable
    squashed to a square; cut where rows (or columns) are most uniform, which is between lines (or words)."""
    grey = np.asarray(image.convert("L"), np.float32)
    horizontal = image.width > image.height
    if horizontal:
        grey = grey.T
    length, width = grey.shape
    variation = np.abs(np.diff(grey, axis=1)).sum(axis=1) if width > 1 else np.zeros(length)
    step, cuts = ratio * width, [0]
    while length - cuts[-1] > step * 1.25:
        low, high = cuts[-1] + step // 2, min(cuts[-1] + step, length)
        cuts.append(low + int(np.argmin(variation[low:high])))
    edges = zip(cuts, [*cuts[1:], length], strict=True)
    return [(a, 0, b, width) if horizontal else (0, a, width, b) for a, b in edges if b > a]
