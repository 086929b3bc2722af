"""Installed packages beside the versions that varytoy is tested with (``constraints.txt``, written by ``.ci/lock``)."""

import importlib.metadata
from dataclasses import dataclass
from importlib.resources import files

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from varytoy.devices.precision import version_of


@dataclass(frozen=True)
class Difference:
    """An installed package that is not the tested one; ``allowed`` is the range of pyproject.toml that it breaks, or
    empty."""

    name: str
    installed: str
    tested: str
    allowed: str = ""


def tested_versions() -> dict[str, str]:
    """Name -> version on this platform and Python, from the lock."""
    found: dict[str, str] = {}
    for line in files("varytoy").joinpath("constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            entry = Requirement(line)
            if entry.marker is None or entry.marker.evaluate():
                found[canonicalize_name(entry.name)] = str(entry.specifier).removeprefix("==")
    return found


def requirements() -> list[Requirement]:
    """Everything that varytoy names, extras included."""
    found = []
    for line in importlib.metadata.requires("varytoy") or ():
        try:
            found.append(Requirement(line))
        except InvalidRequirement:  # of a metadata format that is newer than the packaging library
            continue
    return found


def differences() -> list[Difference]:
    """Of the packages that varytoy names and that are installed. A local build (``2.13.0+cpu``) is no difference."""
    tested, found = tested_versions(), {}
    for entry in requirements():
        name = canonicalize_name(entry.name)
        installed = version_of(name)
        if installed is None or name not in tested:
            continue
        public = installed.split("+")[0]
        outside = "" if entry.specifier.contains(public, prereleases=True) else str(entry.specifier)
        if outside or public != tested[name]:
            found[name] = Difference(name, installed, tested[name], outside)
    return [found[name] for name in sorted(found)]
