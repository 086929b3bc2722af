"""One model for all visitors: they wait in a line, and an answer streams to the one whose turn it is."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from PIL import Image

from varytoy.tasks import Answer

LONGEST = 30
"""Visitors in the line. Each holds one of Gradio's workers (``page.WORKERS``), and opening a picture needs some too."""
MAX_TOKENS = 1024
"""Of an answer, or of each block of a page."""
PAUSE = 0.05
HEARTBEAT = 0.5
GRACE = 2.0
"""Seconds that a model which was asked to stop is given to hand over what it has."""


@dataclass(frozen=True)
class Waiting:
    """``place``: answers that come before this one."""

    place: int


class Line:
    """Those who wait, in the order of their coming; the first is being answered."""

    def __init__(self):
        self._places: list[object] = []
        self._lock = threading.Lock()

    def join(self) -> object:
        """A place at the end. Raises ValueError where the line is full."""
        with self._lock:
            if len(self._places) >= LONGEST:
                raise ValueError(f"{LONGEST} others are waiting for the model: try again in a while")
            self._places.append(place := object())
            return place

    def ahead(self, place: object) -> int:
        with self._lock:
            return self._places.index(place)

    def leave(self, place: object) -> None:
        with self._lock:
            self._places.remove(place)


async def stream(
    line: Line, ask: Callable[..., Answer], picture: Callable[[], Image.Image], cancel: threading.Event
) -> AsyncIterator[Waiting | str | Answer | None]:
    """``Waiting`` while others come first, the text so far again and again, None where nothing is new, and the Answer.

    Args:
        ask: called in a thread with the picture, ``show`` and ``cancel``. The next in the line waits until it returns.
        picture: opens the picture, in the same thread.
        cancel: set it to end; it is set when the caller stops listening.

    Raises:
        ValueError: the line is full.
        What ``ask`` and ``picture`` raise.
    """
    place = line.join()
    news: queue.SimpleQueue[str | Answer | Exception] = queue.SimpleQueue()
    started = False

    def work() -> None:
        try:
            found = ask(picture(), show=news.put, cancel=cancel)
        except BaseException as error:  # it is raised again where somebody listens; a panic of Rust's is no Exception
            found = error if isinstance(error, Exception) else RuntimeError(str(error))
        finally:
            line.leave(place)
        news.put(found)

    try:
        while (ahead := line.ahead(place)) and not cancel.is_set():
            yield Waiting(ahead)
            await asyncio.sleep(HEARTBEAT)
        if cancel.is_set():
            yield Answer("", stop_reason="stopped")
            return
        threading.Thread(target=work, daemon=True).start()
        started = True
        async for found in _listen(news, cancel):
            yield found
    finally:
        cancel.set()
        if not started:
            line.leave(place)


async def _listen(news: queue.SimpleQueue, cancel: threading.Event) -> AsyncIterator[str | Answer | None]:
    """What comes, the newest of each moment, until the Answer; or what came until then, some time after a cancel."""
    text, said, stopped = "", time.monotonic(), None
    while True:
        found = _newest(news)
        if isinstance(found, Exception):
            raise found
        now = time.monotonic()
        stopped = stopped or (now if cancel.is_set() else None)
        if found is None and stopped and now - stopped > GRACE:
            found = Answer(text.strip(), stop_reason="stopped")
        if found is not None or now - said > HEARTBEAT:
            yield found
            said = now
        if isinstance(found, Answer):
            return
        text = found or text
        await asyncio.sleep(PAUSE)


def _newest(news: queue.SimpleQueue) -> str | Answer | Exception | None:
    """Text that is overtaken by longer text need not be shown."""
    found = None
    while not news.empty() and (found is None or isinstance(found, str)):
        found = news.get()
    return found
