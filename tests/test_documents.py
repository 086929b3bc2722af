"""Opening files: what comes out, and the one sentence for everything that is wrong."""

import io
import os
import random
import re
import threading
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from varytoy.data import documents, pdfium
from varytoy.data.documents import DocumentError, open_pages
from varytoy.data.pictures import PasswordError


def pdf_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, from number 1; the first is the catalogue."""
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    end = b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF" % (size, trailer, len(data))
    return data + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + end


def make_pdf(*texts: str, box: tuple = (300, 200), trailer: bytes = b"", page: bytes = b"", more=(), catalog=b""):
    """A PDF with one line of text a page. ``page`` and ``catalog`` are entries of these; ``more``: further objects."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * k) for k in range(len(texts)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R %s >>" % catalog,
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(texts)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for k, text in enumerate(texts):
        drawing = b"BT /F1 24 Tf 20 100 Td (%s) Tj ET" % text.encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %g %g] /Contents %d 0 R %s"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % (*box, 5 + 2 * k, page)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing))
    objects += more
    return pdf_of(objects, trailer)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def only(source, **options) -> documents.Page:
    (page,) = open_pages(source, **options)
    return page


def message(source, **options) -> str:
    with pytest.raises(DocumentError) as caught:
        [page.image for page in open_pages(source, **options)]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    chunk = b"IHDR" + header
    data = zlib.compress(b"")
    tail = len(data).to_bytes(4, "big") + b"IDAT" + data + zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + tail


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_path_bytes_and_picture_give_the_same_page(tmp_path):
    picture = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    path = tmp_path / "no_suffix"
    path.write_bytes(encoded(picture, "PNG"))
    for source in (path, str(path), path.read_bytes(), picture):
        page = only(source)
        assert (page.number, page.page_count, page.text, page.image.mode) == (1, 1, None, "RGB")
        assert page.image.tobytes() == picture.tobytes()


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image = only(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).image
    assert image.size == documents.to_rgb(image).size == (20, 40)  # and once only


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_a_tiff_is_turned_once(mode):
    picture = Image.new(mode, (40, 20))
    assert only(encoded(picture, "TIFF", tiffinfo={274: 6})).image.size == (20, 40)


def test_a_comment_makes_no_pdf_of_a_picture():
    notes = PngInfo()
    notes.add_text("Source", "from %PDF-1.4 a.pdf")
    assert only(encoded(Image.new("RGB", (9, 9)), "PNG", pnginfo=notes)).image.size == (9, 9)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_exif_block_that_cannot_be_read_is_ignored(kind):
    picture = Image.new("RGB", (40, 20), "red")
    for block in (b"Exif\0\0Exif\0\0b'Exif", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(9)):
        image = only(encoded(picture, kind, exif=block)).image
        assert image.size == (40, 20) and image.getpixel((5, 5))[0] > 240


@pytest.mark.parametrize("letters", ["white", "black"])
def test_letters_on_transparency_stand_out(letters):
    picture = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    picture.paste(letters, (10, 10, 20, 20))
    image = only(encoded(picture, "PNG")).image
    away = abs(image.getpixel((15, 15))[0] - image.getpixel((0, 0))[0])
    assert away == 255


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode):
    assert only(encoded(Image.new(mode, (4, 4)), "PNG")).image.getpixel((0, 0)) == (255, 255, 255)


def test_palette_with_a_transparent_colour_becomes_white():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.putpixel((0, 0), 0)
    image = only(encoded(picture, "PNG", transparency=0)).image
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 1)) == (200, 10, 10)


def test_sixteen_bits_keep_their_greys():
    values = np.array([[0, 32768, 65535]] * 3, np.uint16)
    grey = np.asarray(only(encoded(Image.fromarray(values), "PNG")).image)[0, :, 0]
    assert grey.tolist() == [0, 128, 255]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_fewer_bits_in_sixteen_keep_their_greys(bits):
    top = 2**bits - 1
    values = np.array([[0, top // 2, top]] * 3, np.uint16)
    grey = np.asarray(only(encoded(Image.fromarray(values), "TIFF")).image)[0, :, 0]
    assert grey.tolist() == pytest.approx([0, 127, 255], abs=1)


def test_a_broken_frame_of_a_tiff_loses_no_other():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = bytearray(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="tiff_deflate"))
    with Image.open(io.BytesIO(data)) as picture:
        picture.seek(1)
        (start,), (length,) = picture.tag_v2[273], picture.tag_v2[279]  # offset and bytes of its only strip
    data[start : start + length] = b"\xff" * length
    whole = []
    for page in open_pages(bytes(data)):
        try:
            whole.append((page.number, page.image.getpixel((0, 0))))
        except DocumentError as error:
            whole.append((page.number, error.page))
    assert whole == [(1, (255, 0, 0)), (2, 2), (3, (0, 0, 255))]


def test_frames_of_a_tiff_are_pages():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    pages = list(open_pages(data))
    assert [(page.number, page.page_count) for page in pages] == [(1, 3), (2, 3), (3, 3)]
    assert [page.image.getpixel((0, 0)) for page in pages] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert only(data, pages=[2]).image.getpixel((0, 0)) == (0, 255, 0)


# ---- PDFs -----------------------------------------------------------------------------------------------------------


def test_pdf_is_known_by_its_content_and_gives_picture_and_text(tmp_path):
    path = tmp_path / "scan.png"
    path.write_bytes(b"junk before the header\n" + make_pdf("First page", "Second page"))
    pages = list(open_pages(path, dpi=72))
    assert [(page.number, page.page_count, page.text.strip()) for page in pages] == [
        (1, 2, "First page"),
        (2, 2, "Second page"),
    ]
    assert pages[0].image.size == (300, 200)
    assert np.asarray(pages[0].image).min() < 100
    assert only(make_pdf("x"), dpi=144).image.size == (600, 400)


def test_pdf_pages_come_in_the_wanted_order_and_without_text_layer_as_none():
    assert [page.number for page in open_pages(make_pdf("a", "b", "c"), pages=[3, 1])] == [3, 1]
    assert only(make_pdf("")).text is None


def test_huge_pdf_page_is_rendered_smaller(monkeypatch):
    monkeypatch.setattr(pdfium, "PDF_PIXELS", 250_000)
    image = only(make_pdf("x", box=(14_400, 14_400)), dpi=300).image
    assert 200_000 < image.width * image.height <= 250_000


@pytest.mark.parametrize("appearance", [True, False])
def test_values_of_form_fields_are_rendered(appearance):
    """With an appearance of its own, or one that the viewer is to make."""
    widget = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (483920) /F 4 /Rect [20 20 200 60] /P 4 0 R"
        b" /DA (/F1 20 Tf 0 g) %s >>" % (b"/AP << /N 7 0 R >>" if appearance else b"")
    )
    drawing = b"BT /F1 20 Tf 4 6 Td (483920) Tj ET"
    look = (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 180 40] /Resources << /Font << /F1 3 0 R >> >> /Length %d >>\n"
        b"stream\n%s\nendstream" % (len(drawing), drawing)
    )
    form = b"/AcroForm << /Fields [6 0 R] /NeedAppearances %s /DA (/F1 20 Tf 0 g) /DR << /Font << /F1 3 0 R >> >> >>"
    catalog = form % (b"false" if appearance else b"true")
    image = only(make_pdf("", page=b"/Annots [6 0 R]", more=(widget, look), catalog=catalog), dpi=72).image
    assert np.asarray(image)[140:180, 20:200].min() < 100


