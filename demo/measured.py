"""Measured quality of a model: ``evaluation.json`` (metric -> number) beside its weights, and for pictures the table of
``train evaluate --samples … --baselines …`` in ``pictures/evaluation.json``."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download

READING = "block CER"
PICTURES = {
    "detect": "detection F1 at IoU 0.5",
    "ground": "grounding accuracy at IoU 0.5",
    "caption": "captions: objects named",
    "vqa": "questions right",
    "chat": "questions right",
}
BLANK = ", blank picture"
"""Suffix of a metric measured with blank images, which shows what guessing achieves."""
TABLE = "pictures/evaluation.json"
_GUESSES = ("blank", "off", "question only", "fixed")
LEAST = 0.2
_ABOVE = 0.05
"""A score must be so much above that of guesses."""


@dataclass(frozen=True)
class Measured:
    """``figures``: metric -> number; ``pictures``: kind of question about pictures -> the scores of the model and of
    guesses. Empty if nothing was measured."""

    figures: dict[str, float] = field(default_factory=dict)
    pictures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def known_error(self) -> str:
        """How well the model reads, for a user; empty if it was not measured."""
        rate = self.figures.get(READING, 0.0)
        if rate <= 0:
            return ""
        return f"misreads about 1 character in {max(round(1 / rate), 1):,} of clean print"

    def scores(self, task: str) -> tuple[float, float] | None:
        """The model's score in a task about pictures and that of guesses, each the mean over the kinds of questions;
        None if it was not measured."""
        kind = "vqa" if task == "chat" else task
        rows = [row for name, row in self.pictures.items() if name.split(":")[0] == kind]
        if rows:
            guesses = [max((row[name] for name in _GUESSES if name in row), default=0.0) for row in rows]
            return sum(row["model"] for row in rows) / len(rows), sum(guesses) / len(rows)
        metric = PICTURES.get(task, "")
        if metric not in self.figures:
            return None
        return self.figures[metric], self.figures.get(metric + BLANK, 0.0)

    def is_experimental(self, task: str) -> bool:
        """Whether the task's score is below ``LEAST`` or hardly above guessing, so that its answers are unreliable.
        False if it was not measured."""
        scores = self.scores(task)
        return scores is not None and scores[0] < max(LEAST, scores[1] + _ABOVE)

    def warning(self, task: str) -> str:
        """Warning for users who choose an experimental task; empty for the others."""
        scores = self.scores(task)
        if scores is None or not self.is_experimental(task):
            return ""
        return f"Experimental: this model scores {scores[0]:.0%} in tests of this, so do not rely on its answers."


def measured(model: str) -> Measured:
    """Figures of the embedded model (``nano``), a folder or a hub id; empty if they are missing or unreadable."""
    figures = {name: float(value) for name, value in _read(model, "evaluation.json").items() if _is_figure(value)}
    table = {}
    for kind, row in _read(model, TABLE).items():
        if isinstance(row, dict) and _is_figure(row.get("model")):
            table[kind] = {name: float(value) for name, value in row.items() if _is_figure(value)}
    return Measured(figures, table)


def _read(model: str, name: str) -> dict:
    """A JSON object beside a model; empty if it is missing or unreadable."""
    try:
        content = json.loads(_file(model, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_figure(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _file(model: str, name: str) -> Path:
    """Path of a file beside a model. Raises OSError or ValueError if there is none."""
    folder = Path(str(files("varytoy") / "nano")) if model == "nano" else Path(model)
    if model == "nano" or folder.exists():
        return folder / name
    return Path(hf_hub_download(model, name))
