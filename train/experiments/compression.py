"""``python -m train.experiments.compression``: how many tokens a page needs, with each connector, at equal compute.

Pages are blocks of text on paper of 320 x 160 pixels, which nano's vision vocabulary turns into 400 features.
``linear`` and ``concatenation`` (behind a small CLIP, as in DeepSeek-OCR) come to fewer tokens by a smaller picture,
``resampler`` by fewer queries to all 400 features. First nano is trained on the pages at all four sizes, with its own
linear connector. Each model begins with these weights, and with that connector in its own (``beginning``); the vision
vocabulary is frozen, and the rest trains on as many batches as the same number of floating-point operations pays for.
Finished runs are not repeated.
"""

import argparse
import itertools
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

import varytoy
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset
from train.experiments.study import call, resuming
from train.model import build, freeze
from train.published import ROOT, save
from train.recipe import load_recipe
from train.rendering import render
from train.run_folder import writing
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.evaluation.provenance import provenance
from varytoy.evaluation.run_folder import replace_lines
from varytoy.models.config import read_preset
from varytoy.options import positive

PAGE = (320, 160)
SIDES = {64: (128, 64), 100: (160, 80), 256: (256, 128), 400: PAGE}
"""Tokens -> width and height of the picture that has so many features."""
CONNECTORS = ("linear", "concatenation", "resampler")
WHAT = "character error rate of pages by connector and image tokens, at equal compute"
PICTURE = ROOT / "docs" / "compression.png"
RECIPE = Path(__file__).with_name("recipes") / "compression.yaml"
_COUNTS = {"train": 6000, "test": 200}
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
            preset["connector_options"] = {"latents": self.tokens, "heads": 4, "normalize": False, "places": True}
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
    kind = ("blocks", "--lines", "2-5", "--columns", "8-30", "--x-height", "8", "--plain")
    if render(kind, blocks, _COUNTS[split] * 2, 20, split, source):
        raise SystemExit(2)
    _write(out, itertools.islice(_on_paper(read_samples(blocks)), _COUNTS[split]))
    return out


def _on_paper(samples: Iterable[Sample]) -> Iterator[tuple[Sample, Image.Image]]:
    """The blocks that are short enough and fit, each on paper of its own colour."""
    for sample in samples:
        image = sample.open_images()[0].convert("L")
        if len(sample.answer) > _LONGEST * 3 // 4 or image.width > PAGE[0] or image.height > PAGE[1]:
            continue
        paper = Image.new("L", PAGE, int(image.getpixel((0, 0))))
        paper.paste(image, (0, 0))
        yield sample, paper


def _write(out: Path, pages: Iterable[tuple[Sample, Image.Image]]) -> None:
    """Samples with other pictures, in a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "images").mkdir(parents=True)
    rows = []
    for number, (sample, image) in enumerate(pages):
        name = f"images/{number:06d}.png"
        image.save(out / name)
        rows.append({"id": sample.id, "task": "ocr", "messages": list(sample.messages), "images": [name]})
    replace_lines(out / "samples.jsonl", rows)


def start(folder: Path, data: Path, compute: float) -> Path:
    """The checkpoint that all models begin with, made if it is not there: nano after training on the pages at all four
    sizes."""
    out, run, sized = folder / "start", folder / "sizes", folder / "data" / "sizes"
    if (out / "model.safetensors").is_file():
        return out
    if not (sized / "samples.jsonl").is_file():
        sizes = itertools.cycle(SIDES.values())
        images = ((each, each.open_images()[0].convert("L")) for each in read_samples(data))
        _write(sized, ((each, image.resize(next(sizes), Image.Resampling.BICUBIC)) for each, image in images))
    words = [f"model.init=[{varytoy.NANO}]", "model.preset=", f"data.0.path={sized}", "freeze=[]", f"output={run}"]
    steps = max(round(compute / operations(words)), 1)
    call("run", str(RECIPE), *words, f"train.max_steps={steps}", *resuming(run))
    call("export", str(run), str(out))
    return out


def beginning(start: Path, out: Path, way: Way) -> Path:
    """The checkpoint ``start`` with its linear connector's projection in the connector of another way, so that all give
    the decoder what it knows: behind ``concatenation`` CLIP's half is zero, and a latent of ``resampler`` begins as the
    mean of what it is near to."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(start, out, ignore=shutil.ignore_patterns("formulas", "pictures"))
    weights = load_file(out / "model.safetensors")
    weight, bias = (weights.pop(f"connector.mm_projector_vary.{name}") for name in ("weight", "bias"))
    width = len(bias)
    zeros, identity = torch.zeros(width, width), torch.eye(width)
    if way.connector == "linear":
        own = {"mm_projector_vary.weight": weight, "mm_projector_vary.bias": bias}
    elif way.connector == "concatenation":
        own = {"proj.weight": torch.cat([torch.zeros(width, _CLIP["width"]), weight], 1), "proj.bias": bias}
    else:
        own = {"dense.weight": weight, "dense.bias": bias, "latent_query": torch.randn(way.tokens, width) * 0.02}
        for name, matrix in (("k_proj", zeros), ("v_proj", identity), ("out_proj", identity)):
            own |= {f"x_attn.{name}.weight": matrix, f"x_attn.{name}.bias": torch.zeros(width)}
    weights |= {f"connector.{name}": tensor.clone() for name, tensor in own.items()}
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    return out


