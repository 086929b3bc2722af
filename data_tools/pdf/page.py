"""One page of a PDF: its image, its blocks in reading order, and why it makes no sample if it does not."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_tools.pdf.blocks import Block, Body, make_blocks
from data_tools.pdf.characters import Layer, read_layer
from data_tools.pdf.order import Line, reading_order, segments
from data_tools.pdf.rules import Drawing, find_tables, read_drawing
from varytoy.data.pdfium import PDF_LOCK, PdfError, scale_of, shown


def scaled(boxes: Sequence[Sequence[float]], layer: Layer) -> list[int]:
    """Boxes in points as four numbers each, 0-1000 of the page."""
    if not boxes:
        return []
    factors = np.array([1000 / layer.width, 1000 / layer.height] * 2)
    return np.clip(np.rint(np.array(boxes) * factors), 0, 1000).astype(int).ravel().tolist()


def read_blocks(lines: Sequence[Line], drawing: Drawing) -> tuple[list[Block], Body]:
    """The page's blocks in reading order; ``lines``: those of ``order.segments``."""
    tables = []
    if len(drawing.across) > 1:
        tables = find_tables(drawing, [word for line in lines for word in line.words])
    if tables:
        inside = {id(word) for table in tables for row in table.cells for cell in row for word in cell}
        lines = segments([word for line in lines for word in line.words if id(word) not in inside])
    return make_blocks(reading_order(lines, tables))


def draw(page, name: str, size: int | None, dpi: float) -> tuple[Image.Image, np.ndarray]:
    """The picture of a pypdfium2 page, RGBX, with ``size`` pixels on its longer side, or at ``dpi``; and its pixels
    [H, W, 4]. Both are the memory that pdfium drew in. Raises PdfError."""
    import pypdfium2

    width, height = page.get_size()
    scale = scale_of(width, height, dpi, name)
    if size:
        scale = min(size / max(width, height), scale_of(width, height, 1e6, name))
    if scale * min(width, height) < 1:
        raise PdfError(f"{name} is {width:.0f} x {height:.0f} points, too narrow to be shown.")
    try:
        bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=True)
        return bitmap.to_pil(), bitmap.to_numpy()
    except (pypdfium2.PdfiumError, MemoryError, RuntimeError):
        raise PdfError(f"{name} is broken and cannot be shown.") from None


def read_structure(page) -> tuple[Layer, Drawing]:
    """Text layer and rules of a pypdfium2 page. Raises PdfiumError."""
    with PDF_LOCK:
        layer = read_layer(page)
        a, b, c, d, e, f = shown(page)
        width, height = layer.width, layer.height
        at = (a * width, b * width, c * width, d * height, e * height, f * height)
        return layer, read_drawing(page, at, width, height)
