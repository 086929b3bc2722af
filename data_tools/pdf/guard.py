"""Processes that are ended where an item takes too long or too much memory, or makes pdfium crash, while the others go
on. A small file can do each of these."""

import itertools
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from data_tools.writer import Mapped

STOPPED = "takes too much time or memory"
_AHEAD = 4
"""Chunks of items that each process may be ahead of what is used."""


@dataclass(frozen=True)
class Guard:
    """``stopped``: what an item gives whose process has ended, from it and a sentence. ``seconds`` for an item;
    ``memory``: bytes beside what the program has when the process is forked."""

    stopped: Callable[[Any, str], Any]
    seconds: float = 60.0
    memory: int = 3 * 2**30


class _Worker:
    """A fork of this process that makes items; ``todo``: those that it has, of which the first is in work."""

    def __init__(self, make: Callable[[Any], Any], guard: Guard):
        self.guard, self.todo, self.since = guard, deque[tuple[int, Any]](), 0.0
        self.line, theirs = Pipe()
        self.process = os.fork()
        if self.process:
            theirs.close()
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program ends it
            self.line.close()
            _limit(guard.memory)
            _serve(make, theirs)
            code = 0
        except Exception:  # a fault of ours, beside the reason that the item is dropped for
            traceback.print_exc()
        finally:
            os._exit(code)

    def give(self, items: Iterable[tuple[int, Any]]) -> None:
        self.todo.extend(items)
        self.since = time.monotonic()
        with suppress(OSError):  # it has ended: found by ``take``
            self.line.send([item for _, item in self.todo])

    @property
    def late(self) -> bool:
        return bool(self.todo) and time.monotonic() - self.since > self.guard.seconds

    def take(self) -> tuple[int, Any]:
        """Number of the first item, and what was made of it. Raises EOFError if the process has ended."""
        try:
            made = self.line.recv()
        except OSError as error:
            raise EOFError from error
        self.since = time.monotonic()
        return self.todo.popleft()[0], made

    def end(self) -> None:
        self.line.close()
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.process, 0)


def guarded(guard: Guard) -> Mapped:
    """For ``produce``: makes items in processes with these limits."""

    @contextmanager
    def mapped(make: Callable[[Any], Any], items: Iterable[Any], workers: int, chunk: int) -> Iterator[Iterator[Any]]:
        running: list[_Worker] = []
        try:
            yield _made(make, iter(enumerate(items)), workers, chunk, guard, running)
        finally:
            for worker in running:
                worker.end()

    return mapped


def _made(make, items, workers: int, chunk: int, guard: Guard, running: list[_Worker]) -> Iterator[Any]:
    done: dict[int, Any] = {}
    given = used = 0
    more = True
    while True:
        for worker in [worker for worker in running if not worker.todo] + [None] * (workers - len(running)):
            if not more or given > used + workers * chunk * _AHEAD:
                break
            part = list(itertools.islice(items, chunk))
            more = len(part) == chunk
            given += len(part)
            if part:
                if worker is None:
                    worker = _Worker(make, guard)
                    running.append(worker)
                worker.give(part)
        busy = {worker.line: worker for worker in running if worker.todo}
        if not busy and not done:
            return
        ready = set(wait(busy, timeout=min(1.0, guard.seconds))) if busy else set()
        for line, worker in busy.items():
            try:
                if line in ready:
                    number, made = worker.take()
                    done[number] = made
                    continue
                reason = f"takes more than {guard.seconds:g} s" if worker.late else ""
            except EOFError:
                reason = "ends its process: it takes too much memory, or is broken"
            if reason:
                worker.end()
                (number, item), *rest = worker.todo
                done[number] = guard.stopped(item, reason)
                running[running.index(worker)] = fresh = _Worker(make, guard)
                if rest:
                    fresh.give(rest)
        while used in done:
            yield done.pop(used)
            used += 1


class Guarded:
    """item -> what ``make`` returns, made in a process with limits: where others share out the items."""

    def __init__(self, make: Callable[[Any], Any], guard: Guard):
        self.make, self.guard, self._worker, self._owner = make, guard, None, 0

    def __getstate__(self):
        return self.__dict__ | {"_worker": None, "_owner": 0}

    def __call__(self, item: Any) -> Any:
        if self._worker is None or self._owner != os.getpid():
            self._worker, self._owner = _Worker(self.make, self.guard), os.getpid()
        worker = self._worker
        worker.give([(0, item)])
        reason = f"takes more than {self.guard.seconds:g} s"
        with suppress(EOFError):
            if worker.line.poll(self.guard.seconds):
                reason = "ends its process: it takes too much memory, or is broken"
                return worker.take()[1]
        worker.end()
        self._worker = None
        return self.guard.stopped(item, reason)

    def __del__(self):
        if self._worker is not None and self._owner == os.getpid():
            self._worker.end()


def _serve(make: Callable[[Any], Any], line: Connection) -> None:
    while True:
        try:
            items = line.recv()
        except (EOFError, OSError):  # the program has ended
            return
        for item in items:
            line.send(make(item))


def _limit(memory: int) -> None:
    import resource

    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as sizes:
        now = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
