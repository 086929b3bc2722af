"""Plot the learning curve of one run or of several consecutive runs."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from train.recipe import RecipeError
from train.run_folder import writing

PARTS = ("text", "letters", "guide", "objects", "corners", "clip_objects", "clip_corners")


def logged(run: Path) -> list[dict]:
    """All complete rows of a run's metrics.

    Raises:
        RecipeError: there are none.
    """
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise RecipeError(f"no metrics.jsonl in {run}: give the output folder of a run")
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # incomplete, where a run was killed
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    if not rows:
        raise RecipeError(f"{path} holds no losses yet")
    return rows


def last_tenth(losses: Sequence[float]) -> float:
    """The mean of the last tenth, at least of the last one."""
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail)


def read_metrics(run: Path) -> list[dict]:
    """Logged losses of a run with ``hours`` of training since its start. Steps that were repeated after a resume count
    in the hours, but their first rows are left out.

    Raises:
        RecipeError: there are no losses in the folder.
    """
    rows: list[dict] = []
    before = last = 0.0
    for row in logged(run):
        if "loss" not in row:
            continue
        if row["seconds"] < last:  # resumed: the clock restarted
            before += last
        last = row["seconds"]
        rows = [earlier for earlier in rows if earlier["step"] < row["step"]]
        rows.append({**row, "hours": (before + last) / 3600})
    if not rows:
        raise RecipeError(f"{run / 'metrics.jsonl'} holds no losses yet")
    return rows


def draw(runs: Sequence[Path], target: Path) -> None:
    """Plot each part of the loss over the hours of all ``runs`` to a PNG or any other format of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    start, seen = 0.0, set()
    for run in runs:
        rows = read_metrics(run)
        axes.axvline(start, color="0.85", linewidth=0.8, zorder=0)
        axes.text(start, 1.01, " " + run.name, transform=axes.get_xaxis_transform(), rotation=30, fontsize=7)
        parts = [part for part in PARTS if any(f"loss_{part}" in row for row in rows)]
        for part, key in [(part, f"loss_{part}") for part in parts] or [("all", "loss")]:
            points = [(start + row["hours"], row[key]) for row in rows if key in row]
            colour = f"C{PARTS.index(part)}" if part in PARTS else "0.5"
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, label=None if part in seen else part)
            seen.add(part)
        start += rows[-1]["hours"]
    axes.set(xlabel="hours of training", ylabel="loss (nats)", yscale="log")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=110)
