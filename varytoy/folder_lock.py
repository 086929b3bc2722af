"""A lock on a folder that one process at a time may write to."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"


class FolderInUse(ValueError):
    """Another process writes to the folder."""


@contextlib.contextmanager
def locked(folder: Path, cure: str, report: Callable[[str], None] = print) -> Iterator[None]:
    """Context: lock a folder, which is made if it is not there. The lock is released when the process ends, however it
    ends.

    Args:
        cure: the end of the message of FolderInUse, such as "choose another output=FOLDER".

    Raises:
        FolderInUse: another process holds the lock; the message names it and its machine.
        OSError: the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not kept by workers that outlive a run
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise FolderInUse(f"{folder} is in use by {owner}: wait, or {cure}") from None
            report(f"{path} cannot be locked here ({error.strerror}): do not start a second run in {folder}")
        if not os.fstat(file.fileno()).st_nlink:  # opened just before the other run deleted it at its end
            raise FolderInUse(f"{folder} was in use until now: start again")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is still empty
