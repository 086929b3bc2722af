"""JSON files of many gigabytes, a record at a time.

COCO's and LLaVA's files are one JSON value. Python's own decoder reads each record from a window of the text, at its
full speed; memory holds the window and one record.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WINDOW = 2**20
"""Bytes that are read at once."""
_LONGEST = 2**28
"""Characters of a record; in a damaged file the end of one may be missing."""
_SPACE = " \t\r\n"


def stream_json(file: Path, form: str) -> Iterator[tuple[str | None, int, Any]]:
    """The records of a file that holds a list, or an object with lists: (key of the list, number from 1, record). The
    key is None in a list; other values of an object have the number 0.

    Args:
        form: what the file should hold, for the error.

    Raises:
        ValueError: at the place where the file stops being JSON, after the records before it.
    """
    with file.open("rb") as data:
        text, where = _Text(data), "its first value"
        try:
            if text.next() == "[":
                for number, record in text.items("]"):
                    where = f"entry {number}"
                    yield None, number, record
            else:
                text.expect("{")
                while text.next() != "}":
                    key = str(text.value())
                    where = f"the key '{key}'"
                    text.expect(":")
                    if text.next() == "[":
                        for number, record in text.items("]"):
                            where = f"entry {number} of '{key}'"
                            yield key, number, record
                    else:
                        yield key, 0, text.value()
                    if text.next() != "}":
                        text.expect(",")
                text.expect("}")
            if text.next():
                raise ValueError("more text follows the last bracket")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} is not JSON behind {where} ({error}): give {form}") from error


class _Text:
    """The text of a file, of which a window is in memory."""

    def __init__(self, data):
        self._data, self._decoder = data, codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._at, self._ended = "", 0, False

    def _more(self, size: int) -> bool:
        """Read on; False at the end."""
        if self._ended:
            return False
        data = self._data.read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        self._at = 0
        return True

    def next(self) -> str:
        """The next character that is no white space, which stays; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_WINDOW):
                return ""

    def expect(self, character: str) -> None:
        found = self.next()
        if found != character:
            raise ValueError(f"'{character}' is missing before " + (f"'{found}'" if found else "the end of the file"))
        self._at += 1

    def value(self) -> object:
        self.next()
        size = _WINDOW
        while True:
            try:
                record, end = self._json.raw_decode(self._text, self._at)
                cut = self._text[end : end + 1] in ("", ".", "e", "E")  # perhaps a number, which goes on
                if not cut or not self._more(_WINDOW):
                    self._at = end
                    return record
            except json.JSONDecodeError:
                if len(self._text) - self._at > _LONGEST or not self._more(size):
                    raise
            size *= 2

    def items(self, end: str) -> Iterator[tuple[int, object]]:
        """The values of a list, from its bracket to its ``end``, numbered from 1."""
        self._at += 1
        number = 0
        while self.next() != end:
            number += 1
            yield number, self.value()
            if self.next() != end:
                self.expect(",")
        self._at += 1
