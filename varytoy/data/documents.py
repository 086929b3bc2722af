"""Open images of any kind and PDFs page by page; every problem is reported as one clear sentence."""

import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from varytoy.data.pictures import DocumentError, PasswordError, check_size, open_picture, to_rgb
from varytoy.errors import first_line

__all__ = ["PDF_LOCK", "DocumentError", "Page", "PasswordError", "Source", "open_pages", "open_pdf", "to_rgb"]

PDF_PIXELS = 40_000_000
"""Larger pages are rendered at a lower resolution; A0 at 150 dpi has 35 million pixels."""
MAX_BYTES = 2**30
MAX_PAGES = 10_000
"""Of a document, unless they are named. A small file can claim a million; a TIFF's are found one after another."""
SMALL_PAGE = 300
"""Pages whose longer side has fewer points (cards, labels, or pages with /UserUnit, which pdfium ignores) are rendered
as large as an A4 page."""
A4_LENGTH = 842
_IMAGE_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"RIFF")
"""First bytes of images, whose comments may contain a PDF header."""
Source = str | Path | bytes | Image.Image

PDF_LOCK = threading.RLock()
"""Hold it in every call of pdfium, which is not thread-safe, not even across documents."""


@dataclass
class Page:
    """Page ``number``, from 1, of ``page_count``. Rendered or decoded when ``image`` is first accessed."""

    number: int
    page_count: int
    _open: Callable[[], Image.Image] = field(repr=False)
    _read_text: Callable[[], str | None] = field(default=lambda: None, repr=False)
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


def open_pages(
    source: Source, pages: Iterable[int] | None = None, dpi: float = 150, password: str | None = None
) -> Iterator[Page]:
    """The pages of an image, a multi-frame TIFF or a PDF, given as a path, the file's bytes or a PIL image.

    ``pages``: 1-based numbers in the desired order, None for all. ``dpi``: resolution of PDF pages, lower where a page
    would exceed ``PDF_PIXELS``, higher where it is smaller than ``SMALL_PAGE``. ``password``: of a protected PDF.
    Raises DocumentError for problems of the whole file; a problem of one page is raised by its ``image``.
    """
    numbers = None if pages is None else list(pages)
    if not dpi > 0:
        raise DocumentError(f"dpi is {dpi}; it must be more than 0.")
    if isinstance(source, Image.Image):
        return _image_pages(source, "the picture", numbers)
    data, name = _bytes_of(source)
    if _is_pdf(data):
        return _pdf_pages(data, name, numbers, dpi, password)
    return _image_pages(open_picture(data, name), name, numbers)


def open_pdf(source: Source, password: str | None = None):
    """A pypdfium2 ``PdfDocument``; None for an image. Hold ``PDF_LOCK`` while you use it. Raises DocumentError."""
    if isinstance(source, Image.Image):
        return None
    data, name = _bytes_of(source)
    return _Pdf(data, name, password).release() if _is_pdf(data) else None


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


class _Pdf:
    """An open PDF; every call into pdfium holds the lock."""

    def __init__(self, data: bytes, name: str, password: str | None):
        import pypdfium2

        self.name = name
        self._error = pypdfium2.PdfiumError
        with PDF_LOCK:
            try:
                self._document = pypdfium2.PdfDocument(data, password)
                self._document.init_forms()  # before any page, else the values of form fields are not drawn
                self.count = len(self._document)
            except pypdfium2.PdfiumError as error:
                if "password" in str(error).lower():
                    if password:
                        raise PasswordError(f"{name}: the password is wrong.") from None
                    raise PasswordError(f"{name} is protected by a password, which is needed to read it.") from None
                raise DocumentError(f"{name} is a broken PDF and cannot be opened.") from None
        if self.count == 0:
            raise DocumentError(f"{name} is a PDF without pages.")

    def __del__(self):  # else its finalizer closes it, without the lock
        with PDF_LOCK:
            if getattr(self, "_document", None) is not None:
                self._document.close()

    def release(self):
        """The document, which is then the caller's to close."""
        document, self._document = self._document, None
        return document

    def render(self, number: int, dpi: float) -> Image.Image:
        """RGB, at most ``PDF_PIXELS``."""
        name = f"Page {number} of {self.name}"
        with PDF_LOCK:
            try:
                page = self._document[number - 1]
            except (self._error, IndexError):
                raise DocumentError(f"{name} is broken and cannot be shown.") from None
            try:
                width, height = page.get_size()  # points of 1/72 inch
                if not width * height > 0:
                    raise DocumentError(f"{name} has no size ({width:.1f} x {height:.1f} points).")
                longer, shorter = max(width, height), min(width, height)
                scale = dpi / 72 * (A4_LENGTH / longer if longer < SMALL_PAGE else 1)
                scale = min(scale, (PDF_PIXELS / (width * height)) ** 0.5 * 0.999)
                scale = min(scale, 30_000 / longer)  # pdfium's bitmaps are limited to about this
                if scale * shorter < 1:
                    raise DocumentError(f"{name} is {width:.0f} x {height:.0f} points, too narrow to be shown.")
                return page.render(scale=scale).to_pil().convert("RGB")
            except (self._error, MemoryError, RuntimeError):
                raise DocumentError(f"{name} is broken and cannot be shown.") from None
            finally:
                page.close()

    def text(self, number: int) -> str | None:
        """The text layer with "\\n" between lines; None if there is none or it cannot be read."""
        with PDF_LOCK:
            try:
                page = self._document[number - 1]
                layer = page.get_textpage()
                text = layer.get_text_bounded()
                layer.close()
                page.close()
            except (self._error, IndexError):
                return None
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text if text.strip() else None


def _pdf_pages(data: bytes, name: str, requested: list[int] | None, dpi: float, password: str | None) -> Iterator[Page]:
    document = _Pdf(data, name, password)
    return (
        Page(number, document.count, lambda n=number: document.render(n, dpi), lambda n=number: document.text(n))
        for number in _numbers(requested, document.count, name)
    )
