"""Compare installed packages with the tested versions (``constraints.txt``, written by ``.ci/lock``)."""

import importlib.metadata
from dataclasses import dataclass
from importlib.resources import files

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from varytoy.devices.precision import version_of


@dataclass(frozen=True)
class Difference:
    """An installed package whose version is not the tested one; ``allowed`` is the range of pyproject.toml that it
    violates, or empty."""

    name: str
    installed: str
    tested: str
    allowed: str = ""


def tested_versions() -> dict[str, str]:
    """Name -> version on this platform and Python, from the lock."""
    versions: dict[str, str] = {}
    for line in files("varytoy").joinpath("constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            entry = Requirement(line)
            if entry.marker is None or entry.marker.evaluate():
                versions[canonicalize_name(entry.name)] = str(entry.specifier).removeprefix("==")
    return versions


def requirements() -> list[Requirement]:
    """All requirements of varytoy, extras included."""
    entries = []
    for line in importlib.metadata.requires("varytoy") or ():
        try:
            entries.append(Requirement(line))
        except InvalidRequirement:  # a metadata format newer than the packaging library
            continue
    return entries


def differences() -> list[Difference]:
    """Differences among the installed requirements. A local build (``2.13.0+cpu``) does not count as a difference."""
    tested, different = tested_versions(), {}
    for entry in requirements():
        name = canonicalize_name(entry.name)
        installed = version_of(name)
        if installed is None or name not in tested:
            continue
        public = installed.split("+")[0]
        outside = "" if entry.specifier.contains(public, prereleases=True) else str(entry.specifier)
        if outside or public != tested[name]:
            different[name] = Difference(name, installed, tested[name], outside)
    return [different[name] for name in sorted(different)]
