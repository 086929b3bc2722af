"""State of one visitor: the file, the current page and the turns so far."""

import logging
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from demo.view import BLUE, label, named
from varytoy.data.answer import Region
from varytoy.data.documents import DocumentError, Page, open_pages
from varytoy.errors import first_line
from varytoy.layout import is_text
from varytoy.tasks import TASKS, Answer, get_task

HISTORY_TURNS = 6
SHOWN_SIDE = 1600
_FILE = re.compile(r"[^.:]*\.\w{1,5}\b")  # a sentence that starts with a file name such as "my scan.png"


@dataclass
class Turn:
    """``prompt``: the model's prompt; ``asked``: the user's text."""

    task: str
    asked: str
    prompt: str
    answer: Answer


@dataclass
class Job:
    """What a visitor has running; ``cancel``: event that stops it, or None."""

    cancel: threading.Event | None = None

    def begin(self) -> threading.Event:
        """Start a new answer; a running one is stopped."""
        self.stop()
        self.cancel = threading.Event()
        return self.cancel

    def stop(self) -> None:
        if self.cancel is not None:
            self.cancel.set()


@dataclass
class Session(Job):
    """Attributes:
    name, data: of the file. Its pages are opened again when needed, so that a visitor needs no more memory than the
        file; the upload itself is deleted after a while.
    view: the page, at most ``SHOWN_SIDE`` pixels a side; None if there is none.
    size: (width, height) of the page in pixels.
    marked: whether an answer's boxes are drawn on the shown image.
    outlined: whether the visitor looks at the blocks of text, which are drawn then.
    chosen: whether the visitor has chosen a task.
    """

    name: str = ""
    data: bytes = b""
    page: int = 1
    page_count: int = 1
    view: Image.Image | None = None
    size: tuple[int, int] = (0, 0)
    turns: list[Turn] = field(default_factory=list)
    marked: bool = False
    outlined: bool = False
    chosen: bool = False

    @property
    def suitable_task(self) -> str:
        """The task for what the page is; empty without a page."""
        return "" if self.view is None else suitable_task(self.view)

    def open(self, path: str) -> None:
        """Show the first page of another file. On an error the old file stays, unless only the first page of
        several cannot be shown.

        Raises:
            DocumentError: the file is not an image or a PDF, or its first page cannot be shown.
        """
        page = next(iter(open_pages(path, pages=[1])))
        data = Path(path).read_bytes()
        if page.page_count == 1:
            page.image  # noqa: B018  (raises before anything is changed)
        self.name, self.data = Path(path).name, data
        self._turn_to(page)

    def turn_to(self, number: int) -> None:
        """Show another page. One that cannot be shown becomes the current page too, so that the next can be reached.

        Raises:
            DocumentError: there is no such page, or it cannot be shown.
        """
        if not self.data:
            raise DocumentError("choose a picture or a PDF first.")
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= self.page_count:
            raise DocumentError(f"there is no page '{number}': choose one from 1 to {self.page_count}.")
        self._turn_to(next(iter(open_pages(self.data, pages=[number]))))

    def _turn_to(self, page: Page) -> None:
        try:
            image = page.image
        except DocumentError:
            self._show(None, page.number, page.page_count)
            raise
        self._show(image, page.number, page.page_count)

    def _show(self, image: Image.Image | None, page: int, page_count: int) -> None:
        self.stop()
        self.page, self.page_count, self.view = page, page_count, image
        if image is not None:
            self.size = image.size
            image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        self.turns, self.cancel, self.marked = [], None, False

    def _in_view(self, regions: Sequence[Region]) -> list[Region]:
        assert self.view is not None
        across, down = (view / full for view, full in zip(self.view.size, self.size, strict=True))
        return [region.moved(lambda point: (point[0] * across, point[1] * down)) for region in regions]

    def drawn(self, turn: Turn) -> Image.Image:
        """The view with the answer's boxes on it."""
        return get_task(turn.task).draw(self.view, Answer(turn.answer.text, self._in_view(turn.answer.regions)))

    def outlines(self, blocks: Sequence[Region]) -> Image.Image:
        """The view with blocks of text on it and their numbers, from 1."""
        assert self.view is not None
        image = self.view.copy()
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=max(12, image.height // 45))
        for number, block in enumerate(self._in_view(blocks), 1):
            x1, y1, x2, y2 = block.box
            points = block.polygon or ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
            pen.polygon(points, outline=BLUE, width=2)
            corner = (max(points[0][0], 2 * font.size), points[0][1] + font.size)  # beside the first line
            pen.rectangle(pen.textbbox(corner, str(number), font, anchor="rb"), BLUE, BLUE, 3)
            pen.text(corner, str(number), "white", font, anchor="rb")
        return image

    def messages(self, task: str) -> list[dict[str, str]]:
        """The last turns as messages, for the conversational tasks.

        The others have no history: their prompts are complete, and a page cannot be split into blocks within a
        conversation.
        """
        if task not in ("chat", "vqa"):
            return []
        messages = []
        for turn in self.turns[-HISTORY_TURNS:]:
            prompt = turn.prompt if messages else f"<image>\n{turn.prompt}"
            messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": turn.answer.text}]
        return messages


def open_page(data: bytes, number: int) -> Image.Image:
    """A page of a file at full size. Raises DocumentError."""
    return next(iter(open_pages(data, pages=[number]))).image


def suitable_task(image: Image.Image) -> str:
    """The task for what an image is."""
    return "ocr" if is_text(image) else "caption"


def takes_words(task: str) -> bool:
    """Whether the user may type something for the task."""
    return bool(get_task(task).takes) or task == "detect"


def asked(task: str, words: str | None) -> Turn:
    """A turn without an answer. ``words`` from the prompt box are ignored if the task takes none.

    Raises:
        ValueError: there is no such task, or it needs words and got none.
    """
    if not isinstance(task, str) or task not in TASKS:
        raise ValueError(f"there is no task '{task}': choose one of {', '.join(map(label, TASKS))}")
    # The processor would count it as a placeholder of an image.
    words = (words if isinstance(words, str) else "").replace("<image>", "image").strip()
    chosen = get_task(task)
    words = words if takes_words(task) else ""
    if chosen.takes and not words:
        raise ValueError(f"“{label(task)}” needs {chosen.takes}: type it in the box")
    return Turn(task, words, chosen.prompt(words), Answer(""))


def sentence(error: Exception) -> str:
    """An error as one sentence with the buttons' names for tasks; unexpected errors are also logged with their
    traceback."""
    reason = named(first_line(error))
    if isinstance(error, ValueError):
        # A file name at the start is not capitalised.
        first = reason.split()[0]
        start = reason[:1].upper() if first.isalpha() and not _FILE.match(reason) else reason[:1]
        return start + reason[1:].rstrip(".") + "."
    logging.getLogger("varytoy.demo").error("while answering", exc_info=error)
    return f"The model could not answer: {reason.rstrip('.')}."
