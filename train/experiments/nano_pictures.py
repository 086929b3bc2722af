"""``python -m train.experiments.nano_pictures PHOTOS OUT``: nano's part for pictures from nothing, in one command.

PHOTOS holds ``train.jsonl`` and ``dev.jsonl`` (photographs as ``data_tools entities`` takes them) with their images in
``train/`` and ``dev/``. Steps whose result is there are skipped; an interrupted training is resumed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from data_tools.__main__ import main as data_tools
from train.__main__ import main as train
from train.experiments.average import main as average
from train.experiments.study import resuming
from varytoy.options import positive

STAGES = ("first", "second", "third", "fourth", "fifth")
PARTS = {"pictures-3": 0.5, "pictures-4": 0.25, "captions": 0.25}
"""Run -> weight in the mean that is shipped."""
RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "nano"


def steps(options: argparse.Namespace) -> list[tuple[Path, Callable[[], int]]]:
    """(result, command) in order; a command returns its exit code."""
    photos, out, suffix = options.photos, options.out, options.suffix
    data, runs = out / "data", out / "runs"
    sources, pieces, features = data / "sources", data / "pieces", data / "features"
    net = sources / "image_nets" / "tf_efficientnet_lite0"
    folders = ("train", "text", "scenes", "train", "train", "train")  # as the recipes' data are ordered
    cached = f"features={features}"
    first = ["pictures.yaml", f"model.init=[{net}]", f"model.tokenizer={pieces}", cached]
    second = ["pictures-2.yaml", f"model.init=[{runs / 'pictures'}]", cached]
    third = ["pictures-3.yaml", f"model.init=[{runs / 'pictures-2'}]"]
    fourth = ["pictures-4.yaml", f"model.init=[{runs / 'pictures-3'}]"]
    fifth = ["captions.yaml", f"model.init=[{runs / 'pictures-4'}]"]
    for stage, words in zip(STAGES, (first, second, third, fourth, fifth), strict=True):
        own = {"fourth": folders, "fifth": ("train", "text", "train")}.get(stage, folders[:5])
        words += [f"data.{number}.path={data / folder}" for number, folder in enumerate(own)]
        words += _own(stage, options.overrides)

    def out_of(folder: str) -> list[str]:
        return ["--out", str(data / folder)]

    def photographs(split: str, *options: str) -> Callable[[], int]:
        images = ["--images", str(photos / split), "--suffix", suffix, "--resume"]
        return lambda: data_tools(
            ["entities", "--annotations", str(photos / f"{split}.jsonl"), *out_of(split), *images, *options]
        )

    def trained(recipe: str, *words: str) -> Callable[[], int]:
        run = runs / Path(recipe).stem
        resume = resuming(run)
        return lambda: train(["run", str(RECIPES / recipe), f"output={run}", *words, *resume])

    def rendered(kind: str, folder: str, count: int) -> Callable[[], int]:
        return lambda: data_tools(["render", kind, *out_of(folder), "--count", str(count), "--seed", "11", *source])

    source = ["--source", str(sources), "--resume"]
    parts = [f"{runs / run}={weight}" for run, weight in PARTS.items()]
    samples = [str(data / folder) for folder in ("train", "text", "scenes")]
    return [
        (net / "model.safetensors", lambda: data_tools(["fetch", "--out", str(sources)])),
        (data / "train" / "samples.jsonl", photographs("train", "--presence", "2")),
        (data / "dev" / "samples.jsonl", photographs("dev", "--evaluate")),
        (data / "text" / "samples.jsonl", rendered("text-pictures", "text", options.text_count)),
        (data / "scenes" / "samples.jsonl", rendered("scenes", "scenes", options.scene_count)),
        (pieces / "tokenizer.json", lambda: data_tools(["tokenizer", "--out", str(pieces), *samples, "--bins", "64"])),
        (features / "index.json", lambda: train(["features", str(RECIPES / first[0]), *first[1:]])),
        (runs / "pictures" / "model.safetensors", trained(*first)),
        (runs / "pictures-2" / "model.safetensors", trained(*second)),
        (runs / "pictures-3" / "model.safetensors", trained(*third)),
        (runs / "pictures-4" / "model.safetensors", trained(*fourth)),
        (runs / "captions" / "model.safetensors", trained(*fifth)),
        (runs / "mean" / "model.safetensors", lambda: average([str(runs / "mean"), *parts])),
        (out / "model" / "model.safetensors", lambda: train(["export", str(runs / "mean"), str(out / "model")])),
    ]


def _own(stage: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of all trainings, and those of ``stage``."""
    of_all = [each for each in overrides if not each.startswith(tuple(f"{name}:" for name in STAGES))]
    return of_all + [each.removeprefix(f"{stage}:") for each in overrides if each.startswith(f"{stage}:")]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.nano_pictures", description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for all trainings; for one of them with first:, second: … fifth: in front",
    )
    parser.add_argument("--suffix", default=".webp", help="of the photographs' names")
    parser.add_argument("--text-count", type=positive, default=400, help="pictures of text")
    parser.add_argument("--scene-count", type=positive, default=8000, help="rendered scenes")
    options = parser.parse_intermixed_args(words)
    for result, command in steps(options):
        if result.exists():
            print(f"{result} is there")
        elif command():
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
