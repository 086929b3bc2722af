"""An image of text at the size, and with the margins, that a model which reads blocks was taught."""

import numpy as np
from PIL import Image

from varytoy.layout.page import Box, PageLayout


def fit_text(page: PageLayout, text_size: float, box: Box | None = None) -> Image.Image:
    """The image, or a box of it in its pixels, scaled so that the letter x is ``text_size`` pixels high; at its own
    size where no text is found."""
    scale, view = page.scale_to(text_size), page.image
    if scale != 1.0:
        view = view.resize((max(round(view.width * scale), 1), max(round(view.height * scale), 1)), Image.LANCZOS)
    if box is None:
        return view
    return view.crop(tuple(min(round(side * scale), view.size[number % 2]) for number, side in enumerate(box)))


def cut_long(image: Image.Image, ratio: int = 4) -> list[tuple[int, int, int, int]]:
    """xyxy of pieces, none longer than ``ratio`` : 1 by much, of a receipt or a line that a square would squash away;
    cut where the rows (or columns) are the most even, which is between lines (or words)."""
    grey = np.asarray(image.convert("L"), np.float32)
    across = image.width > image.height
    if across:
        grey = grey.T
    length, breadth = grey.shape
    uneven = np.abs(np.diff(grey, axis=1)).sum(axis=1) if breadth > 1 else np.zeros(length)
    step, cuts = ratio * breadth, [0]
    while length - cuts[-1] > step * 1.25:
        low, high = cuts[-1] + step // 2, min(cuts[-1] + step, length)
        cuts.append(low + int(np.argmin(uneven[low:high])))
    edges = zip(cuts, [*cuts[1:], length], strict=True)
    return [(a, 0, b, breadth) if across else (0, a, breadth, b) for a, b in edges if b > a]
