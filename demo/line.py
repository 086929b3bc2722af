"""One model for all visitors: requests wait in a queue, and the answer to the first one is streamed."""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from PIL import Image

from varytoy.tasks import Answer

LONGEST = 30
"""Maximum length of the queue. Each visitor in it uses one of Gradio's workers (``page.WORKERS``), of which opening
images needs some too."""
MAX_TOKENS = 1024
"""Limit for an answer, or for each block of a page."""
PAUSE = 0.05
HEARTBEAT = 0.5
GRACE = 2.0
"""Seconds that a cancelled model has to return its partial answer."""


@dataclass(frozen=True)
class Waiting:
    """``place``: number of answers before this one."""

    place: int


class Line:
    """A queue in order of arrival; the first entry is being answered."""

    def __init__(self):
        self._tickets: list[object] = []
        self._lock = threading.Lock()

    def join(self) -> object:
        """A ticket for the end of the queue. Raises ValueError if it is full."""
        with self._lock:
            if len(self._tickets) >= LONGEST:
                raise ValueError(f"{LONGEST} others are waiting for the model: try again in a while")
            self._tickets.append(ticket := object())
            return ticket

    def ahead(self, ticket: object) -> int:
        with self._lock:
            return self._tickets.index(ticket)

    def leave(self, ticket: object) -> None:
        with self._lock:
            self._tickets.remove(ticket)


async def stream(
    line: Line, ask: Callable[..., Answer], picture: Callable[[], Image.Image], cancel: threading.Event
) -> AsyncIterator[Waiting | str | Answer | None]:
    """Yields ``Waiting`` while others come first, then the text so far, or None if nothing is new, and last the Answer.

    Args:
        ask: called in a thread with the image, ``show`` and ``cancel``. The next in the queue waits until it returns.
        picture: opens the image, in the same thread.
        cancel: set it to stop; it is set when the caller stops iterating.

    Raises:
        ValueError: the queue is full.
        What ``ask`` and ``picture`` raise.
    """
    ticket = line.join()
    updates: queue.SimpleQueue[str | Answer | Exception] = queue.SimpleQueue()
    started = False

    def work() -> None:
        try:
            result = ask(picture(), show=updates.put, cancel=cancel)
        except BaseException as error:  # raised again in the consumer; a Rust panic is not an Exception
            result = error if isinstance(error, Exception) else RuntimeError(str(error))
        finally:
            line.leave(ticket)
        updates.put(result)

    try:
        while (ahead := line.ahead(ticket)) and not cancel.is_set():
            yield Waiting(ahead)
            await asyncio.sleep(HEARTBEAT)
        if cancel.is_set():
            yield Answer("", stop_reason="cancelled")
            return
        threading.Thread(target=work, daemon=True).start()
        started = True
        async for update in _listen(updates, cancel):
            yield update
    finally:
        cancel.set()
        if not started:
            line.leave(ticket)


async def _listen(updates: queue.SimpleQueue, cancel: threading.Event) -> AsyncIterator[str | Answer | None]:
    """The newest update at each poll, until the Answer; or a partial Answer if none comes within GRACE of a cancel."""
    text, last_yield, stopped = "", time.monotonic(), None
    while True:
        update = _newest(updates)
        if isinstance(update, Exception):
            raise update
        now = time.monotonic()
        stopped = stopped or (now if cancel.is_set() else None)
        if update is None and stopped and now - stopped > GRACE:
            update = Answer(text.strip(), stop_reason="cancelled")
        if update is not None or now - last_yield > HEARTBEAT:
            yield update
            last_yield = now
        if isinstance(update, Answer):
            return
        text = update or text
        await asyncio.sleep(PAUSE)


def _newest(updates: queue.SimpleQueue) -> str | Answer | Exception | None:
    """The latest text, or the answer or error after it; earlier texts are skipped."""
    update = None
    while not updates.empty() and (update is None or isinstance(update, str)):
        update = updates.get()
    return update
