"""Measured quality of a model: ``evaluation.json`` (metric -> number, as ``train evaluate`` names them)."""

import json
import math
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
LEAST = 0.2


@dataclass(frozen=True)
class Measured:
    """``figures``: metric -> number; empty if nothing was measured."""

    figures: dict[str, float] = field(default_factory=dict)

    def known_error(self) -> str:
        """How well the model reads, for a user; empty if it was not measured."""
        rate = self.figures.get(READING, 0.0)
        if rate <= 0:
            return ""
        return f"misreads about 1 character in {max(round(1 / rate), 1):,} of clean print"

    def is_experimental(self, task: str) -> bool:
        """Whether the task's score is below ``LEAST`` or hardly above guessing, so that its answers are unreliable.
        False if it was not measured."""
        metric = PICTURES.get(task, "")
        figure = self.figures.get(metric)
        return figure is not None and figure < max(LEAST, self.figures.get(metric + BLANK, 0.0) + 0.05)

    def warning(self, task: str) -> str:
        """Warning for users who choose an experimental task; empty for the others."""
        if not self.is_experimental(task):
            return ""
        score = self.figures[PICTURES[task]]
        return f"Experimental: this model scores {score:.0%} in tests of this, so do not rely on its answers."


def measured(model: str) -> Measured:
    """Figures of the embedded model (``nano``), a folder or a hub id; empty if they are missing or unreadable."""
    try:
        content = json.loads(_evaluation(model).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Measured()
    rows = content.items() if isinstance(content, dict) else ()
    return Measured({name: float(value) for name, value in rows if _is_figure(value)})


def _is_figure(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _evaluation(model: str) -> Path:
    """Path of the evaluation. Raises OSError or ValueError if there is none."""
    folder = Path(str(files("varytoy") / "nano")) if model == "nano" else Path(model)
    if model == "nano" or folder.exists():
        return folder / "evaluation.json"
    return Path(hf_hub_download(model, "evaluation.json"))
