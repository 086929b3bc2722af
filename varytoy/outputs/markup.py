"""HTML, hOCR 1.2 and ALTO 4.

Sources: the hOCR specification (https://kba.github.io/hocr-spec/1.2/), the ALTO schema
(https://www.loc.gov/standards/alto/).
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from varytoy.data.documents import Source
from varytoy.formats.page import body as rendered
from varytoy.outputs.records import Record, lines_of

_ALTO = "http://www.loc.gov/standards/alto/ns-v4#"
_SCHEMA = f"{_ALTO} http://www.loc.gov/standards/alto/v4/alto-4-2.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_NOT_IN_TITLES = str.maketrans({"\\": "/", '"': "'", ";": ","})
"""Of a file's name in a title of hOCR, whose parts end at semicolons."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DEEPEST = 100
"""Elements in each other; markdown that is nested deeper, such as a run of a thousand asterisks, is shown as it is."""
_STYLE = (
    "body{max-width:48rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 sans-serif}"
    "article+article{border-top:1px solid;margin-top:2rem}"
    "table{border-collapse:collapse}td,th{border:1px solid;padding:.2rem .5rem;text-align:left}"
)


def html(records: Sequence[Record], source: Source, password: str | None) -> bytes:
    """A page with the blocks as paragraphs, or the markdown as what it means, and a table of the objects found."""
    root = Element("html")
    head = SubElement(root, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "title").text = _clean(records[0]["file"])
    SubElement(head, "style").text = _STYLE
    body = SubElement(root, "body")
    for record in records:
        page = SubElement(body, "article", id=f"page-{record.get('page', 1)}")
        if "error" in record:
            SubElement(page, "p").text = _clean(record["error"])
        elif "markdown" in record:
            page.append(_rendered(record["markdown"]))
        else:
            _paragraphs(page, record)
        if record.get("boxes"):
            _table(page, record["boxes"])
    return b"<!DOCTYPE html>\n" + ElementTree.tostring(root, "utf-8", method="html")


def _paragraphs(page: Element, record: Record) -> None:
    for text in filter(str.strip, re.split(r"\n{2,}", record["text"])):
        first, *others = _clean(text).split("\n")
        paragraph = SubElement(page, "p")
        paragraph.text = first
        for line in others:
            SubElement(paragraph, "br").tail = line


def _rendered(markdown: str) -> Element:
    """Markdown with its formulas and tables; other HTML in it is shown as text."""
    written = rendered(_clean(markdown))
    root = ElementTree.fromstring(f"<div>{_clean(written)}</div>")  # again: &#12; became a form feed
    depth, row = 0, [root]
    while row and depth <= _DEEPEST:
        depth, row = depth + 1, [child for each in row for child in each]
    if row:
        root = Element("div")
        SubElement(root, "pre").text = _clean(markdown)
    return root


def _table(page: Element, boxes: Sequence[Record]) -> None:
    table = SubElement(page, "table")
    names = SubElement(table, "tr")
    for name in ("what", "x1", "y1", "x2", "y2"):
        SubElement(names, "th").text = name
    for each in boxes:
        row = SubElement(table, "tr")
        for value in (each["label"], *each["box"]):
            SubElement(row, "td").text = _clean(str(value))


