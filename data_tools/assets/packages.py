"""Download packages with fonts, texts and images with the clients of npm, Debian and Python, without root."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SourceError(RuntimeError):
    """A source that is missing or cannot be fetched; the message names the fix."""


@contextmanager
def unpacked(client: str, *names: str) -> Iterator[Path]:
    """Context: a folder with the contents of the first available package of ``names``.

    ``client``: ``npm``, ``apt`` or ``pip``.

    Raises:
        SourceError: the client is missing, or no package is available; with the client's last message about the first.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield _first(client, names, Path(folder))


def _first(client: str, names: tuple[str, ...], folder: Path) -> Path:
    first_error = None
    for name in names:
        try:
            return _fetch(client, name, folder)
        except SourceError as error:
            first_error = first_error or error
    raise first_error


def _fetch(client: str, name: str, folder: Path) -> Path:
    commands = {
        "npm": ["npm", "pack", "--silent", name],
        "apt": ["apt-get", "download", "-q", name],
        "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        + ["--python-version=3.11", name],
    }
    _run(client, name, commands[client], folder)
    archive, root = next(path for path in folder.iterdir() if path.is_file()), folder / "root"
    if client == "npm":
        with tarfile.open(archive) as opened:
            # Python 3.11.3 and older 3.10 releases have no filters.
            opened.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    elif client == "apt":
        _run(client, name, ["dpkg", "-x", archive.name, "root"], folder)
    else:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(root)
    return root


def _run(client: str, name: str, command: list[str], folder: Path) -> None:
    if not shutil.which(command[0]):
        fix = "install it first"
        if client == "apt":
            fix = "fetching needs Debian or a derivative; elsewhere fill the folder by hand"
        raise SourceError(f"'{command[0]}' is not installed, which fetches {name}: {fix}")
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if process.returncode:
        message = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        hint = " (try `apt-get update` first)" if client == "apt" else ""
        raise SourceError(f"cannot fetch the package {name}: {message}{hint}")
