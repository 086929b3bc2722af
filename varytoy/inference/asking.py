"""What a ``Reader`` is asked, and its answers as they grow."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from varytoy.data.answer import Answer
from varytoy.data.documents import PageWord
from varytoy.layout.frames import Place
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.messages import Message
from varytoy.processing.tiling import Tiling, choose_tiling, upon_tiles
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
    tiles: int = 1
    resolution: int = 0

    def sized(self, resolution: int, tiles: int, processor: VaryImageProcessor) -> "Options":
        """The same about images, or at most ``tiles`` tiles of each, resized to squares of ``resolution`` pixels; 0
        stands for the model's own. Raises ValueError where that is not possible."""
        if resolution:
            processor.check_side(resolution)
        if tiles == 1:
            return replace(self, resolution=resolution)
        if self.history or self.task.view != "text":
            name = self.task.name
            raise ValueError(f"tiles are for pages of text without earlier turns, not for '{name}': leave them out")
        processor.tile_side  # noqa: B018  (raises for a model that takes none)
        return replace(self, resolution=resolution, tiles=tiles, prompt=upon_tiles(self.prompt))

    def tiling(self, size: tuple[int, int], processor: VaryImageProcessor) -> Tiling:
        """Of an image of ``size`` (width, height)."""
        if self.tiles == 1:
            return Tiling(side=self.resolution)
        side = self.resolution or processor.tile_side
        return choose_tiling(size, side, self.tiles)._replace(side=self.resolution)

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