def test_a_page_that_cannot_be_shown_loses_no_other(tmp_path):
    data = (
        make_pdf("one", "two", "three")
        .replace(b"[0 0 300 200]", b"[0 0 0   200]", 2)
        .replace(b"0   200", b"300 200", 1)
    )
    pages = list(open_pages(data, dpi=72))
    assert [page.number for page in pages] == [1, 2, 3]
    sizes = []
    for page in pages:
        try:
            sizes.append(page.image.size)
        except DocumentError as error:
            sizes.append(error.page)
    assert sizes[0] == sizes[2] == (300, 200) and sizes[1] in (2, (612, 792))  # pdfium may take its default size


def test_a_page_in_large_units_is_rendered_large_enough_to_read():
    """/UserUnit 10: 30 x 20 units are 300 x 200 points; also a small label."""
    image = only(make_pdf("", box=(30, 20), page=b"/UserUnit 10")).image
    assert max(image.size) > 1200 and image.width == pytest.approx(image.height * 1.5, abs=2)


def test_threads_may_read_pdfs_together():
    data, found = make_pdf("one", "two", "three"), []

    def read():
        found.append([page.text.strip() for page in open_pages(data, dpi=36)])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["one", "two", "three"]] * 4


# ---- what is wrong --------------------------------------------------------------------------------------------------


def test_missing_file_folder_and_empty_file(tmp_path):
    (tmp_path / "empty.pdf").write_bytes(b"")
    assert str(tmp_path / "none.png") in message(tmp_path / "none.png")
    assert "folder" in message(tmp_path).removeprefix(str(tmp_path))
    assert re.match(r"empty\.pdf .*\b0 bytes\b", message(tmp_path / "empty.pdf"))
    assert "0 bytes" in message(b"")
    assert "b.png" in message("a\0b.png")


def test_a_page_that_is_not_there():
    assert re.search(r"\b3\b.*\b7\b", message(make_pdf("a", "b", "c"), pages=[7]))
    assert re.search(r"\b1\b.*\b0\b", message(Image.new("RGB", (4, 4)), pages=[0]))


def test_errors_of_the_whole_file_come_with_the_call():
    with pytest.raises(DocumentError):
        open_pages(b"neither")


def test_neither_picture_nor_pdf():
    for data in (b"just some text" * 50, bytes(5000)):
        said = message(data)
        assert "image" in said and "PDF" in said


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC"),
        (b"PK\x03\x04" + bytes(40), "office document"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_formats_that_are_not_read_are_named(data, name):
    assert name in message(data)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "`-`" in message(tmp_path / "pipe")  # which reads what comes through one


def test_broken_and_protected_pdf():
    assert "broken PDF" in message(b"%PDF-1.7\n" + bytes(3000))
    lock = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >> /ID [<00><00>]" % (b"11" * 32, b"22" * 32)
    with pytest.raises(PasswordError):
        open_pages(make_pdf("secret", trailer=lock))


def test_limits_are_checked_before_pixels_are_decoded():
    assert "80 megapixels" in message(png_header(30_000, 3_000))
    assert "80 megapixels" in message(png_header(60_000, 60_000))
    assert "truncated" in message(png_header(4_000, 200))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PDF"])
def test_malformed_files_end_in_a_sentence(kind):
    """Truncated or overwritten at random: a page or a DocumentError, nothing else."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8))
    whole = make_pdf("Some text", "More") if kind == "PDF" else encoded(noise, kind)
    chance = random.Random(1)
    failed = 0
    for trial in range(60):
        data = bytearray(whole)
        if trial % 2:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(8):
                data[chance.randrange(min(len(data), 600))] = chance.randrange(256)
        try:
            for page in open_pages(bytes(data), dpi=40):
                assert page.image.mode == "RGB"
                assert page.text is None or isinstance(page.text, str)
        except DocumentError as error:
            failed += 1
            assert "\n" not in str(error)
    assert failed
