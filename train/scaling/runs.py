"""What a folder of ``python -m train run`` says of the size of its data.

- n: distinct samples that training showed, of all sources that are not replayed (``runs.jsonl``): copies (``share``
  above 1) and further epochs do not count, nor does what a run ended before. Samples that could not be opened do.
- loss: the mean of the last tenth of ``loss_text`` in ``metrics.jsonl``, in nats a token. It is the training loss: runs
  log no other. If no sample was shown twice, each batch was new to the model and the loss stands for unseen data;
  otherwise it measures memory too, and is left out.
- score: of the last evaluation (``train.evaluate_steps``), which must be in the last tenth of the steps: the mean of
  its tasks, error rates as 1 - rate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from train.experiments.curve import last_tenth, logged, read_metrics
from train.recipe import RecipeError, flatten
from train.run_folder import MAY_CHANGE, last_start
from varytoy.tasks import TASKS

_NO_SCORE = ("eval_samples", "eval_failed", "eval_seconds")
CURE = "train with train.evaluate_on=SAMPLES and train.evaluate_steps that divides the number of steps"
"""How a run gets a score."""
_SIZE = ("path", "share", "cap")
"""Settings of a source that make it larger or smaller."""
_PLAIN = {"weight": 0, "turns": 1, "mirror": False}
"""Settings with which the recorded number of samples counts repeated, joined or mirrored ones; those without effect."""
_BY_HAND = "give n, seed, loss, score of the runs in a CSV file"


@dataclass
class Run:
    """A finished run; ``no_loss`` says why its loss does not count."""

    folder: Path
    n: int
    seed: int
    loss: float | None
    no_loss: str
    score: float | None
    metrics: list[str]
    settings: dict[str, object] = field(repr=False)


def read_run(folder: Path) -> Run:
    """Raises RecipeError, naming the file and the cure, if the folder does not hold what is needed."""
    start = last_start(folder)
    if not start:
        raise RecipeError(f"{folder / 'runs.jsonl'} is missing or damaged: give the output folder of a run")
    last = logged(folder)[-1]
    if "train_runtime" not in last:
        raise RecipeError(f"{folder / 'metrics.jsonl'} ends before the run did: finish it with --resume")
    try:
        n, shown = _samples(folder, start, last["epoch"])
        settings = flatten(start["recipe"])
        seed = settings["train.seed"]
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{folder / 'runs.jsonl'} lacks what a run writes there ({error}): {_BY_HAND}") from error
    loss, no_loss = None, ""
    if shown > n:
        no_loss = (
            f"{folder} showed its {n:,} samples {shown / n:.4g} times on average, so its training loss says what was "
            "memorised"
        )
    else:
        losses = [row["loss_text"] for row in read_metrics(folder) if "loss_text" in row]
        loss = last_tenth(losses) if losses else None
    scores = _scores(folder, last["step"])
    score = math.fsum(scores.values()) / len(scores) if scores else None
    return Run(folder, n, seed, loss, no_loss, score, sorted(scores), settings)


def _samples(folder: Path, start: dict, epoch: float) -> tuple[int, int]:
    """Distinct samples that were shown, and with those that were shown again."""
    distinct = shown = 0
    where, paths = folder / "runs.jsonl", set[str]()
    for row, source in zip(start["data"], start["recipe"]["data"], strict=True):
        if source.get("replay"):
            continue
        unclear = [f"{name}={source[name]}" for name, plain in _PLAIN.items() if source.get(name, plain) != plain]
        if row["path"] in paths:
            unclear.append("a second source of the same folder")
        if unclear:
            raise RecipeError(
                f"{where} does not tell how many samples of {row['path']} are distinct, with {unclear[0]}: {_BY_HAND}"
            )
        paths.add(row["path"])
        all_shown = round(row["samples"] * epoch)
        distinct += min(round(row["samples"] / max(source.get("share", 1), 1)), all_shown)
        shown += all_shown
    return distinct, shown


def _scores(folder: Path, steps: int) -> dict[str, float]:
    """Metric -> score of the last evaluation, of which more is better."""
    rows = [row for row in logged(folder) if "eval_samples" in row]
    if not rows:
        return {}
    last = rows[-1]
    if last["step"] < steps * 0.9:
        raise RecipeError(
            f"{folder / 'metrics.jsonl'}: its last evaluation is at step {last['step']} of {steps}: {CURE}"
        )
    scores = {}
    for name, value in last.items():
        if name.startswith("eval_") and name not in _NO_SCORE and not name.endswith("_cut_at_the_limit"):
            task = TASKS[name.removeprefix("eval_").partition("_")[0]]
            scores[name] = 1 - value if task.is_error else value
    return scores


def compare_settings(runs: Sequence[Run], say: Callable[[str], None]) -> None:
    """``say`` which settings differ beside the data, the seed and the length.

    Raises:
        RecipeError: the scores are not of the same metrics.
    """
    if not runs:
        return
    first = runs[0]
    other = next((run for run in runs if run.metrics != first.metrics), None)
    if other:
        names = [", ".join(run.metrics) or "no score" for run in (first, other)]
        raise RecipeError(
            f"{first.folder} has {names[0]}, {other.folder} has {names[1]}: ask all runs the same samples, "
            "train.evaluate_on=SAMPLES"
        )
    for key, value in first.settings.items():
        source = key.startswith("data.") and key.rpartition(".")[2] in _SIZE
        if source or key in MAY_CHANGE or key in ("train.seed", "features"):
            continue
        different = next((run for run in runs if run.settings.get(key, value) != value), None)
        if different:
            say(
                f"note: {key} differs too ({value} in {first.folder}, {different.settings[key]} in {different.folder})"
                ": the size of the data is not the only cause"
            )
