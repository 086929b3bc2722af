"""A folder of outputs, one file for each document. Pages that were read are kept when the program is interrupted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varytoy.inference.many import Input, PageAnswer
from varytoy.outputs import FORMATS
from varytoy.outputs.records import Record, error_record, record_of


def record(model: str, page: PageAnswer) -> Record:
    """The record of an answer, or of the error."""
    name = page.item.name
    if page.answer is None or page.page is None:
        return error_record(name, page.error, None if page.page is None else page.page.number)
    return record_of(model, name, page.page, page.task, page.answer)


@dataclass(frozen=True)
class _Document:
    """``journal``: JSON lines, the settings and then the record of each page so far."""

    item: Input
    path: Path
    journal: Path


class OutputFolder:
    """Files ``NAME.SUFFIX`` of documents, which appear when all pages are read. Until then ``NAME.SUFFIX.part`` holds
    the records of those that are.

    Args:
        output: a key of ``FORMATS``.
        settings: what decides the answers, with ``model``; a file that was begun with others is not gone on with.
        resume: leave out the files and pages that are there.
        overwrite: replace them.
        unread: called with the records of a document of which no page was read; it gets no file.

    Raises:
        ValueError: unknown format.
    """

    def __init__(
        self,
        folder: str | Path,
        output: str,
        settings: Mapping[str, Any],
        resume: bool = False,
        overwrite: bool = False,
        password: str | None = None,
        unread: Callable[[Sequence[Record]], None] = lambda records: None,
    ):
        if output not in FORMATS:
            raise ValueError(f"no output format {output!r}: choose one of {', '.join(FORMATS)}")
        self.folder, self.format = Path(folder), FORMATS[output]
        self.settings, self.password, self.unread = dict(settings), password, unread
        self.resume, self.overwrite = resume, overwrite
        self._begun: list[_Document] = []
        self._paths: set[Path] = set()

    def begin(self, item: Input) -> set[int] | None:
        """The pages of a document that are there; None if all are.

        Raises:
            ValueError: its file exists and is neither to be kept nor replaced, or was begun with other settings.
        """
        path = self.folder / f"{Path(item.name).name}.{self.format.suffix}"
        journal = path.with_name(f"{path.name}.part")
        if path in self._paths:
            raise ValueError(f"{item.name}: another file of this name is written to {path}; read it by itself")
        if path.exists() and not self.overwrite:
            if self.resume:
                return None
            raise ValueError(f"{path} exists; give --overwrite to replace it, or --resume to leave it out")
        done: set[int] = set()
        if journal.exists() and self.resume:
            done = self._resumed(item, journal)
        elif journal.exists() and not self.overwrite:
            raise ValueError(
                f"{journal} is of an interrupted run; give --resume to go on, or --overwrite to begin anew"
            )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_lines(journal, [{"settings": self._settings(item)}])
        self._paths.add(path)
        self._begun.append(_Document(item, path, journal))
        return done

    def add(self, page: PageAnswer) -> None:
        """Keep the answer to the next page. Documents before it are finished."""
        while self._begun and self._begun[0].item is not page.item:
            if all(document.item is not page.item for document in self._begun):
                return  # it was not begun, which its error says
            self._finish(self._begun.pop(0))
        if self._begun:
            _write_lines(self._begun[0].journal, [record(self.settings["model"], page)], "a")

    def close(self) -> None:
        """Finish what was begun."""
        while self._begun:
            self._finish(self._begun.pop(0))

    def _finish(self, document: _Document) -> None:
        by_page = {each.get("page"): each for each in _read_lines(document.journal)[1:]}
        records = [by_page[number] for number in sorted(by_page, key=lambda number: number or 0)]
        if any("error" not in each for each in records):
            written = document.path.with_name(f"{document.path.name}.new")
            try:
                written.write_bytes(self.format.write(records, document.item.source, self.password))
                written.replace(document.path)
            finally:
                written.unlink(missing_ok=True)
        else:
            self.unread(records)
        document.journal.unlink()

    def _resumed(self, item: Input, journal: Path) -> set[int]:
        head, *records = _read_lines(journal) or [{}]
        if head.get("settings") != self._settings(item):
            raise ValueError(
                f"{journal} was begun with other options, another model or another {item.name}; give --overwrite to "
                "begin anew"
            )
        kept = [each for each in records if "error" not in each]
        _write_lines(journal, [head, *kept])
        return {each["page"] for each in kept}

    def _settings(self, item: Input) -> Record:
        try:
            status = Path(item.source).stat() if isinstance(item.source, (str, Path)) else None
        except OSError:
            status = None
        return {**self.settings, **({} if status is None else {"bytes": status.st_size, "changed": status.st_mtime_ns})}


def _write_lines(path: Path, records: Sequence[Record], mode: str = "w") -> None:
    with path.open(mode, encoding="utf-8", errors="backslashreplace") as stream:
        for each in records:
            stream.write(json.dumps(each) + "\n")


def _read_lines(path: Path) -> list[Record]:
    """The records of whole lines: the last may have been cut."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]