def hocr(records: Sequence[Record], source: Source, password: str | None) -> bytes:
    """Pages, blocks, lines and words with their boxes in pixels, and the words' confidences in percent."""
    root = Element("html", xmlns="http://www.w3.org/1999/xhtml")
    head = SubElement(root, "head")
    SubElement(head, "title").text = _clean(records[0]["file"])
    SubElement(head, "meta", {"http-equiv": "Content-Type", "content": "text/html; charset=utf-8"})
    SubElement(head, "meta", name="ocr-system", content=f"varytoy {version('varytoy')}")
    SubElement(head, "meta", name="ocr-langs", content="unknown")
    kinds = "ocr_page ocr_carea ocr_par ocr_line ocrx_word"
    SubElement(head, "meta", name="ocr-capabilities", content=kinds)
    body = SubElement(root, "body")
    for number, record in enumerate(records):
        box = _box((0, 0, record.get("width", 0), record.get("height", 0)))
        name = _clean(record["file"]).translate(_NOT_IN_TITLES)
        title = f'image "{name}"; {box}; ppageno {record.get("page", number + 1) - 1}'
        page = SubElement(body, "div", {"class": "ocr_page", "id": f"page_{number + 1}", "title": title})
        page.text = "\n"  # else an empty one is <div/>, which HTML takes for the start of one
        angle = f"; textangle {_angle(record)}" if _angle(record) else ""
        for count, block in enumerate(record.get("blocks", ()), 1):
            key = f"{number + 1}_{count}"
            area = SubElement(page, "div", {"class": "ocr_carea", "id": f"block_{key}", "title": _box(block["box"])})
            paragraph = SubElement(area, "p", {"class": "ocr_par", "id": f"par_{key}", "title": _box(block["box"])})
            for line in lines_of(block):
                row = SubElement(paragraph, "span", {"class": "ocr_line", "title": _box(line["box"]) + angle})
                for word in line["words"]:
                    score = word["confidence"]
                    title = _box(word["box"]) + ("" if score is None else f"; x_wconf {round(100 * score)}")
                    element = SubElement(row, "span", {"class": "ocrx_word", "title": title})
                    element.text, element.tail = _clean(word["text"]), " "
    doctype = b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html>\n'
    return doctype + ElementTree.tostring(root, "utf-8")


def alto(records: Sequence[Record], source: Source, password: str | None) -> bytes:
    """Pages, blocks, lines and words in pixels; ``WC`` is a word's confidence from 0 to 1."""
    root = Element("alto", {"xmlns": _ALTO, "xmlns:xsi": _XSI, "xsi:schemaLocation": _SCHEMA, "SCHEMAVERSION": "4.2"})
    description = SubElement(root, "Description")
    SubElement(description, "MeasurementUnit").text = "pixel"
    image = SubElement(description, "sourceImageInformation")
    SubElement(image, "fileName").text = _clean(records[0]["file"])
    processing = SubElement(description, "Processing", ID="reading")
    software = SubElement(processing, "processingSoftware")
    SubElement(software, "softwareName").text = "varytoy"
    SubElement(software, "softwareVersion").text = version("varytoy")
    layout = SubElement(root, "Layout")
    for number, record in enumerate(records, 1):
        width, height = record.get("width", 0), record.get("height", 0)
        size = {"HEIGHT": str(height), "WIDTH": str(width)}
        page = SubElement(
            layout, "Page", {"ID": f"page{number}", "PHYSICAL_IMG_NR": str(record.get("page", number)), **size}
        )
        space = SubElement(page, "PrintSpace", _place((0, 0, width, height)))
        turned = {"ROTATION": str(_angle(record))} if _angle(record) else {}
        for count, block in enumerate(record.get("blocks", ()), 1):
            name = {"ID": f"page{number}_block{count}"}
            area = SubElement(space, "TextBlock", {**name, **_place(block["box"]), **turned})
            for line in lines_of(block):
                row = SubElement(area, "TextLine", _place(line["box"]))
                for index, word in enumerate(line["words"]):
                    if index:
                        SubElement(row, "SP")
                    score = {} if word["confidence"] is None else {"WC": f"{word['confidence']:.4f}"}
                    SubElement(row, "String", {"CONTENT": _clean(word["text"]), **_place(word["box"]), **score})
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "utf-8")


def _angle(record: Record) -> int:
    """Degrees, counter-clockwise, by which the text is turned on its page."""
    return -record.get("turned", 0) % 360


def _box(box: Sequence[float]) -> str:
    return "bbox {} {} {} {}".format(*map(round, box))


def _place(box: Sequence[float]) -> dict[str, str]:
    x0, y0, x1, y1 = map(round, box)
    return {"HPOS": str(x0), "VPOS": str(y0), "WIDTH": str(x1 - x0), "HEIGHT": str(y1 - y0)}


def _clean(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
