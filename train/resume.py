"""Checkpoints that are whole or not there: written aside and renamed, looked through before a run goes on from one."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from train.recipe import RecipeError
from varytoy.reader import first_line

_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoints(output: Path) -> list[Path]:
    """Those of a run, newest first."""
    if not output.is_dir():
        return []
    found = {int(match[1]): path for path in output.iterdir() if (match := _NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found, reverse=True)]


def damage(folder: Path) -> str:
    """What is wrong with a checkpoint, in a few words; empty if it is whole."""
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "trainer_state.json cannot be read"
    deepspeed = (folder / "latest").is_file()
    for name in ("*.safetensors", "optimizer.pt"):
        if not deepspeed and not any(folder.glob(name)):
            return f"{name} is missing"
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"{path.name} is not whole"
    for path in sorted([*folder.rglob("*.pt"), *folder.rglob("*.pth")]):
        try:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
        except (OSError, zipfile.BadZipFile):
            broken = path.name
        if broken:
            return f"{path.name} is not whole"
    return ""


def resume_point(output: Path, resume: bool, say: Callable[[str], None]) -> str | None:
    """The newest whole checkpoint of a run, or None for a new run.

    Raises:
        RecipeError: there is none to go on from, or a run that would be overwritten.
    """
    found = checkpoints(output)
    if not resume:
        if found:
            raise RecipeError(f"{output} holds a run: continue it with --resume or choose another output=FOLDER")
        return None
    for folder in found:
        wrong = damage(folder)
        if not wrong:
            return str(folder)
        say(f"{folder} is damaged ({wrong}): going on from an older one")
    raise RecipeError(f"--resume: {output} holds no {'whole ' if found else ''}checkpoint")


def not_written(error: Exception, output: Path, step: int) -> RecipeError:
    """One sentence for a checkpoint that could not be written."""
    whole = next(iter(checkpoints(output)), None)
    free = shutil.disk_usage(output).free / 2**20
    last = f"{whole} is whole: make room and go on with --resume" if whole else "there is no earlier one"
    why = f"{first_line(error)}; {free:.0f} MiB free in {output}"
    return RecipeError(f"the checkpoint of step {step} could not be written ({why}); {last}")
