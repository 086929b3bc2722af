"""Text and JSON lines."""

import json
from collections.abc import Sequence

from varytoy.data.documents import Source
from varytoy.outputs.records import Record


def text(records: Sequence[Record], source: Source, password: str | None) -> bytes:
    """The pages' texts, with a form feed between pages; a page that could not be read is empty."""
    return "\f".join(f"{record.get('text', '')}\n" for record in records).encode("utf-8", "backslashreplace")


def json_lines(records: Sequence[Record], source: Source, password: str | None) -> bytes:
    """A record a line."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return "".join(lines).encode("utf-8", "backslashreplace")
