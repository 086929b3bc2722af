"""``python -m train study``: does training converge, and what stands in its way? One thing changed at a time.

Each run is ``python -m train run`` with overrides and then ``python -m train evaluate`` on fresh pictures; what
is finished is not run again. The results, and what they do not say, are in study.md.
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

from train.curve import read_metrics
from train.recipe import RecipeError, load_recipe

RECIPE = Path(__file__).with_name("recipes") / "study.yaml"
_EIGHT_BIT = ("train.optimizer=adamw_bnb_8bit",)
_SIXTEEN = ("train.weights=bf16", *_EIGHT_BIT)
_TWO = (
    "data.0.path=data/study-two",
    "ctc.warmup_steps=0",
    "freeze=[vision_vocabulary]",
    "stage=sft",
    "train.learning_rate=1e-3",
)


@dataclass(frozen=True)
class Way:
    """One way to train: what differs from the recipe, on which samples it is measured, and in which panel it stands."""

    name: str
    panel: str
    overrides: tuple[str, ...] = ()
    test: str = "data/study-test"
    start: str = ""
    """The way whose model of the same seed this one goes on from."""


FROM_NOTHING, AGAIN = "8,000 samples from random weights", "2,000 samples of two lines, from the base's model"
WAYS = (
    Way("base", FROM_NOTHING),
    Way("ten-epochs-of-800", FROM_NOTHING, ("data.0.path=data/study-800", "train.epochs=10")),
    Way("800-ten-times-in-one", FROM_NOTHING, ("data.0.path=data/study-800", "data.0.share=10")),
    Way("no-warm-up", FROM_NOTHING, ("ctc.warmup_steps=0",)),
    Way("8-bit", FROM_NOTHING, _EIGHT_BIT),
    Way("full-8bit", FROM_NOTHING, (*_SIXTEEN, "train.in_backward=true", "train.clip_norm=0")),
    Way("16-bit-nearest", FROM_NOTHING, (*_SIXTEEN, "train.rounding=nearest")),
    Way("all-weights", AGAIN, _TWO, "data/study-two-test", "base"),
    Way("lora", AGAIN, (*_TWO, "lora.rank=16"), "data/study-two-test", "base"),
)
"""``full-8bit``: weights of 16 bits with steps rounded by chance, 8-bit AdamW inside backward."""


def study(folder: Path, seeds: int, jobs: int, say=print) -> dict[str, list[dict]]:
    """Run what is missing; way -> a row for each seed. Raises RecipeError where a run fails, with its last line."""
    ways = [(way, seed) for way in WAYS for seed in range(1, seeds + 1)]
    found: dict[str, list[dict]] = {way.name: [] for way in WAYS}
    with ThreadPoolExecutor(jobs) as pool:
        for wave in ([pair for pair in ways if not pair[0].start], [pair for pair in ways if pair[0].start]):
            for (way, seed), row in zip(wave, pool.map(lambda pair: _one(folder, *pair), wave), strict=True):
                say(f"{way.name:<22} seed {seed}: {row['cer']:.3f}")
                found[way.name].append(row)
    return found


def _one(folder: Path, way: Way, seed: int) -> dict[str, float]:
    """``cer`` on fresh pictures and ``loss`` at the end of a run, which is made if it is missing."""
    run = folder / f"{way.name}-{seed}"
    if not (run / "score.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        start = [f"model.init=[{folder / f'{way.start}-{seed}'}]"] if way.start else []
        _call("run", str(RECIPE), *way.overrides, *start, f"train.seed={seed}", f"output={run}")
        _call("evaluate", "--model", str(run), "--samples", way.test, "--write", str(run / "score.json"))
    score = json.loads((run / "score.json").read_text(encoding="utf-8"))
    cer = next(value for name, value in score.items() if name.endswith("character error rate"))
    return {"cer": cer, "loss": _last(run)}


def _last(run: Path) -> float:
    """The decoder's mean loss in the last tenth of the steps."""
    rows = [row["loss_text"] for row in read_metrics(run) if "loss_text" in row]
    tail = rows[-max(len(rows) // 10, 1) :]
    return sum(tail) / len(tail)


def _call(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RecipeError(f"python -m train {' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")


def report(found: dict[str, list[dict]]) -> str:
    """A table in markdown: character error rate on fresh pictures, seed by seed, and the loss on what was trained."""
    rows = ["| way | CER on fresh pictures, each seed | mean | training loss at the end |", "|---|---|---|---|"]
    for name, runs in found.items():
        errors = [row["cer"] for row in runs]
        loss = sum(row["loss"] for row in runs) / len(runs)
        each = ", ".join(f"{error:.3f}" for error in errors)
        rows.append(f"| {name} | {each} | {sum(errors) / len(errors):.3f} | {loss:.3f} |")
    return "\n".join(rows)


def draw(folder: Path, seeds: int, target: Path) -> None:
    """The decoder's loss over the samples seen: the mean of the seeds, and the band between them."""
    from matplotlib.figure import Figure

    batch = load_recipe(RECIPE).train.batch_size
    panels = list(dict.fromkeys(way.panel for way in WAYS))
    figure = Figure(figsize=(12, 5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for number, way in enumerate(way for way in WAYS if way.panel == panel):
            steps, lines = _lines([folder / f"{way.name}-{seed}" for seed in range(1, seeds + 1)])
            middle = [sum(values) / len(values) for values in lines]
            seen = [step * batch for step in steps]
            axes.plot(seen, middle, color=f"C{number}", linewidth=1.2, label=way.name)
            axes.fill_between(seen, list(map(min, lines)), list(map(max, lines)), color=f"C{number}", alpha=0.15)
        axes.set(title=panel, xlabel="samples seen", ylabel="loss of the text (nats a token)", yscale="log")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(frameon=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)


def _lines(runs: Sequence[Path]) -> tuple[list[int], list[list[float]]]:
    """Steps at which every run has a loss of the text, and these losses."""
    losses = [{row["step"]: row["loss_text"] for row in read_metrics(run) if "loss_text" in row} for run in runs]
    steps = sorted(set.intersection(*map(set, losses)))
    return steps, [[found[step] for found in losses] for step in steps]
