"""What errors have in common."""

import shutil
from pathlib import Path


def first_line(error: Exception) -> str:
    """What a library's error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def room(path: Path) -> str:
    """How much is free on the disk of a path that may not be there yet."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return f"{shutil.disk_usage(there).free / 2**20:.0f} MiB free"
