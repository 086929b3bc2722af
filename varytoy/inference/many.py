"""Read many files: several pages at once, the answers in order."""

import glob
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from varytoy.data.answer import Answer
from varytoy.data.documents import DocumentError, Page, PasswordError, Source, open_pages

if TYPE_CHECKING:
    from varytoy.inference.reader import Reader
    from varytoy.layout.frames import Place

SUFFIXES = {".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".gif", ".bmp", ".avif", ".jp2", ".ppm", ".pgm"}
"""Suffixes of the files that are read in a folder."""
STANDARD_INPUT = "-"
_Asked = TypeVar("_Asked")
_Answered = TypeVar("_Answered")
TOGETHER = 4


@dataclass(frozen=True)
class Input:
    """``name``: as the user gave it; ``source``: what ``open_pages`` takes."""

    name: str
    source: Source


@dataclass
class PageAnswer:
    """The answer to a page, or why there is none.

    Attributes:
        item: the file.
        page: None where the file could not be opened.
        task: chosen for the page, if none was named.
        error: a sentence; empty for an answer.
    """

    item: Input
    page: Page | None = None
    task: str = ""
    answer: Answer | None = None
    error: str = ""


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


def inputs_of(sources: Iterable[Source]) -> Iterator[Input]:
    """Inputs for files, folders, patterns, images and bytes.

    Raises:
        ValueError: a name without files.
    """
    for number, source in enumerate(sources, 1):
        if not isinstance(source, (str, Path)):
            yield Input(f"image {number}", source)
            continue
        found, errors = find_inputs([str(source)])
        if errors:
            raise ValueError(errors[0][1])
        yield from found


def read_many(
    reader: "Reader",
    inputs: Iterable[Input],
    task: str = "",
    argument: str = "",
    *,
    page: int | None = None,
    password: str | None = None,
    max_new_tokens: int = 1024,
    together: int = TOGETHER,
    drafts: str = "model",
    place: "Place | None" = None,
    tiles: int = 1,
    resolution: int = 0,
    across: bool = False,
    finished: Callable[[Input], Collection[int] | None] = lambda item: (),
) -> Iterator[PageAnswer]:
    """The answers to the pages of files, in order; a file or page that fails gives its error.

    Pages are read ``together``: the blocks of several fill the model's batches. At most that many are open.

    Args:
        task: empty: of a page of text ``ocr``, of a photograph ``caption``.
        page: only this one, from 1.
        place, tiles, resolution: see ``Reader.ask``.
        across: all pages of a file are one answer, which is given for its first page (``read_across``).
        finished: called when a file is begun; pages of it that are not to be read, None for the file. A ValueError is
            the file's error.
    """
    from varytoy.inference.across_pages import read_across  # which needs the Reader

    cancel = threading.Event()
    shared = reader.shared(fair=False) if together > 1 else reader

    def read(answer: PageAnswer) -> PageAnswer:
        if answer.page is None:
            return answer
        try:
            answer.task = task or shared.task_for(answer.page.image)
            options = {
                "max_new_tokens": max_new_tokens,
                "cancel": cancel,
                "drafts": drafts,
                "place": place,
                "tiles": tiles,
                "resolution": resolution,
            }
            if across:
                source = answer.item.source
                answer.answer = read_across(shared, source, answer.task, max_new_tokens, cancel, password, resolution)
                return answer
            found = shared.ask(answer.page, answer.task, argument, **options)
            assert isinstance(found, Answer)
            answer.answer = found
        except DocumentError as error:
            answer.error = str(error)
        except (ValueError, RuntimeError, MemoryError) as error:
            answer.error = f"{answer.item.name}: {error}"
        return answer

    pages = (each for item in inputs for each in _pages(item, 1 if across else page, password, finished))
    try:
        yield from in_order(read, pages, together, cancel)
    finally:
        if shared is not reader:
            shared.close()


def _pages(
    item: Input, page: int | None, password: str | None, finished: Callable[[Input], Collection[int] | None]
) -> Iterator[PageAnswer]:
    try:
        skipped = finished(item)
        if skipped is None:
            return
        for each in open_pages(item.source, None if page is None else [page], 150, password):
            if each.number not in skipped:
                yield PageAnswer(item, each)
    except PasswordError as error:
        yield PageAnswer(item, error=f"{error} Give it with --password.")
    except (ValueError, OSError) as error:
        yield PageAnswer(item, error=str(error))


def in_order(
    read: Callable[[_Asked], _Answered], pages: Iterator[_Asked], together: int, cancel: threading.Event
) -> Iterator[_Answered]:
    """``read`` of each page, on threads of their own; no more are taken than are read at once. ``cancel`` is set when
    this ends early, which the threads are to heed.

    Not with a ThreadPoolExecutor: Ctrl-C within ``submit`` or ``result`` can leave one of its locks held, for which the
    threads would then wait forever. ``SimpleQueue`` has none in Python.
    """
    if together == 1:
        yield from map(read, pages)
        return
    waiting: SimpleQueue[tuple[_Asked, SimpleQueue] | None] = SimpleQueue()
    threads = [threading.Thread(target=_work, args=(read, waiting), name="varytoy-page") for _ in range(together)]
    for thread in threads:
        thread.start()
    running: deque[SimpleQueue] = deque()
    try:
        for page in pages:
            running.append(SimpleQueue())
            waiting.put((page, running[-1]))
            if len(running) == together:
                yield _taken(running.popleft())
        while running:
            yield _taken(running.popleft())
    except BaseException:  # also where the caller takes no more
        cancel.set()
        raise
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()


def _work(read: Callable[[_Asked], _Answered], waiting: "SimpleQueue[tuple[_Asked, SimpleQueue] | None]") -> None:
    while (job := waiting.get()) is not None:
        page, answers = job
        try:
            answers.put((read(page), None))
        except BaseException as error:  # raised again where the answer is taken
            answers.put((None, error))


def _taken(answers: SimpleQueue) -> Any:
    answer, error = answers.get()
    if error is not None:
        raise error
    return answer
