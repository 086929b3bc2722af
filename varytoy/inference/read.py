"""``varytoy read``: print or write the answers for each file, and report errors per file."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from varytoy.data.answer import Answer
from varytoy.data.tesseract import check_tesseract
from varytoy.inference.many import Input, PageAnswer, find_inputs, read_many
from varytoy.inference.output import OutputFolder, record
from varytoy.options import reader_options
from varytoy.outputs import FORMATS
from varytoy.outputs.records import Record, error_record
from varytoy.tasks import TASKS, find_prompt

if TYPE_CHECKING:
    from varytoy.layout.frames import Place


class _Output(Protocol):
    def begin(self, item: Input) -> set[int] | None: ...

    def add(self, page: PageAnswer) -> None: ...

    def close(self) -> None: ...


class _Printed:
    """Base of the outputs to standard output."""

    def begin(self, item: Input) -> set[int]:
        return set()

    def close(self) -> None:
        pass


class _Rows(_Printed):
    """JSON lines to standard output, as soon as a page is read."""

    def __init__(self, model: str):
        self.model = model

    def add(self, page: PageAnswer) -> None:
        print_row(record(self.model, page))


class _Texts(_Printed):
    """Texts to standard output, as soon as a page is read; of several, each under its name."""

    def __init__(self, several: bool):
        self.several, self.first = several, True

    def add(self, page: PageAnswer) -> None:
        if page.answer is None or page.page is None:
            return
        number, count = page.page.number, page.page.page_count
        if self.several or count > 1:
            which = f", page {number} of {count}" if count > 1 else ""
            print(f"{'' if self.first else chr(10)}==> {page.item.name}{which} <==")
            self.first = False
        print(page.answer.text, flush=True)


class _File(_Printed):
    """One file in a format of its own to standard output, when its last page is read."""

    def __init__(self, options: argparse.Namespace, model: str):
        self.options, self.model = options, model
        self.pages: list[Record] = []
        self.item: Input | None = None

    def add(self, page: PageAnswer) -> None:
        self.item = page.item
        self.pages.append(record(self.model, page))

    def close(self) -> None:
        if self.item is not None and any("error" not in page for page in self.pages):
            write = FORMATS[self.options.format].write
            sys.stdout.buffer.write(write(self.pages, self.item.source, self.options.password))
            sys.stdout.buffer.flush()


def read_files(options: argparse.Namespace) -> int:
    """Read every file; an error in one file or page does not stop the others. Returns the exit code."""
    _complete(options)
    try:
        TASKS[options.task or "ocr"].prompt(options.prompt)
        options.place = _parsed(options.place) if options.place else None
    except ValueError as error:
        return complain(str(error))
    if options.across_pages and (options.page or options.place or options.tiles > 1):
        return complain("--across-pages takes whole pages, all of them: leave --page, --place and --tiles out")
    for stream in (sys.stdout, sys.stderr):  # for characters that the terminal's encoding lacks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if options.drafts == "tesseract":
        try:
            check_tesseract()
        except ValueError as error:
            return complain(str(error))
    inputs, errors = find_inputs(options.files)
    for name, sentence in errors:
        complain(sentence)
        if options.format == "jsonl":
            print_row(error_record(name, sentence))
    if not inputs:
        return 2
    whole = options.format not in ("text", "markdown", "jsonl") and not options.out
    if whole and len(inputs) > 1:
        return complain(f"{options.format} of {len(inputs)} files: give --out FOLDER, or name one")
    if whole and options.format == "pdf" and sys.stdout.isatty():
        return complain("a PDF is not for a terminal: give --out FOLDER, or redirect it to a file")
    reader = _load(options)
    if reader is None:
        return 2
    failed = _read(reader, inputs, _output(options, reader.name, len(inputs) > 1), options)
    return 2 if errors or failed else 0


def _parsed(place: str) -> "Place":
    from varytoy.layout.frames import parse_place

    try:
        return parse_place(place)
    except ValueError as error:
        raise ValueError(f"--place: {error}") from None


def _complete(options: argparse.Namespace) -> None:
    """Fill in the format and the task that follow from other options; a wording of a task is a prompt that names it."""
    options.format = options.format or ("jsonl" if options.json else "")
    found = None if options.task or not options.prompt else find_prompt(options.prompt.strip())
    if found is not None:
        options.task, options.prompt = found[0].name, found[1]
    options.task = options.task or ("chat" if options.prompt else "markdown" if options.format == "markdown" else "")
    options.format = options.format or ("markdown" if options.task == "markdown" else "text")


def _output(options: argparse.Namespace, model: str, several: bool) -> _Output:
    if options.out:
        names = (
            "task",
            "prompt",
            "max_new_tokens",
            "page",
            "place",
            "tiles",
            "resolution",
            "across_pages",
            "dtype",
            "quantize",
            "runtime",
        )
        settings = {name: getattr(options, name) for name in names} | {"model": model}
        unread = _print_rows if options.format == "jsonl" else lambda records: None
        flags = options.resume, options.overwrite
        return OutputFolder(options.out, options.format, settings, *flags, options.password, unread)
    if options.format == "jsonl":
        return _Rows(model)
    return _Texts(several) if options.format in ("text", "markdown") else _File(options, model)


def _load(options: argparse.Namespace):
    """The Reader; None after an error was printed."""
    from transformers.utils import logging

    from varytoy.inference.reader import Reader

    logging.set_verbosity_error()  # no progress bars and developer warnings
    logging.disable_progress_bar()
    try:
        reader = Reader.from_pretrained(*reader_options(options))
    except ValueError as error:
        complain(str(error))
        return None
    if options.quantize and not reader.precision.quantize:
        complain(reader.precision.reason)
    return reader


def _read(reader, inputs: Sequence[Input], output: _Output, options: argparse.Namespace) -> bool:
    """Whether any page failed."""
    from tqdm import tqdm

    pages = read_many(
        reader,
        inputs,
        options.task,
        options.prompt,
        page=options.page,
        password=options.password,
        max_new_tokens=options.max_new_tokens,
        together=options.together,
        drafts=options.drafts,
        place=options.place,
        tiles=options.tiles,
        resolution=options.resolution,
        across=options.across_pages,
        finished=output.begin,
    )
    failed = False
    with tqdm(unit="page", disable=None if options.out else True) as bar:
        for page in pages:
            for sentence in _remarks(page, options):
                with tqdm.external_write_mode(sys.stderr):
                    complain(sentence)
            failed |= bool(page.error)
            output.add(page)
            if page.page is not None:
                bar.set_postfix_str(f"{page.item.name}, page {page.page.number} of {page.page.page_count}")
                page.page.forget()
            bar.update()
        output.close()
    return failed


def _remarks(page: PageAnswer, options: argparse.Namespace) -> Iterator[str]:
    """What to say of a page."""
    answer, name = page.answer, page.item.name
    if page.page is None or answer is None:
        yield page.error
        return
    where = f"{name} page {page.page.number}"
    if page.task == "caption" and not options.task and options.format != "jsonl":
        yield f"{where}: taken for a photograph and described; --task ocr reads it"
    yield from (f"{where}: {sentence}" for sentence in _of_answer(answer))
    if options.format == "pdf" and page.page.text:
        yield f"{where}: it has text of its own already, which stays as it is"


def _of_answer(answer: Answer) -> Iterator[str]:
    if answer.turned:
        yield f"the text stands turned; it was read after a turn of {answer.turned} degrees"
    if answer.skipped:
        what = "have letters too small to read, are a picture's texture, or were read with too little confidence"
        yield f"{answer.skipped} blocks or lines {what}; they were left out"
    if answer.dropped:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in answer.dropped.items())
        yield f"parts of the answer are no lines with boxes and were left out: {reasons}"
    if answer.loops:
        yield f"the model repeated itself {answer.loops} times; the repetitions were left out, and it went on"
    if answer.number_gap is not None and not answer.reliable:
        off = f"{answer.number_gap:.2f} of their range"
        yield f"the numbers of the table differ from those seen in the picture by {off}: check them"
    if answer.stop_reason == "loop":
        yield "the model began to repeat itself and was stopped"
    elif answer.stop_reason == "length":
        yield "the answer was cut; give a larger --max-new-tokens"


def _print_rows(records: Sequence[Record]) -> None:
    for each in records:
        print_row(each)


def print_row(row: Record) -> None:
    """One JSON line to standard output; in ASCII unless it is encoded in Unicode."""
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(row, ensure_ascii=ascii_only), flush=True)


def complain(sentence: str) -> int:
    sys.stderr.write(f"varytoy: {sentence}\n")  # at once, so that an interruption cannot part a line from its end
    return 2
