"""A picture of text at the size, and with the margins, that a model which reads blocks was taught."""

from PIL import Image

from varytoy import layout

MOST_ENLARGED = 4.0
MOST_LINES = 8


def fit_text(image: Image.Image, text_size: float) -> Image.Image:
    """The picture scaled so that the letter x is ``text_size`` pixels high; as it is where no text is found."""
    size = layout.estimate_text_size(image)
    if not size:
        return image
    scale = min(text_size / size, MOST_ENLARGED)
    if abs(scale - 1) < 0.08:
        return image
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)), Image.LANCZOS)


def one_pass_box(view: Image.Image, text_size: float, max_pixels: int) -> tuple[int, int, int, int] | None:
    """xyxy of the part of a fitted picture that is read at once, without wide margins; None where it holds more than
    ``MOST_LINES`` lines, a line that is too long, a picture, or over ``max_pixels``."""
    blocks = layout.cut_blocks(view)
    several = any(block.kind != "text" or not block.line_start for block in blocks)
    if several or sum(block.lines for block in blocks) > MOST_LINES:
        return None
    box = (0, 0, *view.size)
    if blocks:
        margin = round(2 * text_size)
        left, top, right, bottom = zip(*(block.box for block in blocks), strict=True)
        box = (
            max(min(left) - margin, 0),
            max(min(top) - margin, 0),
            min(max(right) + margin, view.width),
            min(max(bottom) + margin, view.height),
        )
    return box if (box[2] - box[0]) * (box[3] - box[1]) <= max_pixels else None


def cut_long(image: Image.Image, ratio: int = 4) -> list[tuple[int, int, int, int]]:
    """xyxy of pieces, none longer than ``ratio`` : 1 by much, of a receipt or a line that a square would squash away;
    cut where the rows (or columns) are the most even, which is between lines (or words)."""
    import numpy as np

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
