"""One page of a PDF: its image, its blocks in reading order, and why it makes no sample if it does not."""

from dataclasses import dataclass

from PIL import Image

from data_tools.pdf.blocks import Block, Body, make_blocks
from data_tools.pdf.characters import Layer, read_layer
from data_tools.pdf.order import Line, reading_order
from data_tools.pdf.rules import Drawing, find_tables, read_drawing
from varytoy.data.pdfium import PDF_LOCK, PdfError, scale_of, shown


@dataclass
class PdfPage:
    """``image``: RGB, of the size that was asked for; ``blocks``: in reading order, in points of the page."""

    image: Image.Image
    layer: Layer
    drawing: Drawing
    blocks: list[Block]
    body: Body

    def box(self, line: Line) -> tuple[int, int, int, int]:
        return scaled(line.box, self.layer)


def scaled(box: tuple[float, float, float, float], layer: Layer) -> tuple[int, int, int, int]:
    """Points as 0-1000 of the page."""
    sides = (box[0] / layer.width, box[1] / layer.height, box[2] / layer.width, box[3] / layer.height)
    x1, y1, x2, y2 = (min(max(round(1000 * side), 0), 1000) for side in sides)
    return x1, y1, x2, y2


def read_blocks(layer: Layer, drawing: Drawing) -> tuple[list[Block], Body]:
    """The page's blocks in reading order."""
    tables = find_tables(drawing, layer.words) if len(drawing.across) > 1 else []
    inside = {id(word) for table in tables for row in table.cells for cell in row for word in cell}
    words = [word for word in layer.words if id(word) not in inside] if inside else layer.words
    return make_blocks(reading_order(words, tables))


def draw(page, name: str, size: int | None, dpi: float) -> Image.Image:
    """The picture of a pypdfium2 page, with ``size`` pixels on its longer side, or at ``dpi``. Raises PdfError."""
    import pypdfium2

    width, height = page.get_size()
    scale = scale_of(width, height, dpi, name)
    if size:
        scale = min(size / max(width, height), scale_of(width, height, 1e6, name))
    if scale * min(width, height) < 1:
        raise PdfError(f"{name} is {width:.0f} x {height:.0f} points, too narrow to be shown.")
    try:
        return page.render(scale=scale, rev_byteorder=True).to_pil()
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
