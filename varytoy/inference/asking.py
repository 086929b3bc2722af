"""What a ``Reader`` is asked, and its answers as they grow."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from varytoy.data.answer import Answer
from varytoy.data.documents import PageWord
from varytoy.layout.frames import Place
from varytoy.processing.messages import Message
from varytoy.tasks import Task

Show = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The request for each image."""

    task: Task
    argument: str
    prompt: str
    history: Sequence[Message]
    max_new_tokens: int
    show: Show | None
    cancel: threading.Event | None
    drafts: str = "model"
    words: Sequence[PageWord] = ()
    progress: Callable[[int, int], None] | None = None
    place: Place | None = None

    @property
    def cancelled(self) -> bool:
        return self.cancel is not None and self.cancel.is_set()


def stream(ask: Callable[..., Answer], cancel: threading.Event | None = None) -> Iterator[str | Answer]:
    """The text so far, whenever there is more, and last the answer. Closing the iterator stops the reading, and waits
    for the step that runs.

    Args:
        ask: called on a thread of its own with ``show`` and ``cancel``.
        cancel: set it from another thread to stop.
    """
    updates: queue.SimpleQueue[str | Answer | BaseException] = queue.SimpleQueue()
    cancel = cancel or threading.Event()

    def work() -> None:
        try:
            updates.put(ask(show=updates.put, cancel=cancel))
        except BaseException as error:  # raised again where the answer is awaited
            updates.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            update = updates.get()
            if isinstance(update, BaseException):
                raise update
            yield update
            if isinstance(update, Answer):
                return
    finally:
        cancel.set()
        thread.join()
