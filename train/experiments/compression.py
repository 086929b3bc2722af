"""``python -m train.experiments.compression``: how many tokens a page needs, with each connector, at equal compute.

Pages are blocks of text on paper of 320 x 160 pixels, which nano's vision vocabulary turns into 400 features.
``linear`` and ``concatenation`` (behind a small CLIP, as in DeepSeek-OCR) come to fewer tokens by a smaller picture,
``resampler`` by fewer queries to all 400 features. All begin with nano's weights where they fit, and train on as many
batches as the same number of floating-point operations pays for. Finished runs are not repeated.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from data_tools.__main__ import main as data_tools
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset
from train.experiments.study import call
from train.model import build
from train.recipe import load_recipe
from train.run_folder import writing
from varytoy.data.samples import read_samples
from varytoy.models.config import read_preset
from varytoy.options import positive

PAGE = (320, 160)
SIDES = {64: (128, 64), 100: (160, 80), 256: (256, 128), 400: PAGE}
"""Tokens -> width and height of the picture that has so many features."""
CONNECTORS = ("linear", "concatenation", "resampler")
RECIPE = Path(__file__).with_name("recipes") / "compression.yaml"
_COUNTS = {"train": 6000, "test": 100}
_CLIP = {"model_type": "vary_serial_clip", "image_size": 160, "patch_size": 8, "width": 256, "layers": 2}
_LONGEST = 160
"""Tokens of an answer; the longest texts have 120 characters."""


@dataclass(frozen=True)
class Way:
    connector: str
    tokens: int

    @property
    def name(self) -> str:
        return f"{self.connector}-{self.tokens}"

    def preset(self) -> dict:
        """The preset of its model."""
        preset = read_preset("nano")
        preset |= {"clip_config": None, "clip_projection_size": 0, "letters": "", "connector": self.connector}
        width, height = PAGE
        pixels = preset["processor"]["image_processor"]
        if self.connector == "resampler":
            preset["connector_options"] = {"latents": self.tokens, "heads": 4}
            pixels["latents"] = self.tokens
        else:
            width, height = SIDES[self.tokens]
        if self.connector == "concatenation":
            preset["clip_config"] = _CLIP
        pixels |= {"mode": "squash", "size": [height, width], "clip_size": 0}
        return preset


WAYS = [Way(connector, tokens) for connector in CONNECTORS for tokens in SIDES]


def pages(folder: Path, source: Path, split: str) -> Path:
    """Samples of a split, made if they are not there: blocks that fit, on paper of one size."""
    out = folder / split
    if (out / "samples.jsonl").is_file():
        return out
    blocks = folder / f"{split}-blocks"
    words = ["render", "blocks", "--out", str(blocks), "--count", str(_COUNTS[split] * 2), "--seed", "20", "--resume"]
    words += ["--split", split, "--lines", "2-5", "--columns", "8-30", "--x-height", "8", "--plain"]
    if data_tools([*words, "--source", str(source)]):
        raise SystemExit(2)
    shutil.rmtree(out, ignore_errors=True)
    (out / "images").mkdir(parents=True)
    rows: list[str] = []
    for sample in read_samples(blocks):
        image = sample.open_images()[0]
        if len(rows) == _COUNTS[split] or len(sample.answer) > _LONGEST * 3 // 4:
            continue
        if image.width > PAGE[0] or image.height > PAGE[1]:
            continue
        paper = Image.new("L", PAGE, int(image.convert("L").getpixel((0, 0))))
        paper.paste(image.convert("L"), (0, 0))
        name = f"images/{len(rows):06d}.png"
        paper.save(out / name)
        row = {"id": sample.id, "task": "ocr", "messages": list(sample.messages), "images": [name]}
        rows.append(json.dumps(row, ensure_ascii=False))
    (out / "samples.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return out


def run(folder: Path, data: dict[str, Path], way: Way, seed: int, compute: float) -> dict[str, float]:
    """Train and evaluate one model, if that was not done: ``cer``, and the ``steps`` that the compute paid for.

    Args:
        compute: operations for the training, forward and backward.
    """
    out = folder / f"{way.name}-{seed}"
    score = out / "score.json"
    preset = folder / f"{way.name}.json"
    if not score.is_file():
        shutil.rmtree(out, ignore_errors=True)
        preset.write_text(json.dumps(way.preset()), encoding="utf-8")
        words = [
            f"model.preset={preset}",
            "model.clip=true",
            f"data.0.path={data['train']}",
            f"train.seed={seed}",
            f"output={out}",
        ]
        steps = max(round(compute / operations(words)), 1)
        call("run", str(RECIPE), *words, f"train.max_steps={steps}", f"train.save_steps={steps}")
        limit = ("--max-new-tokens", str(_LONGEST))
        call("evaluate", "--model", str(out), "--samples", str(data["test"]), *limit, "--write", str(score))
        table = json.loads(score.read_text(encoding="utf-8"))
        cer = next(value for name, value in table.items() if name.endswith("character error rate"))
        score.write_text(json.dumps({"cer": cer, "steps": steps}), encoding="utf-8")
    return json.loads(score.read_text(encoding="utf-8"))


def operations(overrides: Sequence[str]) -> int:
    """Floating-point operations of a training step of the recipe, counted on its first batch."""
    recipe = load_recipe(RECIPE, list(overrides))
    model, processor, _ = build(recipe)
    bad = BadSamples()
    samples = SampleDataset(recipe.data, recipe.train.seed, bad)
    first = [samples[number] for number in range(recipe.train.batch_size)]
    batch = Collator(processor, recipe.train.max_length, bad)(first)
    with FlopCounterMode(display=False) as counter:
        model.train()(**batch).loss.backward()
    return counter.get_total_flops()


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: the error of each connector and number of tokens, mean and each seed, and its steps."""
    lines = ["| connector | tokens | steps | CER, mean | each seed |", "|---|---|---|---|---|"]
    for way in WAYS:
        if rows := results[way.name]:
            errors = [row["cer"] for row in rows]
            each = ", ".join(f"{error:.3f}" for error in errors)
            mean, steps = sum(errors) / len(errors), round(rows[0]["steps"])
            lines.append(f"| {way.connector} | {way.tokens} | {steps} | {mean:.3f} | {each} |")
    return "\n".join(lines)


