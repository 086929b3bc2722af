"""PDFs by pdfium: in this process, or each in a process of its own, with limits on time and memory.

This file is also the program of such a process. It imports nothing of ours, so that it starts in a fifth of a second.
"""

import ctypes
import json
import os
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

PDF_PIXELS = 40_000_000
"""Larger pages are rendered at a lower resolution; A0 at 150 dpi has 35 million pixels."""
SMALL_PAGE = 300
"""Pages whose longer side has fewer points (cards, labels, or pages with /UserUnit, which pdfium ignores) are rendered
as large as an A4 page."""
A4_LENGTH = 842
HYPHEN = 2
"""What pdfium gives for a hyphen at the end of a line."""
MOST_CHARACTERS = 200_000
"""Of a page's text layer, whose places are asked for."""
_UNITS = 1_000_000
"""Pixels of a side of the page in which places on it are asked for."""

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_CALLS: dict[str, tuple[Any, ...]] = {
    "FPDFText_GetUnicode": (ctypes.c_uint, _POINTER, _INT),
    "FPDFText_GetCharBox": (_INT, _POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER),
    "FPDFText_GetCharOrigin": (_INT, _POINTER, _INT, _POINTER, _POINTER),
    "FPDFText_GetTextObject": (_POINTER, _POINTER, _INT),
    "FPDFText_GetMatrix": (_INT, _POINTER, _INT, _POINTER),
    "FPDFText_HasUnicodeMapError": (_INT, _POINTER, _INT),
    "FPDFTextObj_GetFont": (_POINTER, _POINTER),
    "FPDFTextObj_GetFontSize": (_INT, _POINTER, _POINTER),
    "FPDFTextObj_GetTextRenderMode": (_INT, _POINTER),
    "FPDFPage_GetObject": (_POINTER, _POINTER, _INT),
    "FPDFPageObj_GetType": (_INT, _POINTER),
}
"""Functions for ``fast``: what they return and take."""
_FAST: dict[str, Any] = {}

PDF_LOCK = threading.RLock()
"""Hold it in every call of pdfium, which is not thread-safe, not even across documents."""


class PdfError(Exception):
    """A sentence for the user; ``protected``: a password is missing or wrong."""

    def __init__(self, sentence: str, protected: bool = False):
        super().__init__(sentence, protected)
        self.sentence, self.protected = sentence, protected


@dataclass(frozen=True)
class Limits:
    """``seconds`` to open a document or to show a page; bytes of ``memory`` of the process."""

    seconds: float = 30.0
    memory: int = 3 * 2**30


class Pdf:
    """An open PDF of ``count`` pages; every call into pdfium holds the lock. Its methods raise PdfError."""

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
                        raise PdfError(f"{name}: the password is wrong.", True) from None
                    raise PdfError(f"{name} is protected by a password, which is needed to read it.", True) from None
                raise PdfError(f"{name} is a broken PDF and cannot be opened.") from None
        if self.count == 0:
            raise PdfError(f"{name} is a PDF without pages.")

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
                raise PdfError(f"{name} is broken and cannot be shown.") from None
            try:
                width, height = page.get_size()
                scale = scale_of(width, height, dpi, name)
                return page.render(scale=scale).to_pil().convert("RGB")
            except (self._error, MemoryError, RuntimeError):
                raise PdfError(f"{name} is broken and cannot be shown.") from None
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

    def words(self, number: int) -> list[tuple]:
        """(word, x1, y1, x2, y2, line, x of its first letter) of the text layer in its order, lines from 0, places in
        fractions of the page as ``render`` shows it; none where there is no text layer, or it cannot be read."""
        words: list[tuple] = []
        with PDF_LOCK:
            try:
                page = self._document[number - 1]
                layer = page.get_textpage()
                codes, boxes = characters(layer)
                ax, bx, cx, ay, by, cy = shown(page)
                line, word = 0, []
                xs: list[float] = []
                ys: list[float] = []
                for place, unit in enumerate((*codes, 32)):
                    if unit > 32 or unit == HYPHEN:
                        word.append(ord("-") if unit == HYPHEN else unit)
                        left, right, bottom, top = boxes[4 * place : 4 * place + 4]
                        xs += (ax * left + bx * bottom + cx, ax * right + bx * top + cx)
                        ys += (ay * left + by * bottom + cy, ay * right + by * top + cy)
                        continue
                    if word:
                        words.append((_decoded(word), min(xs), min(ys), max(xs), max(ys), line, (xs[0] + xs[1]) / 2))
                        word, xs, ys = [], [], []
                    line += unit == 10
                layer.close()
                page.close()
            except (self._error, IndexError):
                return []
        return words


