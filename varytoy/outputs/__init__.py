"""Formats of documents that were read, from the records of their pages (``varytoy.outputs.records``)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from varytoy.data.documents import Source
from varytoy.outputs import markup, pdf, plain
from varytoy.outputs.records import Record


@dataclass(frozen=True)
class Format:
    """A format of output.

    Attributes:
        suffix: of its files.
        write: (records of a document's pages in order, the document, its password) -> the file's bytes.
    """

    suffix: str
    write: Callable[[Sequence[Record], Source, str | None], bytes]


FORMATS = {
    "text": Format("txt", plain.text),
    "markdown": Format("md", plain.text),
    "jsonl": Format("jsonl", plain.json_lines),
    "html": Format("html", markup.html),
    "hocr": Format("hocr", markup.hocr),
    "alto": Format("alto.xml", markup.alto),
    "pdf": Format("pdf", pdf.searchable),
}