def draw(results: dict[str, list[dict[str, float]]], target: Path) -> None:
    """CER over tokens a page: a line for each connector through the means, a dot for each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, connector in enumerate(CONNECTORS):
        points = {way.tokens: [row["cer"] for row in results[way.name]] for way in WAYS if way.connector == connector}
        points = {tokens: errors for tokens, errors in points.items() if errors}
        means = [sum(errors) / len(errors) for errors in points.values()]
        axes.plot(list(points), means, color=f"C{number}", label=connector)
        dots = [(tokens, error) for tokens, errors in points.items() for error in errors]
        axes.plot(*zip(*dots, strict=True), ".", color=f"C{number}")
    axes.set(xlabel="image tokens a page", ylabel="character error rate, unseen pages", xscale="log")
    axes.set_xticks(list(SIDES), [str(tokens) for tokens in SIDES], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with writing(target):
        figure.savefig(target, dpi=110)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.compression", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/compression"))
    parser.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by data_tools fetch")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--compute", type=float, default=25e12, help="operations of each training (default: 25e12)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    data = {split: pages(options.folder / "data", options.source, split) for split in _COUNTS}
    results: dict[str, list[dict[str, float]]] = {way.name: [] for way in WAYS}
    for seed in range(1, options.seeds + 1):
        for way in WAYS:
            results[way.name].append(found := run(options.folder, data, way, seed, options.compute))
            print(f"{way.name:<20} seed {seed}: {found['cer']:.3f} after {found['steps']} steps", flush=True)
    print(table(results))
    draw(results, options.folder / "compression.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
