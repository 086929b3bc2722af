"""``varytoy read``: find the input files, print or write the answers for each, and report errors per file."""

import argparse
import glob
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from varytoy.data.answer import Answer, Region
from varytoy.data.documents import DocumentError, Page, PasswordError, open_pages
from varytoy.tasks import TASKS

SUFFIXES = {".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".avif", ".jp2", ".ppm", ".pgm"}
"""Suffixes of the files that are read in a folder."""
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Input:
    """``name``: as the user gave it; ``source``: what ``open_pages`` takes."""

    name: str
    source: str | bytes


def find_inputs(names: Sequence[str]) -> tuple[list[Input], list[tuple[str, str]]]:
    """The inputs for ``names`` (files, folders, patterns, ``-``), and (name, error sentence) for those without any.

    A folder gives the images and PDFs directly in it, sorted by name.
    """
    inputs, errors = [], []
    for name in names:
        path = Path(name)
        try:
            if name == STANDARD_INPUT:
                inputs.append(Input("standard input", sys.stdin.buffer.read()))
            elif path.is_dir():
                files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
                inputs += [Input(str(file), str(file)) for file in files]
                if not files:
                    errors.append((name, f"{name} is a folder without pictures or PDFs."))
            elif path.exists():
                inputs.append(Input(name, name))
            else:
                matches = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else []
                files = [match for match in matches if Path(match).is_file()]
                inputs += [Input(file, file) for file in files]
                if not files:
                    reason = ": it matches folders only, which are read if named." if matches else ": no such file."
                    errors.append((name, f"{name}{reason}"))
        except (OSError, ValueError) as error:  # a name with NUL, a folder without permission
            errors.append((name, f"{name} cannot be read: {getattr(error, 'strerror', None) or error}."))
    return inputs, errors


class Output:
    """Answers to standard output, or each file's into a file of ``folder``; JSON rows or text."""

    def __init__(self, options: argparse.Namespace, several: bool):
        self.options, self.several, self.first = options, several, True
        self.folder = Path(options.out) if options.out else None
        self.written: set[Path] = set()

    @contextmanager
    def open(self, item: Input) -> Iterator[TextIO]:
        """Context: the stream for the answers to an input. A file appears once it is complete, and if a page was read.

        Raises:
            ValueError: the file exists.
        """
        self.answered = False
        if self.folder is None:
            yield sys.stdout
            return
        ending = "json" if self.options.json else "md" if self.options.task == "markdown" else "txt"
        path = self.folder / f"{Path(item.name).name}.{ending}"
        if path in self.written:
            raise ValueError(f"{item.name}: another file of this name is written to {path}; read it by itself")
        if path.exists() and not self.options.overwrite:
            raise ValueError(f"{path} exists; give --overwrite to replace it")
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.part")
        try:
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream:
                yield stream
            if self.answered:
                temporary.replace(path)
                self.written.add(path)
            elif self.options.json:  # the error rows
                print(temporary.read_text(encoding="utf-8"), end="", flush=True)
        finally:
            temporary.unlink(missing_ok=True)

    def row(self, stream: TextIO, row: dict) -> None:
        """One JSON line; in ASCII unless the stream is encoded in Unicode."""
        ascii_only = not (stream.encoding or "").lower().startswith("utf")
        print(json.dumps(row, ensure_ascii=ascii_only), file=stream, flush=True)

    def text(self, stream: TextIO, item: Input, page: Page, text: str) -> None:
        if self.folder is not None:
            print(("\f" if page.number > 1 and not self.options.page else "") + text, file=stream, flush=True)
            return
        if self.several or page.page_count > 1:
            number = f", page {page.number} of {page.page_count}" if page.page_count > 1 else ""
            print(f"{'' if self.first else chr(10)}==> {item.name}{number} <==", file=stream)
            self.first = False
        print(text, file=stream, flush=True)


def read_files(options: argparse.Namespace) -> int:
    """Read every file; an error in one file or page does not stop the others. Returns the exit code."""
    options.task = options.task or ("chat" if options.prompt else "")  # "": each page's own
    try:
        TASKS[options.task or "ocr"].prompt(options.prompt)
    except ValueError as error:
        return complain(str(error))
    for stream in (sys.stdout, sys.stderr):  # for characters that the terminal's encoding lacks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    inputs, errors = find_inputs(options.files)
    output = Output(options, len(inputs) > 1)
    for name, sentence in errors:
        _failed(output, name, sentence)
    if not inputs:
        return 2
    reader = _load(options)
    if reader is None:
        return 2
    failures = [_read_input(reader, item, output, options) for item in inputs]
    return 2 if errors or any(failures) else 0


def _load(options: argparse.Namespace):
    """The Reader; None after an error was printed."""
    from transformers.utils import logging

    from varytoy.inference.reader import Reader

    logging.set_verbosity_error()  # no progress bars and developer warnings
    logging.disable_progress_bar()
    try:
        reader = Reader.from_pretrained(options.model, options.device, options.dtype, options.quantize)
    except ValueError as error:
        complain(str(error))
        return None
    if options.quantize and not reader.precision.quantize:
        complain(reader.precision.reason)
    return reader


def _read_input(reader, item: Input, output: Output, options: argparse.Namespace) -> bool:
    """Whether any of its pages failed."""
    failed = False
    try:
        pages = open_pages(item.source, [options.page] if options.page is not None else None, 150, options.password)
        with output.open(item) as stream:
            for page in pages:
                failed |= not _read_page(reader, item, page, output, stream)
    except PasswordError as error:
        return _failed(output, item.name, f"{error} Give it with --password.")
    except BrokenPipeError:  # `| head`
        raise
    except (ValueError, OSError) as error:
        return _failed(output, item.name, str(error))
    return failed


def _read_page(reader, item: Input, page: Page, output: Output, stream: TextIO) -> bool:
    """Whether the page was read."""
    options = output.options
    try:
        start = time.perf_counter()
        task = options.task or reader.task_for(page.image)
        answer = reader.ask(page.image, task, options.prompt, max_new_tokens=options.max_new_tokens)
        seconds = time.perf_counter() - start
    except (ValueError, RuntimeError, MemoryError) as error:
        sentence = str(error) if isinstance(error, DocumentError) else f"{item.name}: {error}"
        _failed(output, item.name, sentence, page.number, stream)
        if output.folder is not None and not options.json:
            output.text(stream, item, page, "")  # keeps the position of later pages
        return False
    output.answered = True
    if options.json:
        output.row(stream, row_of(reader.name, item.name, page, task, answer, seconds))
    else:
        output.text(stream, item, page, answer.text)
        if task == "caption" and not options.task:
            complain(f"{item.name} page {page.number}: taken for a photograph and described; --task ocr reads it")
    for sentence in _remarks(answer):
        complain(f"{item.name} page {page.number}: {sentence}")
    page.forget()
    return True


def _failed(output: Output, name: str, sentence: str, page: int | None = None, stream: TextIO | None = None) -> bool:
    """Print an error, with --json also as a row. Returns True."""
    complain(sentence)
    if output.options.json:
        number = {} if page is None else {"page": page}
        output.row(stream or sys.stdout, {"file": name, **number, "error": sentence})
    return True


def _remarks(answer: Answer) -> Iterator[str]:
    if answer.turned:
        yield f"the text stands turned; it was read after a turn of {answer.turned} degrees"
    if answer.skipped:
        yield f"{answer.skipped} blocks have letters too small to read, or are a picture's texture; they were left out"
    if answer.stop_reason == "loop":
        yield "the model began to repeat itself and was stopped"
    elif answer.stop_reason == "length":
        yield "the answer was cut; give a larger --max-new-tokens"


def row_of(model: str, name: str, page: Page, task: str, answer: Answer, seconds: float) -> dict:
    """The row that ``--json`` prints for a page. Boxes are xyxy in pixels of an image of ``width`` x ``height``."""
    return {
        "file": name,
        "page": page.number,
        "pages": page.page_count,
        "width": page.image.width,
        "height": page.image.height,
        "task": task,
        "text": answer.text,
        **({} if answer.markdown is None else {"markdown": answer.markdown}),
        "boxes": [{"label": label, "box": list(xyxy)} for label, xyxy in answer.boxes],
        "blocks": [_block_row(block) for block in answer.blocks],
        **({"skipped": answer.skipped} if answer.skipped else {}),
        **({"turned": answer.turned} if answer.turned else {}),
        "stop_reason": answer.stop_reason,
        "confidence": None if answer.confidence is None else round(answer.confidence, 4),
        "seconds": round(seconds, 3),
        "model": model,
    }


def _block_row(block: Region) -> dict:
    score = None if block.score is None else round(block.score, 4)
    return {"text": block.text, "box": list(block.box), "confidence": score}


def complain(sentence: str) -> int:
    print(f"varytoy: {sentence}", file=sys.stderr)
    return 2