def scale_of(width: float, height: float, dpi: float, name: str) -> float:
    """Pixels a point (1/72 inch) at which a page of these points is rendered. Raises PdfError, with the page's name,
    for one that cannot be."""
    if not width * height > 0:
        raise PdfError(f"{name} has no size ({width:.1f} x {height:.1f} points).")
    longer, shorter = max(width, height), min(width, height)
    scale = dpi / 72 * (A4_LENGTH / longer if longer < SMALL_PAGE else 1)
    scale = min(scale, (PDF_PIXELS / (width * height)) ** 0.5 * 0.999)
    scale = min(scale, 30_000 / longer)  # pdfium's bitmaps are limited to about this
    if scale * shorter < 1:
        raise PdfError(f"{name} is {width:.0f} x {height:.0f} points, too narrow to be shown.")
    return scale


def characters(layer) -> tuple[list[int], ctypes.Array]:
    """Of a pypdfium2 text page, for each of its N characters, ``MOST_CHARACTERS`` at most: its UTF-16 unit or code
    [N], and its box [4 N] (left, right, bottom, top, in the page's own coordinates; 0 for spaces)."""
    count = max(min(layer.count_chars(), MOST_CHARACTERS), 0)
    boxes = (ctypes.c_double * (4 * count))()
    page, get_box, place = address_of(layer), fast("FPDFText_GetCharBox"), ctypes.addressof(boxes)
    codes = _codes(layer, count)
    for number, unit in enumerate(codes):
        if unit != 32:
            get_box(page, number, place, place + 8, place + 16, place + 24)
        place += 32
    return codes, boxes


def _codes(layer, count: int) -> list[int]:
    import pypdfium2.raw as pdfium

    page, get = address_of(layer), fast("FPDFText_GetUnicode")
    units = (ctypes.c_ushort * (count + 1))()
    if count and pdfium.FPDFText_GetText(layer, 0, count, units) != count + 1:  # characters without a code are left out
        return [get(page, number) for number in range(count)]
    codes = units[:count]
    if 0xFFFE in codes:  # what it gives for several
        codes = [get(page, number) if unit == 0xFFFE else unit for number, unit in enumerate(codes)]
    return codes


def address_of(layer) -> int:
    """The address of a pypdfium2 text page or page, which ``fast`` functions take."""
    return ctypes.cast(layer.raw, ctypes.c_void_p).value or 0


def fast(name: str) -> Any:
    """A function of pdfium that takes addresses and numbers. pypdfium2's prototypes check and convert each argument,
    which takes most of the time of such a call."""
    import pypdfium2.raw as pdfium

    if name not in _FAST:
        address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
        _FAST[name] = ctypes.PYFUNCTYPE(*_CALLS[name])(address)
    return _FAST[name]


def shown(page) -> tuple[float, float, float, float, float, float]:
    """a, b, c, d, e, f of a pypdfium2 page: its point (x, y) is shown at (a x + b y + c, d x + e y + f), in fractions
    of the page's width and height from its upper left corner."""
    import pypdfium2.raw as pdfium

    x, y = ctypes.c_int(), ctypes.c_int()
    found = []
    for corner in ((0, 0), (1000, 0), (0, 1000)):
        pdfium.FPDF_PageToDevice(page, 0, 0, _UNITS, _UNITS, 0, *corner, x, y)
        found.append((x.value / _UNITS, y.value / _UNITS))
    (c, f), (right, right_y), (up, up_y) = found
    return (right - c) / 1000, (up - c) / 1000, c, (right_y - f) / 1000, (up_y - f) / 1000, f


