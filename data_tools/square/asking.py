"""Ask a backend what is not answered yet: several requests at once, within a budget."""

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from data_tools.square.backends.base import Backend, BackendError
from data_tools.square.prompts import Prompts
from data_tools.square.replies import Ask, Replies, Reply

_MAX_FAILURES = 20
"""Failures in a row from which the backend is taken to be down."""


class Stopped(Exception):
    """A run that stopped before its end; what was replied is kept. The message says why, and how to go on."""


@dataclass
class Budget:
    """Limits of requests and tokens, over all runs in a folder; 0 for none. ``requests``, ``tokens``: used so far."""

    max_requests: int = 0
    max_tokens: int = 0
    requests: int = 0
    tokens: int = 0

    def check(self) -> None:
        """Raises Stopped if it is used up."""
        limits = (("requests", self.requests, self.max_requests), ("tokens", self.tokens, self.max_tokens))
        for what, used, limit in limits:
            if limit and used >= limit:
                raise Stopped(f"{used:,} of {limit:,} {what} are used: run it again with a larger --max-{what}")


class Asker:
    """Asks a backend, and keeps each reply at once.

    Args:
        folder: where the pictures are; None if none are shown.
        temperature, seed: kept with each reply.
    """

    def __init__(
        self,
        backend: Backend,
        prompts: Prompts,
        budget: Budget,
        folder: Path | None,
        temperature: float = 0.0,
        seed: int = 0,
    ):
        self.backend, self.prompts, self.budget, self.folder = backend, prompts, budget, folder
        self.temperature, self.seed = temperature, seed
        self.failed = self._in_a_row = 0
        self._stop = ""

    def ask(self, asks: Iterable[Ask], replies: Replies, title: str) -> None:
        """Ask what has no reply yet; equal requests once, if replies are not drawn at random. A request that fails is
        left out, counted, and asked again by the next run.

        Raises:
            Stopped: the budget is used up, or the backend is down.
        """
        groups: dict[object, list[Ask]] = {}
        for ask in asks:
            if ask not in replies:
                key = (ask.item, ask.name) if self.temperature else (self._prompt(ask), self._image(ask))
                groups.setdefault(key, []).append(ask)
        if not groups:
            return
        waiting: dict[Future[Reply], list[Ask]] = {}
        queue, self._in_a_row, self._stop = iter(groups.values()), 0, ""
        with ThreadPoolExecutor(self.backend.concurrency) as pool, tqdm(total=len(groups), desc=title) as bar:
            try:
                while not self._stop:
                    while len(waiting) < self.backend.concurrency and (group := next(queue, None)):
                        self.budget.check()
                        self.budget.requests += 1
                        waiting[pool.submit(self._reply, group[0])] = group
                    if not waiting:
                        return
                    self._collect(waiting, replies, bar.update)
            finally:
                while waiting:  # they are paid for
                    self._collect(waiting, replies, bar.update)
        raise Stopped(self._stop)

    def check(self) -> None:
        """Raises Stopped if a request failed: the next stage needs all replies."""
        if self.failed:
            raise Stopped(f"requests that failed: {self.failed}; run it again to ask them again")

    def _collect(
        self, waiting: dict[Future[Reply], list[Ask]], replies: Replies, update: Callable[[int], object]
    ) -> None:
        """Keep the replies that are there, at least one."""
        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            group = waiting.pop(future)
            update(1)
            try:
                reply = future.result()
            except BackendError as error:
                self._in_a_row += 1
                if error.final or self._in_a_row >= _MAX_FAILURES:
                    self._stop = f"{self.backend.name}: {error}; run it again to go on"
                if not error.refused:
                    self.failed += 1
                    continue
                reply = Reply("", error=str(error))
            else:
                self._in_a_row = 0
            self.budget.tokens += sum(reply.tokens)
            about = {"backend": self.backend.name, "temperature": self.temperature, "seed": self.seed}
            for ask in group:
                like = {} if ask is group[0] else {"like": group[0].item}
                replies.add(ask, reply, prompt=f"{self.prompts.version}/{ask.prompt_name}", **about, **like)

    def _prompt(self, ask: Ask) -> str:
        return self.prompts.fill(ask.prompt_name, ask.values)

    def _image(self, ask: Ask) -> Path | None:
        shown = self.folder if ask.see or self.backend.needs_picture else None
        return shown / ask.page.image if shown else None

    def _reply(self, ask: Ask) -> Reply:
        return self.backend.reply(ask, self._prompt(ask), self._image(ask), self.temperature, self.seed)
