"""Helpers for error messages."""

import shutil
from pathlib import Path


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def room(path: Path) -> str:
    """Free space on the disk of a path that may not exist yet."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB free"
