"""PDFs in processes of their own: the same pages and errors, and none that takes all time or memory."""

import time

import pytest
from test_documents import make_pdf, pdf_of

from varytoy.data.documents import DocumentError, Limits, PasswordError, isolate_pdfs, open_pages


@pytest.fixture
def isolated():
    isolate_pdfs(Limits(20))
    yield
    isolate_pdfs(None)


def bomb(levels: int) -> bytes:
    """Two pages: forms that each draw the next one twice, and an empty one."""
    forms = [
        b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]/Resources<</XObject<</F %d 0 R>>>>/Length 10>>\n"
        b"stream\n/F Do /F Do\nendstream" % (number + 7)
        for number in range(levels)
    ]
    last = b"<</Type/XObject/Subtype/Form/BBox[0 0 99 99]/Length 20>>\nstream\n0 0 m 9 9 l 5 5 l  S\nendstream"
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 500]%s>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>",
        page % b"/Contents 5 0 R/Resources<</XObject<</F 6 0 R>>>>",
        page % b"",
        b"<</Length 5>>\nstream\n/F Do\nendstream",
        *forms,
        last,
    ]
    return pdf_of(objects)


def test_pages_are_the_same(isolated):
    data = make_pdf("one", "two")
    pages = list(open_pages(data))
    isolate_pdfs(None)
    for page, other in zip(pages, open_pages(data), strict=True):
        assert page.image.size == other.image.size and page.image.tobytes() == other.image.tobytes()
        assert page.text == other.text and page.page_count == other.page_count == 2


def test_errors_are_the_same(isolated):
    with pytest.raises(DocumentError, match="broken PDF"):
        list(open_pages(b"%PDF-1.7 nothing"))
    with pytest.raises(DocumentError, match="there is no page 5"):
        list(open_pages(make_pdf("one"), [5]))
    assert issubclass(PasswordError, DocumentError)


@pytest.mark.parametrize("limits", [Limits(2), Limits(60, 300 * 2**20)], ids=["seconds", "memory"])
def test_a_bomb_is_ended_and_the_next_page_is_shown(isolated, limits):
    isolate_pdfs(limits)
    first, second = open_pages(bomb(40))
    begun = time.monotonic()
    with pytest.raises(DocumentError, match="Page 1 of the file (takes (more than 2 s|too much memory)|is broken)"):
        _ = first.image
    assert time.monotonic() - begun < 40
    assert second.image.size[0] > 700 and second.text is None
