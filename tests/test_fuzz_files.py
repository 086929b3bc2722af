"""Bad files at every door: only the door's own error, one sentence, in seconds and little memory."""

import contextlib
import functools
import random
import resource
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import noise
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import FUZZ, mutated_bytes
from PIL import Image
from test_documents import encoded, make_pdf, png_header

from varytoy.data import documents, pdfium
from varytoy.data.documents import DocumentError, open_pages
from varytoy.data.sample import SampleError, image_size, open_image
from varytoy.processing import messages
from varytoy.processing.images import VaryImageProcessor

SECONDS = 5
MEGABYTES = 400


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """In little time, and without the process becoming much larger than it ever was."""
    begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - begun < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "file"


def sentences(data: bytes, path: Path) -> list[str]:
    """What the doors say of a file that they refuse."""
    said = []
    with bounded():
        try:
            for page in open_pages(data):
                try:
                    assert page.image.mode == "RGB" and min(page.image.size) > 0
                    assert page.text is None or page.text.strip()
                except DocumentError as error:
                    assert error.page == page.number
                    said.append(str(error))
                page.forget()
                if page.number == 5:
                    break
        except DocumentError as error:
            said.append(str(error))
        path.write_bytes(data)
        for door, kind in ((open_image, SampleError), (image_size, SampleError), (messages.open_image, ValueError)):
            try:
                door(path)
            except kind as error:
                said.append(str(error))
    assert all(each.strip() and "\n" not in each and len(each) < 500 for each in said), said
    return said


@functools.cache
def whole() -> list[bytes]:
    """Files that can be read."""
    made = [make_pdf("one"), make_pdf("one", "two", page=b"/Rotate 90"), make_pdf("one", box=(14400, 14400))]
    for mode in ("RGB", "L", "1", "P", "RGBA", "I;16"):
        image = noise(31, 23).convert("L" if mode == "I;16" else "RGB").convert(mode)
        for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "ICO", "PPM", "TGA"):
            with contextlib.suppress(OSError, KeyError, ValueError):  # not every format has every mode
                made.append(encoded(image, kind))
    return [*made, encoded(noise(9, 9), "TIFF", save_all=True, append_images=[noise(8, 8)] * 3)]


@settings(max_examples=120, **FUZZ)
@given(number=st.integers(0, 200), seed=st.integers(0, 2**32), cut=st.integers(0, 60) | st.just(0))
def test_cut_and_changed_files_are_read_or_refused_in_a_sentence(path, number, seed, cut):
    data = whole()[number % len(whole())]
    data = mutated_bytes(data, random.Random(seed)) if seed else data
    sentences(data[: len(data) - cut], path)


@settings(max_examples=150, **FUZZ)
@given(
    head=st.sampled_from(
        (b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"GIF89a", b"BM", b"RIFF", b"%PDF-1.7\n", b"P6 ")
    ),
    data=st.binary(max_size=100),
)
@example(b"", b"")
@example(b"%PDF-1.7\n", b"trailer << /Root 1 0 R >>")
def test_any_bytes_are_refused_in_a_sentence(path, head, data):
    assert sentences(head + data, path)


# ---- bombs ----------------------------------------------------------------------------------------------------------


