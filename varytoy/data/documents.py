"""Open images of any kind and PDFs page by page; every problem is reported as one clear sentence."""

import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image

from varytoy.data.pdfium import IsolatedPdf, Limits, Pdf, PdfError
from varytoy.data.pictures import DocumentError, PasswordError, check_size, open_picture, to_rgb
from varytoy.errors import first_line

__all__ = [
    "DocumentError", "Limits", "Page", "PageWord", "PasswordError", "Source", "isolate_pdfs", "open_pages", "open_pdf",
    "to_rgb",
]  # fmt: skip

MAX_BYTES = 2**30
MAX_PAGES = 10_000
"""Of a document, unless they are named. A small file can claim a million; a TIFF's are found one after another."""
_IMAGE_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"RIFF")
"""First bytes of images, whose comments may contain a PDF header."""
T = TypeVar("T")

_limits: Limits | None = None


@dataclass(frozen=True)
class PageWord:
    """A word that is known of a page, in pixels of its image. ``box``: xyxy; ``line``: its line, from 0; ``first``: x
    of the middle of its first letter."""

    text: str
    box: tuple[float, float, float, float]
    line: int
    first: float


@dataclass
class Page:
    """Page ``number``, from 1, of ``page_count``. Rendered or decoded when ``image`` is first accessed."""

    number: int
    page_count: int
    _open: Callable[[], Image.Image] = field(repr=False)
    _read_text: Callable[[], str | None] = field(default=lambda: None, repr=False)
    _read_words: Callable[[], Sequence[tuple]] = field(default=tuple, repr=False)
    _image: Image.Image | None = field(default=None, repr=False)
    _text: str | None = field(default=None, repr=False)

    @property
    def image(self) -> Image.Image:
        """RGB. Raises DocumentError, whose ``page`` is this number: other pages may still be readable."""
        if self._image is None:
            try:
                self._image = self._open()
            except DocumentError as error:
                error.page = self.number
                raise
        return self._image

    def forget(self) -> None:
        """Release the pixels."""
        self._image = None

    @property
    def text(self) -> str | None:
        """The PDF's text layer, read when first accessed; None if there is none."""
        if self._text is None:
            self._text = self._read_text()
        return self._text

    def words(self) -> list[PageWord]:
        """The words of the PDF's text layer, in its order; none if there is none. Read anew at each call."""
        words = []
        width, height = self.image.size
        for text, x1, y1, x2, y2, line, first in self._read_words():
            words.append(PageWord(text, (x1 * width, y1 * height, x2 * width, y2 * height), line, first * width))
        return words


Source = str | Path | bytes | Image.Image | Page


def open_pages(
    source: Source, pages: Iterable[int] | None = None, dpi: float = 150, password: str | None = None
) -> Iterator[Page]:
    """The pages of an image, a multi-frame TIFF or a PDF, given as a path, the file's bytes or a PIL image; or a page
    that is open already, as it is.

    ``pages``: 1-based numbers in the desired order, None for all. ``dpi``: resolution of PDF pages, lower where a page
    would exceed ``pdfium.PDF_PIXELS``, higher where it is small. ``password``: of a protected PDF.
    Raises DocumentError for problems of the whole file; a problem of one page is raised by its ``image``.
    """
    numbers = None if pages is None else list(pages)
    if not dpi > 0:
        raise DocumentError(f"dpi is {dpi}; it must be more than 0.")
    if isinstance(source, Page):
        if numbers not in (None, [source.number]):
            raise DocumentError(f"this is page {source.number} alone, opened already.")
        return iter([source])
    if isinstance(source, Image.Image):
        return _image_pages(source, "the picture", numbers)
    data, name = _bytes_of(source)
    if _is_pdf(data):
        return _pdf_pages(data, name, numbers, dpi, password)
    return _image_pages(open_picture(data, name), name, numbers)


def open_pdf(source: Source, password: str | None = None):
    """A pypdfium2 ``PdfDocument``; None for an image. Hold ``pdfium.PDF_LOCK`` in all calls. Raises DocumentError."""
    if isinstance(source, (Image.Image, Page)):
        return None
    data, name = _bytes_of(source)
    return _told(Pdf, data, name, password).release() if _is_pdf(data) else None


def _is_pdf(data: bytes) -> bool:
    return b"%PDF" in data[:1024] and not data.startswith(_IMAGE_SIGNATURES)


