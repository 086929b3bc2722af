"""Samples in .tar shards of WebDataset's layout, read where they are: nothing is extracted.

A shard is a folder of its members: ``shard-000000.tar/000017.jpg`` is an image in it. Members with the same name up to
the first dot belong together: an image and the ``.json`` with its sample, or a list of its samples.
"""

import functools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SUFFIX = ".tar"
_SHARDS = 64
"""Shards whose lists of members are kept."""


def shard_of(path: Path) -> tuple[Path, str] | None:
    """The shard and the member's name in it; None for a path outside a shard."""
    parts = path.parts
    for number, part in enumerate(parts[:-1], 1):
        if part.endswith(SUFFIX) and os.path.isfile(shard := Path(*parts[:number])):
            return shard, "/".join(parts[number:])
    return None


def read_member(shard: Path, name: str) -> bytes:
    """Raises FileNotFoundError where there is none, OSError and tarfile.TarError for a damaged shard."""
    try:
        offset, size = _members(shard)[str(PurePosixPath(name))]
    except KeyError:
        raise FileNotFoundError(f"the shard {shard} has no member {name}") from None
    with shard.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"the shard {shard} ends inside {name}")
    return data


def has_member(shard: Path, name: str) -> bool:
    """Raises as ``read_member``."""
    return str(PurePosixPath(name)) in _members(shard)


def descriptions(shard: Path) -> Iterator[str]:
    """The names of the .json members, in order. Raises as ``read_member``."""
    return (name for name in _members(shard) if name.endswith(".json"))


def _members(shard: Path) -> dict[str, tuple[int, int]]:
    state = shard.stat()
    return _index(shard, state.st_mtime_ns, state.st_size)


@functools.lru_cache(_SHARDS)
def _index(shard: Path, changed: int, size: int) -> dict[str, tuple[int, int]]:
    """Name -> (offset, bytes) of the files of a shard; of two with one name the last."""
    with tarfile.open(shard, "r:") as archive:
        return {str(PurePosixPath(each.name)): (each.offset_data, each.size) for each in archive if each.isfile()}