def run(folder: Path, data: dict[str, Path], way: Way, seed: int, compute: float) -> dict[str, float]:
    """Train and evaluate one model, if that was not done: ``cer``, and the ``steps`` that the compute paid for.

    Args:
        data: ``train`` and ``test`` pages, and the checkpoint ``start``.
        compute: operations for the training, forward and backward.
    """
    out = folder / f"{way.name}-{seed}"
    score = folder / f"{out.name}.json"
    if not score.is_file():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        preset = out / "preset.json"
        preset.write_text(json.dumps(way.preset()), encoding="utf-8")
        torch.manual_seed(seed)
        first, model = beginning(data["start"], out / "beginning", way), out / "model"
        words = [f"model.preset={preset}", f"model.init=[{first}]", f"data.0.path={data['train']}"]
        words += ["model.clip=true", f"train.seed={seed}", f"output={model}"]
        steps = max(round(compute / operations(words)), 1)
        call("run", str(RECIPE), *words, f"train.max_steps={steps}", f"train.save_steps={steps}")
        limit = ("--max-new-tokens", str(_LONGEST))
        call(
            "evaluate",
            "--model",
            str(model),
            "--samples",
            str(data["test"]),
            *limit,
            "--write",
            str(out / "score.json"),
        )
        values = json.loads((out / "score.json").read_text(encoding="utf-8"))
        cer = next(value for name, value in values.items() if name.endswith("character error rate"))
        score.write_text(json.dumps({"cer": cer, "steps": steps}), encoding="utf-8")
        shutil.rmtree(out)
    return json.loads(score.read_text(encoding="utf-8"))


def operations(overrides: Sequence[str]) -> int:
    """Floating-point operations of a training step of the recipe, counted on its first batch."""
    recipe = load_recipe(RECIPE, list(overrides))
    model, processor, _ = build(recipe)
    freeze(model, recipe.freeze)
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


def to_json(results: dict[str, list[dict[str, float]]]) -> dict:
    """Connector -> tokens -> mean, lowest and highest error, that of each seed, and the steps of each training."""
    values: dict[str, dict] = {connector: {} for connector in CONNECTORS}
    for way in WAYS:
        errors, steps = [row["cer"] for row in results[way.name]], results[way.name][0]["steps"]
        mean = round(sum(errors) / len(errors), 4)
        about = {"cer": mean, "low": min(errors), "high": max(errors), "seeds": errors, "steps": steps}
        values[way.connector][str(way.tokens)] = about
    return values


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
    parser.add_argument("--compute", type=float, default=20e12, help="operations of each training (default: 20e12)")
    parser.add_argument("--start-compute", type=float, default=300e12, help="the same for what all begin with")
    parser.add_argument(
        "--publish", action="store_true", help="write the figures to train/results, the picture to docs"
    )
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    data = {split: pages(options.folder / "data", options.source, split) for split in _COUNTS}
    data["start"] = start(options.folder, data["train"], options.start_compute)
    results: dict[str, list[dict[str, float]]] = {way.name: [] for way in WAYS}
    for seed in range(1, options.seeds + 1):
        for way in WAYS:
            results[way.name].append(found := run(options.folder, data, way, seed, options.compute))
            print(f"{way.name:<20} seed {seed}: {found['cer']:.3f} after {found['steps']} steps", flush=True)
    print(table(results))
    draw(results, PICTURE if options.publish else options.folder / "compression.png")
    if options.publish:
        made = provenance("python -m train.experiments.compression", sys.argv[1:] if words is None else words)
        print(f"written to {save('compression', to_json(results), WHAT, 1, made)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
