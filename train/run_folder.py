"""The folder of a run: its lock, the settings it was started with, and protection against overwriting a model."""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from safetensors import SafetensorError

from train.checkpointing import checkpoints
from train.recipe import Recipe, RecipeError, flatten, read_recipe, to_yaml
from train.stages import stage_folders
from varytoy.data.samples import digest, sample_files
from varytoy.devices.precision import version_of
from varytoy.errors import first_line, room
from varytoy.folder_lock import LOCK, FolderInUse, locked
from varytoy.inference.parts import PARTS, parts_of

MAY_CHANGE = {"output"} | {
    f"train.{name}"
    for name in (
        *(
            "epochs",
            "max_steps",
            "save_steps",
            "keep",
            "log_steps",
            "predict_steps",
            "evaluate_steps",
            "evaluate_on",
            "evaluate_count",
            "evaluate_batch",
            "evaluate_tokens",
            "workers",
            "max_nonfinite_batches",
        ),
        *("gradient_checkpointing", "compile"),
    )
}
"""Settings that may change on --resume, which reports them. A different length stretches the rest of the schedule."""
_PATHS = ("output", "features", "model.init", "model.tokenizer", "model.preset", "train.deepspeed")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
_OF_A_RUN = ("recipe.yaml", "runs.jsonl", "metrics.jsonl", "predictions", "runs", "unfinished", "base", "checkpoint-*")
_OF_A_MODEL = (
    *("model*.safetensors", "adapter_model*.safetensors", "training_heads.safetensors"),
    *("model.safetensors.index.json", "adapter_config.json"),
)
FINISHED = "finished"
"""A file that the folder of a stage has when its model is whole."""
_SIGNS = ("recipe.yaml", "runs.jsonl")
"""Files that identify a folder as a run's."""


def is_first() -> bool:
    """Whether this is the process of a run that writes its folder (rank 0)."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def alone(output: Path, report: Callable[[str], None] = print) -> Iterator[None]:
    """Context: lock the folder against other runs.

    Raises:
        RecipeError: another run holds the lock; the message names its process and machine.
    """
    with contextlib.ExitStack() as stack:
        if is_first():
            with writing(output):
                try:
                    stack.enter_context(locked(output, "choose another output=FOLDER", report))
                except FolderInUse as error:
                    raise RecipeError(str(error)) from None
        yield


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context: turns a write error for ``path`` into one sentence with the free space.

    Raises:
        RecipeError: the disk is full, the folder is not writable, or similar.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{path} could not be written ({first_line(error)}; {room(path)})") from error


@contextlib.contextmanager
def quiet_writers() -> Iterator[None]:
    """Context: an OSError in a thread prints no traceback. TensorBoard's writer passes it to the run."""
    original = threading.excepthook
    threading.excepthook = lambda args: None if isinstance(args.exc_value, OSError) else original(args)
    try:
        yield
    finally:
        threading.excepthook = original


def last_checkpoint(output: Path) -> str:
    """The end of a message on a stopped run: which checkpoint to resume from."""
    folders = (output, *reversed(stage_folders(output)))
    last = next((found for folder in folders for found in checkpoints(folder)), None)
    return f"the last checkpoint is {last}: go on with --resume" if last else f"there is no checkpoint in {output} yet"


def write_aside(path: Path, text: str) -> None:
    """Write a file atomically. Raises RecipeError as ``writing``."""
    temporary = path.with_name(f"{path.name}.part")
    with writing(path):
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def check_new(output: Path) -> None:
    """Raises RecipeError if a new run would overwrite another run's checkpoints or model."""
    if checkpoints(output) or stage_folders(output):
        raise RecipeError(
            f"{output} holds a run: continue it with --resume, choose another output=FOLDER, or add --overwrite"
        )
    model = next((name for name in _WEIGHTS if (output / name).is_file()), None)
    if model:
        raise RecipeError(f"{output} holds a finished model ({model}): choose another output=FOLDER or add --overwrite")


def check_overwrite(recipe: Recipe, output: Path) -> None:
    """Raises RecipeError if --overwrite would delete the recipe's initial model, or files that are not a run's."""
    for name in recipe.model.init:
        if output.resolve() in (Path(name).resolve(), *Path(name).resolve().parents):
            raise RecipeError(f"model.init: {name} is in output={output}, which --overwrite deletes: choose another")
    if not any((output / name).is_file() for name in _SIGNS):
        blocking = next((path for path in _deleted(output) if path.name != "base"), None)
        if blocking is not None:
            raise RecipeError(
                f"{output} holds {blocking.name} but no recipe.yaml: --overwrite deletes runs only; choose another "
                "output=FOLDER"
            )


