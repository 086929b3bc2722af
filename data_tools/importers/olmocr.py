"""``olmocr-mix``: pages of PDFs with the text that a large model read; a parquet file, and its PDFs unpacked."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.importers.base import Dropped, Entry, Groups, Importer
from data_tools.program import register
from data_tools.writer import IMAGE_FORMATS, encode, generator, question_row
from varytoy.data.documents import DocumentError, open_pages
from varytoy.data.sample import SampleError
from varytoy.extras import require
from varytoy.options import positive
from varytoy.tasks import TASKS

_ID = ("id", "__index_level_0__")
"""Names of the column with a page's id; it is the index of the table that was written."""
_ROWS = 64
"""Rows that are read at once."""
_PAGE = "-page"
_MARKS = re.compile(r"\\\S|&#?\w+;|\$\$|\$[^$\n]*[\\^_{][^$\n]*\$")
_PLAIN = {"paragraph_open", "paragraph_close", "inline", "text", "softbreak"}


@register
class OlmOcrMix(Importer):
    name = "olmocr-mix"
    help = "import olmOCR-mix-0225: pages of PDFs with their text"
    licence = "ODC-BY-1.0 (olmOCR-mix); pages as their authors state"
    takes = "train-s2pdf.parquet, train-iabooks.parquet or those of eval"
    images = "PDFs, unpacked: ID.pdf"

    def options(self, parser):
        super().options(parser)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--evaluate", action="store_true", help="standard prompts only")
        parser.add_argument("--dpi", type=positive, default=120, help="resolution of the pages")
        parser.add_argument("--format", choices=sorted(IMAGE_FORMATS), default="jpeg", help="of the images")
        help = "only pages in these, such as en de (default: all)"
        parser.add_argument("--languages", nargs="+", metavar="CODE", help=help)

    def groups(self, options):
        require("data", "pyarrow", by="python -m data_tools olmocr-mix")
        import pyarrow
        from pyarrow.parquet import ParquetFile

        try:
            with ParquetFile(options.annotations) as table:
                names, count = table.schema_arrow.names, table.metadata.num_rows
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{options.annotations} is not parquet ({error}): give {self.takes}") from None
        columns = [next((name for name in _ID if name in names), "id"), "response", "page_number"]
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(f"{options.annotations} has no column {missing[0]}: give {self.takes}")
        return Groups(count, lambda: _pages(options.annotations, columns))

    def rows(self, entry, options):
        name, response, page = entry.record
        read = json.loads(response)
        if read.get("rotation_correction") or read.get("is_rotation_valid") is False:
            raise Dropped("page that is turned", quiet=True)
        language = read.get("primary_language")
        if options.languages and language not in options.languages:
            raise Dropped("page in another language", quiet=True)
        text = (read["natural_text"] or "").strip()
        if not text:
            raise Dropped("page without text", quiet=True)
        task = TASKS["ocr" if is_plain(text) else "markdown"]
        rng = None if options.evaluate else generator(options.seed, self.name, name)
        metadata = {"language": language, "table": bool(read.get("is_table")), "diagram": bool(read.get("is_diagram"))}
        row = question_row(task.name, task.prompt("", rng), text, metadata=metadata)
        yield {**row, "id": str(name), "images": [f"{name}{_PAGE}{page}.{options.format}"]}

    def read_image(self, folder, name, options):
        """The page, drawn. Most PDFs hold that page alone."""
        stem, _, number = name.rpartition(".")[0].rpartition(_PAGE)
        names = (f"{stem}.pdf", f"{stem[:4]}/{stem[4:]}.pdf")
        file = next((folder / each for each in names if (folder / each).is_file()), folder / names[0])
        try:
            (page,) = open_pages(file, [1], options.dpi)
            if page.page_count > 1:
                (page,) = open_pages(file, [int(number)], options.dpi)
            return encode(page.image, options.format)
        except DocumentError as error:
            raise SampleError(str(error)) from error


def _pages(file: Path, columns: list[str]) -> Iterator[list[Entry]]:
    """An entry a row; memory holds a row group's pages of the columns, not the file."""
    from pyarrow.parquet import ParquetFile

    number = 0
    with ParquetFile(file) as table:
        for batch in table.iter_batches(_ROWS, columns=columns):
            values: list[list[Any]] = [batch.column(name).to_pylist() for name in columns]
            for record in zip(*values, strict=True):
                number += 1
                yield [Entry(f"{file} row {number}", record)]


def is_plain(text: str) -> bool:
    """Whether the text has neither markdown nor formulas, so that it is what the page prints."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {each.type for token in tokens for each in (token, *(token.children or ()))}
    return kinds <= _PLAIN and not _MARKS.search(text)
