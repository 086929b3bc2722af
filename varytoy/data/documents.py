"""Opening what a user gives: pictures of any kind and PDFs, page by page, one clear sentence for all that is wrong."""

import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from varytoy.data.pictures import MAX_PIXELS, DocumentError, PasswordError, check_size, open_picture, to_rgb
from varytoy.errors import first_line

__all__ = ["DocumentError", "Page", "PasswordError", "Source", "open_pages", "to_rgb"]

PDF_PIXELS = 40_000_000
"""A larger page is rendered smaller; A0 at 150 dpi has 35 million."""
MAX_BYTES = 2**30
SMALL_PAGE = 300
"""Points of a page's longer side below which it is a card, a label or one in larger units (/UserUnit, which pdfium does
not heed), rendered as large as an A4 page."""
A4_LENGTH = 842
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"RIFF")
"""What pictures begin with, whose comments may hold what a PDF's header does."""
Source = str | Path | bytes | Image.Image

_PDF_LOCK = threading.RLock()  # pdfium is not thread-safe, and knows no documents apart


@dataclass
class Page:
    """Page ``number``, from 1, of ``page_count``. Rendered or decoded when ``image`` is first asked for."""

    number: int
    page_count: int
    _open: Callable[[], Image.Image] = field(repr=False)
    _read_text: Callable[[], str | None] = field(default=lambda: None, repr=False)
    _image: Image.Image | None = field(default=None, repr=False)
    _text: str | None = field(default=None, repr=False)

    @property
    def image(self) -> Image.Image:
        """RGB. Raises DocumentError, whose ``page`` is this number: other pages may still be whole."""
        if self._image is None:
            try:
                self._image = self._open()
            except DocumentError as error:
                error.page = self.number
                raise
        return self._image

    def forget(self) -> None:
        """Let go of the pixels."""
        self._image = None

    @property
    def text(self) -> str | None:
        """The PDF's own text layer, read when first asked for; None where there is none."""
        if self._text is None:
            self._text = self._read_text()
        return self._text


def open_pages(
    source: Source, pages: Iterable[int] | None = None, dpi: float = 150, password: str | None = None
) -> Iterator[Page]:
    """The pages of a picture, a TIFF of several frames or a PDF: a path, the file's bytes, or an opened picture.

    ``pages``: 1-based numbers in the wanted order, all where None. ``dpi``: how fine PDF pages are rendered, less where
    a page would pass ``PDF_PIXELS``, more where it is smaller than ``SMALL_PAGE``. ``password``: of a protected PDF.
    Raises DocumentError for what is wrong with the file as a whole; what is wrong with one page is raised by its
    ``image``.
    """
    wanted = None if pages is None else list(pages)
    if not dpi > 0:
        raise DocumentError(f"dpi is {dpi}; it must be more than 0.")
    if isinstance(source, Image.Image):
        return _picture_pages(source, "the picture", wanted)
    data, name = _bytes_of(source)
    if b"%PDF" in data[:1024] and not data.startswith(_PICTURES):
        return _pdf_pages(data, name, wanted, dpi, password)
    return _picture_pages(open_picture(data, name), name, wanted)


def _bytes_of(source: str | Path | bytes) -> tuple[bytes, str]:
    """The file's bytes and how to call it."""
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


def _numbers(wanted: list[int] | None, count: int, name: str) -> list[int]:
    """The page numbers to give, checked."""
    if wanted is None:
        return list(range(1, count + 1))
    for number in wanted:
        if isinstance(number, bool) or not hasattr(number, "__index__") or not 1 <= number <= count:
            has = "1 page" if count == 1 else f"{count} pages"
            raise DocumentError(f"{name} has {has}, page {number} was asked for.")
    return wanted


# ---- pictures -------------------------------------------------------------------------------------------------------


def _picture_pages(picture: Image.Image, name: str, wanted: list[int] | None) -> Iterator[Page]:
    # The frames of other formats are an animation, or a photograph and its preview.
    count = _frames(picture) if picture.format == "TIFF" else 1
    numbers = _numbers(wanted, count, name)
    if count == 1:
        check_size(*picture.size, name)
    return (Page(number, count, lambda n=number: _frame(picture, n, count, name)) for number in numbers)


def _frames(picture: Image.Image) -> int:
    """Frames of a TIFF; where the chain of them is broken, the last one counted is the broken one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        number = 0
        try:
            for number in range(MAX_PIXELS):
                picture.seek(number)
        except EOFError:
            pass
        except Exception:  # pillow's readers raise nearly anything on malformed headers
            if getattr(picture, "fp", None) is None:  # closed: the frame that was loaded is what is left
                return 1
            number += 1
        return max(number, 1)


def _frame(picture: Image.Image, number: int, count: int, name: str) -> Image.Image:
    """The frame, upright, on paper, RGB."""
    page = f"Page {number} of {name}" if count > 1 else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if getattr(picture, "tell", lambda: 0)() != number - 1:
                picture.seek(number - 1)
            check_size(*picture.size, page)
            return to_rgb(picture)
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
        with _PDF_LOCK:
            try:
                self._document = pypdfium2.PdfDocument(data, password)
                self._document.init_forms()  # before any page, or the values of form fields are not drawn
                self.count = len(self._document)
            except pypdfium2.PdfiumError as error:
                if "password" in str(error).lower():
                    if password:
                        raise PasswordError(f"{name}: this is not its password.") from None
                    raise PasswordError(f"{name} is protected by a password, which is needed to read it.") from None
                raise DocumentError(f"{name} is a broken PDF and cannot be opened.") from None
        if self.count == 0:
            raise DocumentError(f"{name} is a PDF without pages.")

    def render(self, number: int, dpi: float) -> Image.Image:
        """RGB, at most ``PDF_PIXELS``."""
        name = f"Page {number} of {self.name}"
        with _PDF_LOCK:
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
                scale = min(scale, 30_000 / longer)  # pdfium's bitmaps end near this
                if scale * shorter < 1:
                    raise DocumentError(f"{name} is {width:.0f} x {height:.0f} points, too narrow to be shown.")
                return page.render(scale=scale).to_pil().convert("RGB")
            except (self._error, MemoryError, RuntimeError):
                raise DocumentError(f"{name} is broken and cannot be shown.") from None
            finally:
                page.close()

    def text(self, number: int) -> str | None:
        """The text layer with "\\n" between lines; None where there is none or it cannot be read."""
        with _PDF_LOCK:
            try:
                page = self._document[number - 1]
                layer = page.get_textpage()
                found = layer.get_text_bounded()
                layer.close()
                page.close()
            except (self._error, IndexError):
                return None
        found = found.replace("\r\n", "\n").replace("\r", "\n")
        return found if found.strip() else None


def _pdf_pages(data: bytes, name: str, wanted: list[int] | None, dpi: float, password: str | None) -> Iterator[Page]:
    document = _Pdf(data, name, password)
    return (
        Page(number, document.count, lambda n=number: document.render(n, dpi), lambda n=number: document.text(n))
        for number in _numbers(wanted, document.count, name)
    )