def _decoded(units: list[int]) -> str:
    """Text of UTF-16 units, of which larger ones are replaced."""
    return struct.pack(f"<{len(units)}H", *(min(unit, 0xFFFD) for unit in units)).decode("utf-16-le", "replace")


class IsolatedPdf:
    """A PDF in a process of its own, with the methods of ``Pdf``. What takes too long or too much memory ends that
    process and is a PdfError; the next page gets a new one."""

    def __init__(self, data: bytes, name: str, password: str | None, limits: Limits):
        self.name, self.limits = name, limits
        self._data, self._password = data, password
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self.count = self._ask(name, "count")[0]

    def __del__(self):
        self._end()

    def render(self, number: int, dpi: float) -> Image.Image:
        size, pixels = self._ask(f"Page {number} of {self.name}", "render", number, dpi)
        return Image.frombytes("RGB", tuple(size), pixels)

    def text(self, number: int) -> str | None:
        try:
            return self._ask(f"Page {number} of {self.name}", "text", number)[0]
        except PdfError:
            return None

    def words(self, number: int) -> list[tuple]:
        try:
            return self._ask(f"Page {number} of {self.name}", "words", number)[0]
        except PdfError:
            return []

    def _ask(self, what: str, *words: Any) -> tuple[Any, bytes]:
        """The process's answer. Raises what it raises, and PdfError, with ``what`` in it, where it is ended."""
        with self._lock:
            answer: list[tuple[list, bytes] | None] = []
            work = threading.Thread(target=lambda: answer.append(self._exchange(words)), daemon=True)
            work.start()
            work.join(self.limits.seconds)
            late = work.is_alive()
            if late or answer[0] is None:
                self._end()
                work.join()
                reason = f"more than {self.limits.seconds:.0f} s" if late else "too much memory"
                raise PdfError(f"{what} takes {reason} to be shown; send it as a picture.")
        (found, *error), data = answer[0]
        if error:
            raise PdfError(*error)
        return found, data

    def _exchange(self, words: tuple) -> tuple[list, bytes] | None:
        """The answer and a PdfError's arguments if there is one, and data; None where the process has ended."""
        try:
            if self._process is None:
                program = [sys.executable, os.path.abspath(__file__), str(self.limits.memory)]
                self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                assert self._process.stdin is not None
                _send(self._process.stdin, [self.name, self._password], self._data)
            assert self._process.stdin is not None and self._process.stdout is not None
            _send(self._process.stdin, list(words))
            return _receive(self._process.stdout)
        except (OSError, ValueError, EOFError):  # it has ended, or was
            return None

    def _end(self) -> None:
        process, self._process = getattr(self, "_process", None), None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                try:
                    stream.close()
                except OSError:  # what was not yet written cannot be
                    pass


def _send(stream: BinaryIO, head: list, data: bytes = b"") -> None:
    written = json.dumps(head).encode()
    stream.write(struct.pack("<QQ", len(written), len(data)) + written + data)
    stream.flush()


def _receive(stream: BinaryIO) -> tuple[list, bytes]:
    """Raises EOFError where the stream has ended."""
    sizes = stream.read(16)
    if len(sizes) < 16:
        raise EOFError
    head, data = (stream.read(size) for size in struct.unpack("<QQ", sizes))
    return json.loads(head), data


def _serve(memory: int) -> None:
    """Answer requests on standard input until it ends: first [name, password] and the file, then [method, ...]."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    except (ImportError, OSError, ValueError):  # Windows, or a lower limit that is there
        pass
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    document, fault = None, PdfError("")
    (name, password), data = _receive(requests)
    try:
        document = Pdf(data, name, password)
    except PdfError as error:
        fault = error
    while True:
        try:
            (method, *words), _ = _receive(requests)
        except EOFError:
            return
        try:
            if document is None:
                raise fault
            if method == "render":
                image = document.render(*words)
                _send(answers, [image.size], image.tobytes())
            else:
                reads = {"text": document.text, "words": document.words}
                _send(answers, [document.count if method == "count" else reads[method](*words)])
        except PdfError as error:
            _send(answers, [None, error.sentence, error.protected])


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
