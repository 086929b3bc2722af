"""Searchable PDF: the document's pages with the text that was read in them, invisible, word by word in its place."""

import ctypes
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from varytoy.data.documents import Source, open_pages, open_pdf
from varytoy.data.pdfium import PDF_LOCK
from varytoy.outputs.records import Record, lines_of

_DPI, _QUALITY = 150, 90
"""Of pages that are made of images that do not tell theirs, and of their JPEG."""
_EM, _ADVANCE = 1000, 500
"""Of the font: units of an em, and the width of each character."""
_CORNERS = {0: (0, 3, 2, 3, 0, 1), 90: (0, 1, 0, 3, 2, 1), 180: (2, 1, 0, 1, 2, 3), 270: (2, 3, 2, 1, 0, 3)}
"""For the degrees by which an image was turned: where in a box xyxy the start of the baseline, its end, and the top
above the start have their x and y."""


def searchable(records: Sequence[Record], source: Source, password: str | None) -> bytes:
    """The pages of a PDF as they are, or those of an image as JPEG, with the text. Pages with text of their own stay
    unchanged.

    Raises:
        DocumentError: the document cannot be opened.
    """
    with PDF_LOCK:
        document = open_pdf(source, password)
        if document is None:
            document = _of_images(records, source)
        else:
            _leave_only(document, [record["page"] for record in records])
        font = _load_font(document, records)
        for number, record in enumerate(records):
            if record.get("blocks"):
                _add_text(document, number, record, font)
        written = io.BytesIO()
        document.save(written)
        document.close()
    return written.getvalue()


def _of_images(records: Sequence[Record], source: Source):
    import pypdfium2

    document = pypdfium2.PdfDocument.new()
    for page in open_pages(source, [record["page"] for record in records]):
        image, written = page.image, io.BytesIO()
        dpi = image.info.get("dpi", (0, 0))[0]
        image.save(written, "PDF", resolution=float(dpi if 30 <= dpi <= 2400 else _DPI), quality=_QUALITY)
        document.import_pages(pypdfium2.PdfDocument(written.getvalue()))
        page.forget()
    return document


def _leave_only(document, numbers: Sequence[int]) -> None:
    for number in range(len(document), 0, -1):
        if number not in numbers:
            document.del_page(number - 1)


def _add_text(document, number: int, record: Record, font) -> None:
    import pypdfium2.raw as pdfium

    page = document[number]
    if page.get_textpage().get_text_bounded().strip():
        return
    for word in _words(record):
        text = _encodable(word["text"])
        element = pdfium.FPDFPageObj_CreateTextObj(document, font, 1.0)
        characters = ctypes.create_string_buffer(f"{text} \0".encode("utf-16-le"))
        pdfium.FPDFText_SetText(element, ctypes.cast(characters, pdfium.FPDF_WIDESTRING))
        pdfium.FPDFPageObj_SetMatrix(element, pdfium.FS_MATRIX(*_matrix(page, record, word["box"], len(text))))
        pdfium.FPDFTextObj_SetTextRenderMode(element, pdfium.FPDF_TEXTRENDERMODE_INVISIBLE)
        pdfium.FPDFPage_InsertObject(page, element)
    pdfium.FPDFPage_GenerateContent(page)
    page.close()


def _words(record: Record) -> Iterator[Record]:
    return (word for block in record["blocks"] for line in lines_of(block) for word in line["words"])


def _matrix(page, record: Record, box: Sequence[int], length: int) -> tuple[float, ...]:
    """From text of size 1 to the page: the text fills the box."""
    places = _CORNERS[record.get("turned", 0)]
    size = (record["width"], record["height"])
    corners = (_to_page(page, size, box[x], box[y]) for x, y in zip(places[::2], places[1::2], strict=True))
    (left, bottom), (right, other), (up_x, up_y) = corners
    width = max(length, 1) * _ADVANCE / _EM
    return (right - left) / width, (other - bottom) / width, up_x - left, up_y - bottom, left, bottom


def _to_page(page, size: tuple[int, int], x: float, y: float) -> tuple[float, float]:
    """From pixels of the page's image to its points, whatever its rotation and its crop box."""
    import pypdfium2.raw as pdfium

    found = ctypes.c_double(), ctypes.c_double()
    pdfium.FPDF_DeviceToPage(page, 0, 0, *size, 0, round(x), round(y), *map(ctypes.byref, found))
    return found[0].value, found[1].value


def _load_font(document, records: Sequence[Record]):
    import pypdfium2.raw as pdfium

    pages = [record for record in records if record.get("blocks")]
    used = {character for page in pages for word in _words(page) for character in _encodable(word["text"])}
    data = _font(sorted(used | {" "}))
    return pdfium.FPDFText_LoadFont(
        document, (ctypes.c_ubyte * len(data)).from_buffer_copy(data), len(data), pdfium.FPDF_FONT_TRUETYPE, True
    )


def _encodable(text: str) -> str:
    """PDFium writes no characters outside the basic plane, and UTF-16 no halves of them."""
    return re.sub("[\ud800-\udfff\U00010000-\U0010ffff]", "\ufffd", text)


def _font(characters: Sequence[str]) -> bytes:
    """A TrueType font in which each character is a rectangle of the same size."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen: Any = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, _EM), (_ADVANCE, _EM), (_ADVANCE, 0)):
        pen.lineTo(corner)
    pen.closePath()
    rectangle = pen.glyph()
    names = {ord(character): f"u{ord(character):04X}" for character in characters}
    order = [".notdef", *names.values()]
    builder = FontBuilder(_EM, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys(order, rectangle))
    builder.setupHorizontalMetrics(dict.fromkeys(order, (_ADVANCE, 0)))
    builder.setupHorizontalHeader(ascent=_EM, descent=0)
    builder.setupNameTable({"familyName": "Invisible", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=_EM, sTypoDescender=0, usWinAscent=_EM, usWinDescent=0)
    builder.setupPost(keepGlyphNames=False)
    written = io.BytesIO()
    builder.save(written)
    return written.getvalue()
