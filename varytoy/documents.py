"""Opening what a user gives: pictures of any kind and PDFs, page by page, one clear sentence for all that is wrong."""

import io
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 80_000_000
LONGEST = 20  # longer side over shorter side
Source = str | Path | bytes | Image.Image

_PDF_LOCK = threading.RLock()  # pdfium is not thread-safe, and knows no documents apart


class DocumentError(ValueError):
    """The document cannot be read; the message is one sentence for the user."""


@dataclass
class Page:
    """One page: RGB picture, 1-based ``number`` of ``of`` pages. ``text`` is the PDF's own text layer, else None."""

    image: Image.Image
    number: int
    of: int
    _read_text: Callable[[], str | None] = field(default=lambda: None, repr=False)
    _text: str | None = field(default=None, repr=False)

    @property
    def text(self) -> str | None:
        """Read from the PDF when first asked for; None where there is no text layer."""
        if self._text is None:
            self._text = self._read_text()
        return self._text


def open_pages(source: Source, pages: Iterable[int] | None = None, dpi: float = 150) -> Iterator[Page]:
    """The pages of a picture, a TIFF of several frames or a PDF: a path, the file's bytes, or an opened picture.

    ``pages``: 1-based numbers in the wanted order, all where None. ``dpi``: how fine PDF pages are rendered, less where
    a page is so large that it would pass ``MOST_PIXELS``. Raises DocumentError; what is wrong with the file as a whole
    is raised by the call, what is wrong with one page when that page is reached.
    """
    wanted = None if pages is None else list(pages)
    if not dpi > 0:
        raise DocumentError(f"dpi is {dpi}; it must be more than 0.")
    if isinstance(source, Image.Image):
        return _picture_pages(source, "the picture", wanted)
    data, name = _bytes_of(source)
    if b"%PDF" in data[:1024]:
        return _pdf_pages(data, name, wanted, dpi)
    return _picture_pages(_opened(data, name), name, wanted)


def _bytes_of(source: str | Path | bytes) -> tuple[bytes, str]:
    """The file's bytes and how to call it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = bytes(source), "the file"
    else:
        path = Path(source)
        name = path.name or str(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DocumentError(f"{path}: no such file.") from None
        except IsADirectoryError:
            raise DocumentError(f"{path} is a folder; give a picture or a PDF in it.") from None
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
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= count:
            has = "1 page" if count == 1 else f"{count} pages"
            raise DocumentError(f"{name} has {has}, page {number} was asked for.")
    return wanted


def _check_size(width: float, height: float, name: str) -> None:
    if width < 1 or height < 1:
        raise DocumentError(f"{name} has no pixels ({width:.0f} x {height:.0f}).")
    if max(width, height) > LONGEST * min(width, height):
        raise DocumentError(f"{name} is {width:.0f} x {height:.0f}, longer than {LONGEST}:1; cut it into pieces.")


# ---- pictures -------------------------------------------------------------------------------------------------------


def _opened(data: bytes, name: str) -> Image.Image:
    """The picture with its header read, no pixels decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pillow warns of large pictures; the limit here is stated below
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise DocumentError(_too_large(name)) from None
    except UnidentifiedImageError:
        raise DocumentError(f"{name} is not an image or PDF that can be opened.") from None
    except Exception as error:  # pillow's readers raise nearly anything on malformed headers
        raise DocumentError(f"{name} is a broken image: {error}.") from None


def _too_large(name: str, width: int = 0, height: int = 0) -> str:
    shape = f" ({width} x {height})" if width else ""
    return f"{name} has over {MOST_PIXELS // 1_000_000} megapixels{shape}; reduce it first."


def _picture_pages(picture: Image.Image, name: str, wanted: list[int] | None) -> Iterator[Page]:
    count = 1
    if picture.format == "TIFF":  # the frames of other formats are an animation, or a photograph and its preview
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                count = int(getattr(picture, "n_frames", 1))
        except Exception:  # the chain of frames is broken: the first may still be whole
            pass
    numbers = _numbers(wanted, count, name)
    _check_picture(picture, name)
    return (Page(_frame(picture, number, name), number, count) for number in numbers)


def _check_picture(picture: Image.Image, name: str) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise DocumentError(_too_large(name, *picture.size))
    _check_size(*picture.size, name)


def _frame(picture: Image.Image, number: int, name: str) -> Image.Image:
    """The frame, upright, on white, RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if number > 1 or getattr(picture, "tell", lambda: 0)():
                picture.seek(number - 1)
                _check_picture(picture, f"Page {number} of {name}")
            return to_rgb(picture)
    except DocumentError:
        raise
    except Exception as error:  # pillow's decoders raise nearly anything on malformed data
        raise DocumentError(f"{name} is a broken or truncated image: {error}.") from None


def to_rgb(picture: Image.Image) -> Image.Image:
    """RGB; turned as its file says, white where it was transparent, 16 bits brought to 8."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bits(picture).convert("RGB")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits brought to 8; pillow's own conversion cuts everything above 255 off."""
    import numpy as np

    values = np.nan_to_num(np.asarray(picture).astype(np.float32))
    top = 255.0 if values.max() <= 255 and values.dtype != np.uint16 else 65535.0
    if picture.mode == "F":
        top = 1.0 if values.max() <= 1 else max(255.0, float(values.max()))
    return Image.fromarray((values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))


# ---- PDFs -----------------------------------------------------------------------------------------------------------


class _Pdf:
    """An open PDF; every call into pdfium holds the lock."""

    def __init__(self, data: bytes, name: str):
        import pypdfium2

        self.name = name
        self._error = pypdfium2.PdfiumError
        with _PDF_LOCK:
            try:
                self._document = pypdfium2.PdfDocument(data)
                self.count = len(self._document)
            except pypdfium2.PdfiumError as error:
                if "password" in str(error).lower():
                    raise DocumentError(f"{name} is protected by a password; save it without one.") from None
                raise DocumentError(f"{name} is a broken PDF and cannot be opened.") from None
        if self.count == 0:
            raise DocumentError(f"{name} is a PDF without pages.")

    def render(self, number: int, dpi: float) -> Image.Image:
        """RGB, at most ``MOST_PIXELS``."""
        name = f"Page {number} of {self.name}"
        with _PDF_LOCK:
            try:
                page = self._document[number - 1]
            except (self._error, IndexError):
                raise DocumentError(f"{name} is broken and cannot be shown.") from None
            try:
                width, height = page.get_size()  # points of 1/72 inch
                _check_size(width, height, name)
                scale = min(dpi / 72, (MOST_PIXELS / (width * height)) ** 0.5 * 0.999)
                if scale * max(width, height) > 30_000:  # pdfium's bitmaps end near this
                    scale = 30_000 / max(width, height)
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


def _pdf_pages(data: bytes, name: str, wanted: list[int] | None, dpi: float) -> Iterator[Page]:
    document = _Pdf(data, name)
    numbers = _numbers(wanted, document.count, name)

    def pages() -> Iterator[Page]:
        for number in numbers:
            yield Page(document.render(number, dpi), number, document.count, lambda n=number: document.text(n))

    return pages()
