"""Pages of PDFs as units of samples."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.importers.base import INVALID, Dropped
from data_tools.output import Unit
from data_tools.pdf import quality
from data_tools.pdf.duplicates import signature
from data_tools.pdf.guard import STOPPED
from data_tools.pdf.markdown import lines_in, to_markdown
from data_tools.pdf.order import Line, touch
from data_tools.pdf.page import draw, read_blocks, read_structure, scaled
from data_tools.writer import encode, generator
from varytoy.data.documents import DocumentError, PasswordError, open_pdf
from varytoy.data.pdfium import PDF_LOCK, PdfError
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.tasks import TASKS

PAGE_TASKS = ("ocr", "markdown")


class PageItem(NamedTuple):
    """Page ``number``, from 1, of ``pages`` of a file in the folder, and its place among all; or a whole file that
    cannot be used: ``reason`` and ``error``."""

    index: int
    file: str
    number: int = 0
    pages: int = 0
    reason: str = ""
    error: str = ""


@dataclass
class PageUnit(Unit):
    """``place``: file and page, for messages; ``signature``: for near-duplicates."""

    place: str = ""
    signature: np.ndarray | None = None


@dataclass
class PageOptions:
    """How pages become samples; ``size``: pixels of the longer side, None for ``dpi``."""

    tasks: Sequence[str] = PAGE_TASKS
    size: int | None = 1024
    dpi: float = 100.0
    image_format: str = "jpeg"
    seed: int = 0
    duplicates: bool = True
    limits: quality.Limits = field(default_factory=quality.Limits)


def find_files(folder: Path) -> list[str]:
    """The PDFs in a folder, by their paths in it; or the name of one file. Raises FileNotFoundError, ValueError."""
    if folder.is_file():
        return [folder.name]
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such file or folder")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() == ".pdf" and path.is_file()]
    if not files:
        raise ValueError(f"{folder} holds no .pdf files")
    return sorted(file.as_posix() for file in files)


def readable(name: str) -> str:
    """A file's name as text: bytes that are none are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def root_of(folder: Path) -> Path:
    return folder.parent if folder.is_file() else folder


@dataclass
class Counter:
    """file -> its number of pages, or why it cannot be used, and a sentence about it."""

    root: Path

    def __call__(self, file: str) -> tuple[int, str, str]:
        try:
            document = open_pdf(self.root / file)
        except PasswordError as error:
            return 0, quality.ENCRYPTED, f"{file}: {error}"
        except DocumentError as error:
            return 0, quality.DAMAGED, f"{file}: {error}"
        if document is None:
            return 0, quality.DAMAGED, f"{file}: it is a picture, not a PDF."
        with PDF_LOCK:
            try:
                if _copying_forbidden(document):
                    return 0, quality.PROTECTED, f"{file}: it does not allow that its text is taken."
                return len(document), "", ""
            finally:
                document.close()


def _copying_forbidden(document) -> bool:
    import pypdfium2.raw as pdfium

    return pdfium.FPDF_GetSecurityHandlerRevision(document) != -1 and not pdfium.FPDF_GetDocPermissions(document) & 16


def page_items(files: Sequence[str], counts: Sequence[tuple[int, str, str]], wanted: Any = None) -> Iterator[PageItem]:
    """Every page, or those of the numbers ``wanted`` (first and last)."""
    number = itertools.count()
    for file, (pages, reason, error) in zip(files, counts, strict=True):
        if reason:
            yield PageItem(next(number), file, reason=reason, error=error)
            continue
        first, last = wanted or (1, pages)
        for page in range(first, min(last, pages) + 1):
            yield PageItem(next(number), file, page, pages)