def _bytes_of(source: str | Path | bytes) -> tuple[bytes, str]:
    """The file's bytes and its name for messages."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "the file"
    else:
        path = Path(source)
        name = path.name or str(path)
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise DocumentError(f"{path} is a folder; give a picture or a PDF in it.")
            if not stat.S_ISREG(status.st_mode):
                raise DocumentError(f"{path} is a pipe or a device, not a file; give `-` to read standard input.")
            if status.st_size > MAX_BYTES:
                raise DocumentError(f"{path} is larger than 1 GiB; split it first.")
            data = path.read_bytes()
        except FileNotFoundError:
            raise DocumentError(f"{path}: no such file.") from None
        except DocumentError:
            raise
        except (OSError, ValueError) as error:
            raise DocumentError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if not data:
        raise DocumentError(f"{name} is empty (0 bytes).")
    return data, name


def _numbers(numbers: list[int] | None, count: int, name: str) -> list[int]:
    """The checked page numbers; all pages for None."""
    if numbers is None:
        if count > MAX_PAGES:
            raise DocumentError(f"{name} has over {MAX_PAGES} pages; split it first, or name the pages.")
        return list(range(1, count + 1))
    for number in numbers:
        if isinstance(number, bool) or not hasattr(number, "__index__") or not 1 <= number <= count:
            available = "1 page" if count == 1 else f"{count} pages"
            raise DocumentError(f"{name} has {available}, there is no page {number}.")
    return numbers


# ---- images ---------------------------------------------------------------------------------------------------------


def _image_pages(image: Image.Image, name: str, requested: list[int] | None) -> Iterator[Page]:
    # Frames of other formats are an animation, or a photograph and its preview.
    count = _frames(image) if image.format == "TIFF" else 1
    numbers = _numbers(requested, count, name)
    if count == 1:
        check_size(*image.size, name)
    lock = threading.Lock()

    def frame(number: int) -> Image.Image:
        with lock:
            return _frame(image, number, count, name)

    return (Page(number, count, lambda n=number: frame(n)) for number in numbers)


def _frames(image: Image.Image) -> int:
    """Number of frames of a TIFF, counted to one over ``MAX_PAGES``; if their chain is broken, the last one counted is
    the broken one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        number = 0
        try:
            for number in range(MAX_PAGES + 2):
                image.seek(number)
        except EOFError:
            pass
        except Exception:  # pillow's readers raise nearly anything on malformed headers
            if getattr(image, "fp", None) is None:  # closed: only the loaded frame is left
                return 1
            number += 1
        return max(number, 1)


def _frame(image: Image.Image, number: int, count: int, name: str) -> Image.Image:
    """The frame as RGB, upright, on an opaque background."""
    page = f"Page {number} of {name}" if count > 1 else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if getattr(image, "tell", lambda: 0)() != number - 1:
                image.seek(number - 1)
            check_size(*image.size, page)
            frame = to_rgb(image)
            return frame.copy() if frame is image and count > 1 else frame  # the next frame takes the image's place
    except DocumentError:
        raise
    except Exception as error:  # pillow's decoders raise nearly anything on malformed data
        raise DocumentError(f"{page} is a broken or truncated image: {first_line(error)}.") from None


# ---- PDFs -----------------------------------------------------------------------------------------------------------


def isolate_pdfs(limits: Limits | None) -> None:
    """From now on open each PDF in a process of its own, with limits, because a small file can take minutes and all
    memory. For programs that read files of others; it takes a fifth of a second a document. None: no longer."""
    global _limits
    _limits = limits


def _told(read: Callable[..., T], *words) -> T:
    """What ``read`` returns; its PdfError is a DocumentError."""
    try:
        return read(*words)
    except PdfError as error:
        raise (PasswordError if error.protected else DocumentError)(error.sentence) from None


def _pdf_pages(data: bytes, name: str, requested: list[int] | None, dpi: float, password: str | None) -> Iterator[Page]:
    document: Pdf | IsolatedPdf
    if _limits is None:
        document = _told(Pdf, data, name, password)
    else:
        document = _told(IsolatedPdf, data, name, password, _limits)
    return (
        Page(
            number,
            document.count,
            lambda n=number: _told(document.render, n, dpi),
            lambda n=number: document.text(n),
            lambda n=number: document.words(n),
        )
        for number in _numbers(requested, document.count, name)
    )