def tiff(width: int, height: int, frames: int = 1) -> bytes:
    """Frames of a few bytes each, whatever they claim."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 4), (277, 1), (278, height), (279, 1)]
    found, size = bytearray(b"II*\0" + struct.pack("<I", 8)), 2 + 12 * len(tags) + 4
    for number in range(1, frames + 1):
        found += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        found += struct.pack("<I", 8 + number * size if number < frames else 0)
    return bytes(found)


def png(width: int, height: int) -> bytes:
    """A whole picture in black and white, packed to almost nothing."""
    packer, row = zlib.compressobj(9), b"\0" * (1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    chunks = (b"IHDR", struct.pack(">II", width, height) + b"\x01\0\0\0\0"), (b"IDAT", pixels), (b"IEND", b"")
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        found += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return found


def patched(data: bytes, place: int, form: str, *values: int) -> bytes:
    return data[:place] + struct.pack(form, *values) + data[place + struct.calcsize(form) :]


def ico(inner: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


JPEG = encoded(noise(16, 16), "JPEG")
CLAIMS = {
    "PNG": png_header,
    "TIFF": tiff,
    "BMP": lambda width, height: patched(encoded(noise(4, 4), "BMP"), 18, "<ii", width, height),
    "JPEG 2000": lambda width, height: patched(
        encoded(noise(16, 16), "JPEG2000", no_jp2=True), 8, ">II", width, height
    ),
    "PPM": lambda width, height: b"P6 %d %d 255\n abc" % (width, height),
}
SHORT = {
    "JPEG": lambda width, height: patched(JPEG, JPEG.index(b"\xff\xc0") + 5, ">HH", height, width),
    "GIF": lambda width, height: patched(encoded(noise(4, 4), "GIF"), 6, "<HH", width, height),
    "TGA": lambda width, height: patched(encoded(noise(4, 4), "TGA"), 12, "<HH", width, height),
}
"""Formats whose sides have 16 bits."""


@settings(max_examples=120, **FUZZ)
@given(kind=st.sampled_from([*CLAIMS, *SHORT]), width=st.integers(9000, 65_535), height=st.integers(9000, 65_535))
@example("PNG", 100_000, 100_000)
@example("PNG", 2**31 - 1, 2**31 - 1)
@example("TIFF", 2**31 - 1, 2**31 - 1)
def test_a_picture_that_claims_too_many_pixels_is_refused_unread(path, kind, width, height):
    with mock.patch.object(Image.core, "new", side_effect=MemoryError) as allot:
        said = sentences({**CLAIMS, **SHORT}[kind](width, height), path)
    assert len(said) >= 3 and not allot.called
    assert said[0].startswith("the file has over 80 megapixels")


@pytest.mark.parametrize("wrap", [bytes, ico])
def test_a_real_bomb_of_twenty_kilobytes_is_refused(path, wrap):
    data = wrap(png(13_000, 13_000))
    assert len(data) < 25_000
    assert [each for each in sentences(data, path) if "over 80 megapixels" in each]
    with pytest.raises(SampleError, match=r"over 80 megapixels \(13000 x 13000\)"):
        open_image(path)


@pytest.mark.parametrize("make", [lambda count: tiff(1, 1, count), lambda count: make_pdf(*["a"] * count)])
def test_documents_of_too_many_pages_are_refused(make, monkeypatch):
    monkeypatch.setattr(documents, "MAX_PAGES", 20)
    assert len(list(open_pages(make(20)))) == 20
    with pytest.raises(DocumentError, match=r"^the file has over 20 pages; split it first, or name the pages\.$"):
        open_pages(make(21))
    assert next(open_pages(make(21), [20])).image.size[0] > 0


def test_a_picture_that_there_is_no_memory_for_is_refused_with_a_reason():
    with (
        mock.patch.object(Image, "open", side_effect=MemoryError),
        pytest.raises(DocumentError, match=r"^the file is a broken image: MemoryError\.$"),
    ):
        open_pages(b"\x89PNG")


@settings(max_examples=40, **FUZZ)
@given(count=st.integers(-(2**40), 2**40))
@example(1_048_570)
@example(2**31 - 1)
def test_a_pdf_that_claims_a_million_pages_costs_nothing(path, count):
    sentences(make_pdf("a").replace(b"/Count 1 ", b"/Count %d " % count), path)


SIDES = st.floats(-1e9, 1e9, allow_subnormal=False) | st.sampled_from((0.0, 1e-30, 1.0, 14400.0, 1e38, 2.0**31))


@settings(max_examples=60, **FUZZ)
@given(
    box=st.tuples(SIDES, SIDES), extra=st.sampled_from((b"", b"/UserUnit 75000", b"/CropBox [0 0 1 1]", b"/Rotate 45"))
)
@example((1e9, 1e9), b"")
def test_a_pdf_page_of_any_size_is_drawn_small_or_refused(path, box, extra):
    with mock.patch.object(pdfium, "PDF_PIXELS", 10**6):
        sentences(make_pdf("a", box=box, page=extra), path)


# ---- other sources --------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=()), max_size=30)
PLANS = VaryImageProcessor(mode="fit")
ARRAYS = st.tuples(st.lists(st.integers(0, 5), max_size=4), st.sampled_from((np.uint8, bool, float))).map(
    lambda given: np.zeros(*given)
)


@settings(max_examples=200, **FUZZ)
@given(
    source=ARRAYS
    | WORDS
    | WORDS.map("data:{}".format)
    | WORDS.map("data:image/png;base64,{}".format)
    | WORDS.map("http://{}".format)
    | WORDS.map("https://127.0.0.1:1/{}".format)
    | st.none()
    | st.integers()
    | st.lists(st.integers())
)
@example("http://127.0.0.1:1/a b")
@example("http://a:b/")
@example(np.zeros((), np.uint8))
@example(np.zeros((0, 5, 3), np.uint8))
def test_any_source_of_an_image_is_an_image_or_a_value_error(source):
    with mock.patch.object(socket, "getaddrinfo", side_effect=OSError("no network")):
        try:
            image = messages.open_image(source)
        except ValueError as error:
            assert str(error).startswith("image: ") and "\n" not in str(error)
            return
    for view in ("text", "picture"):
        try:
            assert PLANS.plan(image.size, view).tokens > 0
        except ValueError as error:
            assert str(error).startswith("an image has no pixels") and min(image.size) == 0
