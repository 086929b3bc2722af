"""Checkpoints that are whole or not there: written aside and renamed, looked through before a run goes on from one."""

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
    """Those of a run, newest first."""
    if not output.is_dir():
        return []
    found = {int(match[1]): path for path in output.iterdir() if (match := _NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found, reverse=True)]


def seal(folder: Path) -> None:
    """Write down the SHA-256 of each file of a finished checkpoint, for ``damage``."""
    sums = {str(path.relative_to(folder)): _sum(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / SEAL).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint, in a few words; empty if each file is as it was written."""
    try:
        sums = dict(json.loads((folder / SEAL).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return f"{SEAL} cannot be read"
    for name, wanted in sums.items():
        try:
            found = _sum(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {first_line(error)}"
        if found != wanted:
            return f"{name} is not as it was written"
    return ""


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()


def resume_point(output: Path, say: Callable[[str], None]) -> str:
    """The newest whole checkpoint of a run.

    Raises:
        RecipeError: there is none.
    """
    found = checkpoints(output)
    for folder in found:
        wrong = damage(folder)
        if not wrong:
            return str(folder)
        say(f"{folder} is damaged ({wrong}): going on from an older one")
    raise RecipeError(f"--resume: {output} holds no {'whole ' if found else ''}checkpoint")


def not_written(error: Exception, output: Path, what: str) -> RecipeError:
    """One sentence for a checkpoint or model that could not be written."""
    whole = next(iter(checkpoints(output)), None)
    last = f"{whole} is whole: make room and go on with --resume" if whole else "there is no earlier one"
    why = f"{first_line(error)}; {room(output)} in {output}"
    return RecipeError(f"{what} could not be written ({why}); {last}")
