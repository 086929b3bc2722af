"""Atomic checkpoints: written to a temporary folder and renamed, verified before a run resumes from one."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from train.recipe import RecipeError
from varytoy.errors import first_line, room

SEAL = "sha256.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    if not output.is_dir():
        return []
    folders = {int(match[1]): path for path in output.iterdir() if (match := _NAME.fullmatch(path.name))}
    return [folders[step] for step in sorted(folders, reverse=True)]


def seal(folder: Path) -> None:
    """Store the SHA-256 of each file of a finished checkpoint, for ``damage``."""
    sums = {str(path.relative_to(folder)): _sum(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / SEAL).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def damage(folder: Path) -> str:
    """Describe what is damaged in a checkpoint; empty if every file has its stored SHA-256."""
    try:
        sums = dict(json.loads((folder / SEAL).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return f"{SEAL} cannot be read"
    for name, expected in sums.items():
        try:
            actual = _sum(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {first_line(error)}"
        if actual != expected:
            return f"{name} is not as it was written"
    return ""


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()


def resume_point(output: Path, report: Callable[[str], None]) -> str:
    """The newest undamaged checkpoint of a run.

    Raises:
        RecipeError: there is none.
    """
    candidates = checkpoints(output)
    for folder in candidates:
        problem = damage(folder)
        if not problem:
            return str(folder)
        report(f"{folder} is damaged ({problem}): resuming from an older one")
    raise RecipeError(f"--resume: {output} holds no {'whole ' if candidates else ''}checkpoint")


def not_written(error: Exception, output: Path, what: str) -> RecipeError:
    """The error for a checkpoint or model that could not be written."""
    latest = next(iter(checkpoints(output)), None)
    advice = f"{latest} is whole: make room and go on with --resume" if latest else "there is no earlier one"
    reason = f"{first_line(error)}; {room(output)} in {output}"
    return RecipeError(f"{what} could not be written ({reason}); {advice}")
