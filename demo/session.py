"""One visitor's work: the picture, its pages, the turns so far; and an answer as it streams in."""

import logging
import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from demo.view import MAX_TOKENS
from varytoy.documents import DocumentError, open_pages
from varytoy.runtime import first_line
from varytoy.tasks import TASKS, Answer, get_task

HISTORY_TURNS = 6
PAUSE = 0.05
HEARTBEAT = 0.5


@dataclass
class Turn:
    """``prompt`` is what the model was told, ``asked`` what the user typed."""

    task: str
    asked: str
    prompt: str
    answer: Answer


@dataclass
class Session:
    """Attributes:
    path: the file that was opened; its pages are rendered when they are asked for.
    data: its bytes if it has several pages: the file is deleted after a while.
    cancel: of the answer that is being made, or None.
    """

    path: str | None = None
    data: bytes | None = None
    page: int = 1
    of: int = 1
    image: Image.Image | None = None
    turns: list[Turn] = field(default_factory=list)
    cancel: threading.Event | None = None

    def open(self, path: str, page: int = 1) -> None:
        """Show a page of a file. On an error the old picture stays.

        Raises:
            DocumentError: the file is no picture and no PDF, or has no such page.
        """
        kept = self.data if path == self.path else None
        found = next(iter(open_pages(kept or path, pages=[page])), None)
        if found is None:
            raise DocumentError(f"the file has no page {page}")
        self.stop()
        self.data = kept or (Path(path).read_bytes() if found.of > 1 else None)
        self.path, self.page, self.of, self.image = path, found.number, found.of, found.image.convert("RGB")
        self.turns, self.cancel = [], None

    def begin(self) -> threading.Event:
        """A new answer; one that is still being made ends."""
        self.stop()
        self.cancel = threading.Event()
        return self.cancel

    def stop(self) -> None:
        if self.cancel is not None:
            self.cancel.set()

    def messages(self, task: str) -> list[dict[str, str]]:
        """The last turns as messages, for the tasks that are a conversation.

        Reading and finding start afresh: their prompt says all, and a page that is read within a conversation could not
        be cut into blocks.
        """
        if task not in ("chat", "vqa"):
            return []
        messages = []
        for turn in self.turns[-HISTORY_TURNS:]:
            prompt = turn.prompt if messages else f"<image>\n{turn.prompt}"
            messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": turn.answer.text}]
        return messages


def resolve(task: str, prompt: str) -> tuple[str, str]:
    """(task, argument) for the task that is chosen and the prompt that is typed.

    A typed prompt that is one of a task's own ("What does this image say?") means that task, whatever is chosen; one
    that fits none and comes with a task that takes no words goes to ``chat``.
    """
    # The processor counts these against the pictures.
    prompt = prompt.replace("<image>", "image").strip()
    if not prompt or task in ("chat", "vqa"):
        return task, prompt
    known = _known_prompt(prompt)
    if known:
        return known
    return (task, prompt) if get_task(task).takes or task == "detect" else ("chat", prompt)


def _known_prompt(prompt: str) -> tuple[str, str] | None:
    plain = prompt.casefold()
    for name, task in TASKS.items():
        if not task.takes and plain in (form.casefold() for form in task.prompts):
            return name, ""
    for form in TASKS["ground"].prompts:
        before, after = map(re.escape, form.split("{}"))
        match = re.fullmatch(f"{before}(.+){after}", prompt, re.IGNORECASE)
        if match:
            return "ground", match[1]
    return None


def stream(reader, image, task: str, argument: str, history, cancel: threading.Event) -> Iterator[str | Answer | None]:
    """The text so far, again and again, then the Answer; None when nothing is new for a while.

    The answer is cancelled when the caller stops listening. Raises what the reader raised.
    """
    news: queue.Queue[str | Answer | Exception] = queue.Queue()

    def work() -> None:
        try:
            found = reader.ask(image, task, argument, history, max_new_tokens=MAX_TOKENS, show=news.put, cancel=cancel)
            news.put(found)
        except Exception as error:
            news.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            found = _latest(news)
            if isinstance(found, Exception):
                raise found
            yield found
            if isinstance(found, Answer):
                return
            time.sleep(PAUSE)
    finally:
        cancel.set()


def _latest(news: queue.Queue) -> str | Answer | Exception | None:
    """The newest entry: text that is overtaken by longer text need not be shown."""
    try:
        found = news.get(timeout=HEARTBEAT)
        while isinstance(found, str) and not news.empty():
            found = news.get()
        return found
    except queue.Empty:
        return None


def sentence(error: Exception) -> str:
    """An error in one sentence; what nobody foresaw goes to the log with its traceback too."""
    reason = first_line(error)
    if isinstance(error, ValueError):
        # A file's name keeps its first letter.
        start = reason[:1].upper() if reason.split()[0].isalpha() else reason[:1]
        return start + reason[1:].rstrip(".") + "."
    logging.getLogger("varytoy.demo").error("while answering", exc_info=error)
    return f"The model could not answer: {reason.rstrip('.')}."