class PageMaker:
    """Page item -> unit. Keeps the last document open, because its pages follow each other."""

    def __init__(self, root: Path, options: PageOptions):
        self.root, self.options = root, options
        self._name, self._document = "", None

    def __getstate__(self):
        return {"root": self.root, "options": self.options, "_name": "", "_document": None}

    def __call__(self, item: PageItem) -> PageUnit:
        file = readable(item.file)
        unit = PageUnit(place=f"{file} page {item.number}" if item.number else file)
        if item.reason:
            unit.drop(item.reason, item.error)
            return unit
        try:
            self._fill(unit, item)
        except Dropped as error:
            detail = f" ({error})" if str(error) != error.reason else ""
            unit.drop(error.reason, f"{unit.place}: {error.reason}{detail}")
        except DocumentError as error:
            unit.drop(quality.DAMAGED, f"{unit.place}: {error}")
        return unit

    def _open(self, file: str):
        if self._name != file:
            self.close()
            self._document, self._name = open_pdf(self.root / file), file
            if self._document is None:
                raise DocumentError(f"{file} is no PDF any more.")
        return self._document

    def close(self) -> None:
        if self._document is not None:
            with PDF_LOCK:
                self._document.close()
        self._document, self._name = None, ""

    def _fill(self, unit: PageUnit, item: PageItem) -> None:
        import pypdfium2

        options, limits = self.options, self.options.limits
        document = self._open(item.file)
        with PDF_LOCK:
            try:
                page = document[item.number - 1]
            except (pypdfium2.PdfiumError, IndexError):
                raise Dropped(quality.UNSHOWN) from None
            try:
                layer, drawing = read_structure(page)
                quality.check_text(layer, drawing, limits)
                image, pixels = draw(page, unit.place, options.size, options.dpi)
                seen = quality.check_picture(pixels, layer, limits)
                data = encode(image if options.image_format == "jpeg" else image.convert("RGB"), options.image_format)
            except PdfError as error:
                raise Dropped(quality.UNSHOWN, error.sentence) from None
            except (pypdfium2.PdfiumError, MemoryError, OSError) as error:
                raise Dropped(quality.UNSHOWN, str(error)) from None
            finally:
                page.close()
        blocks, body = read_blocks(seen, drawing)
        lines = lines_in(blocks)
        words = [word for line in lines for word in printed_words(line)]
        plain = "\n".join(line.text for line in lines)
        if IMAGE_PLACEHOLDER in plain:
            raise Dropped(INVALID, f"its text holds {IMAGE_PLACEHOLDER}")
        annotations = {
            "lines": [line.text for line in lines],
            "line_boxes": scaled([line.box for line in lines], layer),
            "words": [text for text, _ in words],
            "word_boxes": scaled([box for _, box in words], layer),
        }
        tables = [block.table for block in blocks if block.table]
        counts = {
            "tables": sum(table.whole for table in tables),
            "tables_as_lines": sum(not table.whole for table in tables),
            "words_not_seen": len(layer.words) - sum(len(line.words) for line in seen),
        }
        metadata = {"file": readable(item.file), "page": item.number, "pages": item.pages}
        metadata |= {name: count for name, count in counts.items() if count}
        name = f"images/{item.index // 1000:03d}/{item.index:06d}.{options.image_format}"
        for task in options.tasks:
            answer, more = plain, {}
            if task == "markdown":
                answer, more = to_markdown(blocks, body), {"plain_text": plain}
            prompt = TASKS[task].prompt("", generator(options.seed, "pdf", item.file, item.number, task))
            unit.rows.append(
                {
                    "id": f"{item.file}-{item.number}-{task}",
                    "task": task,
                    "messages": [
                        {"role": "user", "content": f"<image>\n{prompt}"},
                        {"role": "assistant", "content": answer},
                    ],
                    "images": [name],
                    "annotations": annotations | more,
                    "metadata": metadata,
                }
            )
        unit.images[name] = data
        if options.duplicates:
            unit.signature = signature(annotations["words"])


def stopped(item: PageItem, what: str) -> PageUnit:
    """The unit of a page whose process was ended."""
    unit = PageUnit(place=f"{item.file} page {item.number}")
    unit.drop(STOPPED, f"{unit.place} {what}")
    return unit


def printed_words(line: Line) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Words with their boxes, as spaces part them."""
    found: list[tuple[str, tuple[float, float, float, float]]] = []
    for number, word in enumerate(line.words):
        if number and touch(line.words[number - 1], word):
            text, box = found[-1]
            x1, y1, x2, y2 = zip(box, word.box, strict=True)
            found[-1] = (text + word.text, (min(x1), min(y1), max(x2), max(y2)))
        else:
            found.append((word.text, word.box))
    return found
