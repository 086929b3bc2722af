"""DocTags, docling's markup of pages: each block of text with its place in 500ths of the page."""

import re
from collections.abc import Sequence

from varytoy.data.answer import Answer
from varytoy.data.boxes import Coordinates

_SCALE = 500
_TAG = re.compile(r"<(?=[\w/!?])")


def doctags(pages: Sequence[Answer]) -> str:
    """The blocks of pages. A page without places of text, such as a photograph that was described, is one block."""
    return f"<doctag>{'<page_break>'.join(map(_page, pages))}</doctag>"


def _page(page: Answer) -> str:
    width, height = page.size or (1, 1)
    blocks = [(block.box, block.text) for block in page.blocks]
    if not blocks and page.text.strip():
        blocks = [((0, 0, width, height), page.text)]
    return "".join(f"<text>{_place(box, width, height)}{_plain(text)}</text>\n" for box, text in blocks)


def _place(box: Coordinates, width: int, height: int) -> str:
    sides = (round(_SCALE * side / of) for side, of in zip(box, (width, height) * 2, strict=True))
    return "".join(f"<loc_{min(max(side, 0), _SCALE)}>" for side in sides)


def _plain(text: str) -> str:
    """Text on one line. What docling would drop as a tag gets a space: ``< b>``."""
    return _TAG.sub("< ", " ".join(text.split()))