def clear(output: Path, keep_base: bool) -> None:
    """Delete an earlier run and its model, for --overwrite; other files stay. ``keep_base``: keep the folder ``base``,
    which the new run has just written.

    Raises:
        RecipeError: a file cannot be deleted.
    """
    with writing(output):
        for path in _deleted(output):
            if not (keep_base and path.name == "base"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def carry_parts(folders: Sequence[str], output: Path, trained: Collection[str] = ()) -> None:
    """Copy each part of a checkpoint (``Reader.parts``) of the last of ``folders`` that has it; none for the views that
    were ``trained`` now."""
    parts: dict[str, Path] = {}
    for folder in folders:
        parts |= parts_of(Path(folder))
    with writing(output):
        for view in parts.keys() - set(trained):
            shutil.copytree(parts[view], output / PARTS[view], dirs_exist_ok=True)


def clear_model(output: Path) -> None:
    """Delete the finished model in a folder. Raises OSError."""
    for pattern in _OF_A_MODEL:
        for path in output.glob(pattern):
            path.unlink()


def not_of_the_model() -> tuple[str, ...]:
    """Patterns of the files of a finished run that are not of its model."""
    return (*_OF_A_RUN, LOCK, FINISHED)


def _deleted(output: Path) -> list[Path]:
    """The files of a run; its stages first, which are known by its recipe."""
    return [
        *stage_folders(output),
        *(path for pattern in (*_OF_A_RUN, *_OF_A_MODEL) for path in output.glob(pattern)),
    ]


def changes(recipe: Recipe, output: Path) -> tuple[list[str], list[str]]:
    """Settings that differ from those that the run in ``output`` was started with, as ``key=value (was value)``: those
    that may change, or name what was only moved, and the others. None if its ``recipe.yaml`` is gone."""
    stored = output / "recipe.yaml"
    if not stored.is_file():
        return [], []
    old, new = flatten(read_recipe(stored)), flatten(recipe)
    digests = _digests(last_start(output))
    accepted: list[str] = []
    refused: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before == after or key in _PATHS and _absolute(before) == _absolute(after):
            continue
        change = f"{key}={after} (was {before})"
        moved = key == "features" and before and after  # its content is checked, wherever it is
        moved = moved or digests.get(key) and after and digest_of(Path(after)) == digests[key]
        moved = moved or key == "train.deepspeed" and before and after and _moved(Path(before), Path(after))
        if key == "model.init":  # of a later stage, that moved with it
            moved = _beside(before, old["output"]) == _beside(after, new["output"])
        (accepted if key in MAY_CHANGE or moved else refused).append(change)
    return accepted, refused


def compare(recipe: Recipe, output: Path, checkpoint: str, report: Callable[[str], None]) -> None:
    """Compare a resumed recipe with the one that the run was started with; reports accepted changes.

    Raises:
        RecipeError: a setting or the data changed that must stay the same within a run.
    """
    stored = output / "recipe.yaml"
    if not stored.is_file():
        report(f"{stored} is gone: whether settings have changed is not known")
        return
    accepted, refused = changes(recipe, output)
    start, old, new = last_start(output), flatten(read_recipe(stored)), flatten(recipe)
    for key, expected in _digests(start).items():
        if expected and new.get(key) == old.get(key) is not None and digest_of(Path(new[key])) != expected:
            refused.append(f"the samples of {key}={new[key]} (their SHA-256 is not that of runs.jsonl)")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if start.get("processes", processes) != processes:
        refused.append(f"{processes} processes (were {start['processes']})")
    if refused:
        raise RecipeError(
            f"--resume: these settings differ from those that the run was started with: {', '.join(refused)}: change "
            f"them back, or use {stored} as the recipe, or start a new run from its model with model.init={checkpoint} "
            "output=FOLDER"
        )
    if accepted:
        report(f"changed for the rest of the run: {', '.join(accepted)}")
    step = int(checkpoint.rpartition("-")[2])
    if 0 < recipe.train.max_steps < step:
        raise RecipeError(f"--resume: train.max_steps={recipe.train.max_steps}, but {checkpoint} has {step} steps")


def _digests(start: dict) -> dict[str, str | None]:
    """Key of each source of a start -> SHA-256 of its samples."""
    return {f"data.{number}.path": row.get("sha256") for number, row in enumerate(start.get("data", []))}


def _beside(folders: list[str], output: str) -> list[str]:
    """Folders as they are to be found from the run's own."""
    return [os.path.relpath(folder, output) for folder in folders]


def _absolute(value: object) -> object:
    if isinstance(value, list):
        return [_absolute(entry) for entry in value]
    return os.path.abspath(value) if isinstance(value, str) and value else value


def _moved(before: Path, after: Path) -> bool:
    """Whether a file was only moved: same content, or the old file is gone and the name is the same."""
    old = digest_of(before)
    return old == digest_of(after) if old else before.name == after.name


def last_start(output: Path) -> dict:
    """The last valid line of ``runs.jsonl``; the file may end in an incomplete line."""
    path = output / "runs.jsonl"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                return row
    return {}


def digest_of(path: Path) -> str:
    """SHA-256 of a source's list of samples, or of its shards; empty if it is missing."""
    files = sample_files(path)
    return digest(files) if all(file.is_file() for file in files) else ""


def record_start(recipe: Recipe, output: Path, counts: list[int], checkpoint: str | None) -> None:
    """Write ``recipe.yaml`` and append a line to ``runs.jsonl``: command, versions, data and settings of this start.

    Raises:
        RecipeError: they cannot be written.
    """
    if not is_first():
        return
    packages = ("torch", "transformers", "accelerate", "bitsandbytes", "deepspeed", "peft", "varytoy")
    sources = [
        {"path": source.path, "samples": count, "sha256": digest_of(Path(source.path))}
        for source, count in zip(recipe.data, counts, strict=True)
    ]
    row = {
        "command": [sys.executable, *sys.argv],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "from": checkpoint,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in packages},
        "data": sources,
        "recipe": dataclasses.asdict(recipe),
    }
    write_aside(output / "recipe.yaml", to_yaml(recipe))
    path = output / "runs.jsonl"
    with writing(path), path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
