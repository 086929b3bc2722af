"""Pages made in a process of its own, which is ended where one takes too long, too much memory, or makes pdfium crash.

A small file can do each of these. The process is a fork that goes on with the next page, so that it costs little.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

STOPPED = "cannot be shown in time"


class Guarded:
    """item -> what ``make`` returns; what ``stopped`` returns for an item and a sentence, if the process ended.

    Args:
        seconds: for an item.
        memory: bytes beside what the process has at its start.
    """

    def __init__(self, make: Callable[[Any], Any], stopped: Callable[[Any, str], Any], seconds: float, memory: int):
        self.make, self.stopped, self.seconds, self.memory = make, stopped, seconds, memory
        self._process, self._line, self._owner = 0, None, 0

    def __getstate__(self):
        return self.__dict__ | {"_process": 0, "_line": None, "_owner": 0}

    def __call__(self, item: Any) -> Any:
        if self._owner != os.getpid():  # the first item, or this was forked with the program
            self._start()
        assert self._line is not None
        try:
            self._line.send(item)
            if self._line.poll(self.seconds):
                return self._line.recv()
            what = f"takes more than {self.seconds:g} s"
        except (EOFError, OSError):
            what = "ends the process: it takes too much memory, or is broken"
        self.close()
        return self.stopped(item, what)

    def close(self) -> None:
        if self._owner == os.getpid() and self._line is not None:
            self._line.close()
            with suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._process, 0)
        self._process, self._line, self._owner = 0, None, 0

    __del__ = close

    def _start(self) -> None:
        self._line, theirs = Pipe()
        self._process, self._owner = os.fork(), os.getpid()
        if self._process:
            theirs.close()
            return
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._line.close()
            _limit(self.memory)
            _serve(self.make, theirs)
            code = 0
        finally:
            os._exit(code)


def _serve(make: Callable[[Any], Any], line: Connection) -> None:
    while True:
        try:
            item = line.recv()
        except (EOFError, OSError):  # the program has ended
            return
        line.send(make(item))


def _limit(memory: int) -> None:
    import resource

    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as sizes:
        now = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
