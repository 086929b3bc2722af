"""``python -m train study``: an ablation of training convergence, one change at a time.

Each run is ``python -m train run`` with overrides and then ``python -m train evaluate`` on unseen images; finished runs
are not repeated. The results and their limits are in study.md.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from train.experiments.curve import last_tenth, read_metrics
from train.recipe import RecipeError, load_recipe
from train.run_folder import writing

RECIPES = Path(__file__).with_name("recipes")
_TWO = ("data.0.path=data/study-two", "train.learning_rate=3e-4", "objectives.guide.weight=0")
_SIXTEEN = (
    *_TWO,
    "train.weights=bf16",
    "train.precision=fp32",
    "train.optimizer=adamw_bnb_8bit",
    "train.in_backward=true",
    "train.clip_norm=0",
)


@dataclass(frozen=True)
class Way:
    """One training variant: its overrides of the recipe, its test samples and its panel in the plot."""

    name: str
    panel: str
    overrides: tuple[str, ...] = ()
    test: str = "data/study-test"
    recipe: str = "study.yaml"
    start: str = ""
    """The variant whose model of the same seed this one starts from."""


READING = "a decoder learns to read: 8,000 samples"
NUMBERS = "all from random weights: 12,800 numbers"
AGAIN = "the base learns two lines: 4,800 samples"
_NUMBERS = {"test": "data/study-digits-test", "recipe": "study-letters.yaml"}
_AGAIN = {"test": "data/study-two-test", "start": "base"}
WAYS = (
    Way("base", READING),
    Way("ten-epochs-of-800", READING, ("data.0.path=data/study-800", "train.epochs=10")),
    Way("800-ten-times-in-one", READING, ("data.0.path=data/study-800", "data.0.share=10")),
    Way("warm-up", NUMBERS, **_NUMBERS),
    Way("no-warm-up", NUMBERS, ("train.heads_warmup=0",), **_NUMBERS),
    Way("fp32-adamw", AGAIN, _TWO, **_AGAIN),
    Way("full-8bit", AGAIN, _SIXTEEN, **_AGAIN),
    Way("16-bit-nearest", AGAIN, (*_SIXTEEN, "train.rounding=nearest"), **_AGAIN),
    Way("lora", AGAIN, (*_TWO, "train.learning_rate=1e-3", "lora.rank=16"), **_AGAIN),
)
"""``full-8bit``: weights of 16 bits with steps rounded stochastically, 8-bit AdamW inside backward."""


def study(folder: Path, seeds: int, jobs: int, log=print) -> dict[str, list[dict]]:
    """Run what is missing; name -> a row per seed. Raises RecipeError if a run fails, with its last line of output."""
    ways = [(way, seed) for way in WAYS for seed in range(1, seeds + 1)]
    results: dict[str, list[dict]] = {way.name: [] for way in WAYS}
    with ThreadPoolExecutor(jobs) as pool:
        for wave in ([pair for pair in ways if not pair[0].start], [pair for pair in ways if pair[0].start]):
            for (way, seed), row in zip(wave, pool.map(lambda pair: _one(folder, *pair), wave), strict=True):
                log(f"{way.name:<22} seed {seed}: {row['cer']:.3f}")
                results[way.name].append(row)
    return results


def _one(folder: Path, way: Way, seed: int) -> dict[str, float]:
    """``cer`` on unseen images, share of ``endless`` answers and final ``loss`` of a run; trains it if missing."""
    run = folder / f"{way.name}-{seed}"
    score = run / "score.json"
    if not score.is_file():
        shutil.rmtree(run, ignore_errors=True)
        start = [f"model.init=[{folder / f'{way.start}-{seed}'}]"] if way.start else []
        call("run", str(RECIPES / way.recipe), *way.overrides, *start, f"train.seed={seed}", f"output={run}")
        call("evaluate", "--model", str(run), "--samples", way.test, "--max-new-tokens", "32", "--write", str(score))
    table = json.loads(score.read_text(encoding="utf-8"))
    ends = {"cer": "character error rate", "endless": "cut at the limit"}
    figures = {key: next(value for name, value in table.items() if name.endswith(end)) for key, end in ends.items()}
    return {**figures, "loss": _last(run)}


def _last(run: Path) -> float:
    """The decoder's mean loss in the last tenth of the steps."""
    return last_tenth([row["loss_text"] for row in read_metrics(run) if "loss_text" in row])


def resuming(run: Path) -> list[str]:
    """The words that resume a run, if it has been begun."""
    return ["--resume"] if any(run.glob("checkpoint-*")) else []


def call(*arguments: str) -> None:
    """Run ``python -m train`` on one thread. Raises RecipeError with its last line if it fails."""
    process = subprocess.run(
        [sys.executable, "-m", "train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RecipeError(
            f"python -m train {' '.join(arguments)}: {(process.stderr.strip().splitlines() or ['?'])[-1]}"
        )


def report(results: dict[str, list[dict]]) -> str:
    """A markdown table: character error rate on unseen images for each seed, and the training loss."""
    rows = ["| way | CER on fresh pictures, each seed | mean | endless answers | training loss at the end |"]
    rows.append("|---|---|---|---|---|")
    for name, runs in results.items():
        errors = [row["cer"] for row in runs]
        loss, endless = (sum(row[key] for row in runs) / len(runs) for key in ("loss", "endless"))
        each = ", ".join(f"{error:.3f}" for error in errors)
        rows.append(f"| {name} | {each} | {sum(errors) / len(errors):.3f} | {endless:.3f} | {loss:.3f} |")
    return "\n".join(rows)


def draw(folder: Path, seeds: int, target: Path) -> None:
    """Plot the decoder's loss over the samples seen: the mean of the seeds, and their range."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(way.panel for way in WAYS))
    figure = Figure(figsize=(16, 5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for number, way in enumerate(way for way in WAYS if way.panel == panel):
            steps, lines = _lines([folder / f"{way.name}-{seed}" for seed in range(1, seeds + 1)])
            mean = [sum(values) / len(values) for values in lines]
            batch = load_recipe(RECIPES / way.recipe).train.batch_size
            seen = [step * batch for step in steps]
            axes.plot(seen, mean, color=f"C{number}", linewidth=1.2, label=way.name)
            axes.fill_between(seen, list(map(min, lines)), list(map(max, lines)), color=f"C{number}", alpha=0.15)
        axes.set(title=panel, xlabel="samples seen", ylabel="loss of the text (nats a token)", yscale="log")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=110)


def _lines(runs: Sequence[Path]) -> tuple[list[int], list[list[float]]]:
    """Steps at which every run has logged a text loss, and these losses."""
    losses = [{row["step"]: row["loss_text"] for row in read_metrics(run) if "loss_text" in row} for run in runs]
    steps = sorted(set.intersection(*map(set, losses)))
    return steps, [[by_step[step] for by_step in losses] for step in steps]
