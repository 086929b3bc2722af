"""``python -m train.drawing``: erasing, replacing and writing words, on rendered pairs with held-out fonts, texts and
backgrounds.

Two independent readers, Tesseract and RapidOCR, say what stands in each picture; neither trains or chooses anything.
Beside the model stand the true pictures, the model with other samples' words, an empty place, and what needs no model:
OpenCV's inpainting, and the wanted words in the nearest font.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from data_tools.assets import languages
from data_tools.render.themes import number_of
from train.published import save
from train.rendering import render
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.data.tesseract import read_word
from varytoy.evaluation.metric import Mean, interval
from varytoy.evaluation.metrics.pictures import likeness
from varytoy.evaluation.provenance import provenance
from varytoy.extras import require
from varytoy.inference.drawing import Drawer
from varytoy.inference.read import complain
from varytoy.inference.reader import Reader
from varytoy.models.image_decoder import mask_of
from varytoy.options import positive
from varytoy.tasks.metrics import normalise, normalised_edit_distance

WHAT = "Erasing, replacing and writing words on rendered pairs with held-out fonts, texts and backgrounds."
METHODS = {
    "erase": ("true", "model", "telea", "navier-stokes", "untouched"),
    "edit": ("true", "model", "permuted", "blank", "nearest font"),
    "generate": ("true", "model", "permuted", "blank"),
}
_AROUND = 4
"""Pixels around the place that readers see too."""
_REMAINS = 0.5
"""Similarity of what is read to the old text from which that counts as left over."""
_FONTS = 24
"""Fonts among which the nearest is looked for."""
_MEAN = Mean("mean", lambda prediction, case: 0.0)


def measure(
    source: Path, out: Path, drawer: Drawer, count: int = 500, seed: int = 41, photographs: Path | None = None,
    words: Sequence[str] = (),
) -> int:  # fmt: skip
    """Render, draw and read; what is finished in ``out`` is kept.

    Args:
        source: folder filled by ``data_tools fetch``.
        count: pairs; each is erased, edited and written.
        words: of the command line, to publish the figures.

    Returns:
        The exit code.
    """
    samples, kind = out / "samples", ["word-pairs"]
    if photographs is not None:
        kind += ["--photographs", str(photographs)]
    if code := render(kind, samples, count, seed, "test", source):
        return code
    found = list(read_samples(samples))
    rows = list(_rows(found, source, drawer, out / "rows.jsonl", seed))
    values = figures(rows)
    print(table(values))
    if words:
        print(f"written to {save('drawing', values, WHAT, seed, provenance('python -m train.drawing', words))}")
    return 0


def _rows(samples: Sequence[Sample], source: Path, drawer: Drawer, file: Path, seed: int) -> Iterable[dict]:
    """What the readers and the measures say of each sample and method; kept in a file."""
    known: dict[tuple[str, str], dict] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            known[row["id"], row["method"]] = row
    others = _permuted(samples, seed)
    read = {"tesseract": cache(_tesseract), "rapidocr": cache(_rapidocr())}
    with file.open("a", encoding="utf-8") as lines:
        for sample in tqdm(samples, desc="drawing"):
            for method in METHODS[sample.task]:
                row = known.get((sample.id, method))
                if row is None:
                    picture = _draw(sample, method, drawer, others[sample.id], source)
                    row = _row(sample, method, picture, read)
                    lines.write(json.dumps(row) + "\n")
                    lines.flush()
                yield row


def _permuted(samples: Sequence[Sample], seed: int) -> dict[str, str]:
    """Id of a sample -> the words of another of its task."""
    others: dict[str, str] = {}
    for task in METHODS:
        own = [sample for sample in samples if sample.task == task]
        words = [sample.annotations.wanted_text for sample in own]
        turn = random.Random(f"{seed}:{task}").randrange(1, max(len(own), 2))
        others |= {sample.id: words[(n + turn) % len(own)] for n, sample in enumerate(own)}
    return others


def _draw(sample: Sample, method: str, drawer: Drawer, other: str, source: Path) -> Image.Image:
    picture, targets = sample.open_images()[0], sample.open_target_images()
    box = sample.boxes[0].to_pixels(*picture.size)
    if method == "true":
        return targets[0]
    if method == "untouched":
        return picture
    if method in ("telea", "navier-stokes"):
        return inpainted(picture, box, method)
    if method == "blank":
        return inpainted(picture, box, "telea") if sample.task == "edit" else picture
    if method == "nearest font":
        return pasted(picture, box, sample.annotations.plain_text or "", sample.annotations.wanted_text, source)
    words = other if method == "permuted" else sample.annotations.wanted_text
    return drawer.draw(picture, sample.task, box, words)


def _row(sample: Sample, method: str, picture: Image.Image, read: Mapping[str, Callable]) -> dict:
    target = sample.open_target_images()[0]
    box = sample.boxes[0].to_pixels(*picture.size)
    x1, y1, x2, y2 = (round(side) for side in box)
    mask = mask_of(box, picture.size)[0].numpy() > 0
    around = (x1 - _AROUND, y1 - _AROUND, x2 + _AROUND, y2 + _AROUND)
    place = picture.crop(
        (max(around[0], 0), max(around[1], 0), min(around[2], picture.width), min(around[3], picture.height))
    )
    said = {name: reader(place.size, place.tobytes()) for name, reader in read.items()}
    alike = asdict(likeness(np.asarray(picture), np.asarray(target), mask))
    texts = {"old": sample.annotations.plain_text or "", "wanted": sample.annotations.wanted_text}
    about = {"id": sample.id, "task": sample.task, "method": method, "font": sample.metadata.get("font", "")}
    return about | texts | {"read": said} | {name: min(value, 99.0) for name, value in alike.items()}


# ---- readers ----


def _tesseract(size: tuple[int, int], pixels: bytes) -> str:
    image = Image.frombytes("RGB", size, pixels)
    return read_word(image.resize((2 * size[0], 2 * size[1]), Image.Resampling.BICUBIC))


def _rapidocr() -> Callable[[tuple[int, int], bytes], str]:
    from varytoy.evaluation.systems.rapidocr import RapidOcr

    recognise = RapidOcr().recognise
    return lambda size, pixels: recognise(Image.frombytes("RGB", size, pixels))


# ---- what needs no model ----


def inpainted(picture: Image.Image, box: Sequence[float], method: str) -> Image.Image:
    """OpenCV's inpainting of a box, ``telea`` or ``navier-stokes``."""
    import cv2

    mask = mask_of(box, picture.size)[0].numpy().astype(np.uint8)
    kind = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
    return Image.fromarray(cv2.inpaint(np.asarray(picture), mask, 3, kind))


def pasted(picture: Image.Image, box: Sequence[float], old: str, new: str, source: Path) -> Image.Image:
    """The wanted words on the inpainted place, in the colour of the old ones and in the font of the training's in which
    the old ones look most like them."""
    clean = inpainted(picture, box, "telea")
    difference = np.abs(np.asarray(picture, float) - np.asarray(clean, float)).max(2)
    fonts = languages.fonts(source, "train", languages.ENGLISH)
    chosen = fonts[:: max(len(fonts) // _FONTS, 1)]
    near = max(chosen, key=lambda font: float((_lettered(old, font, box, picture.size) * difference).sum()))
    letters = _lettered(new, near, box, picture.size)
    inside = _lettered(old, near, box, picture.size) * (difference > np.percentile(difference, 90)) > 0.5
    colour = np.median(np.asarray(picture, float)[inside], 0) if inside.any() else np.zeros(3)
    mixed = np.asarray(clean, float) * (1 - letters[..., None]) + colour * letters[..., None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _lettered(text: str, font, box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """[H, W], 0 to 1: a text that fills a box."""
    x1, y1, x2, y2 = box
    letters = ImageFont.truetype(font.path, 0.7 * (y2 - y1), index=number_of(font))
    wide = letters.getlength(text)
    if wide > 0.96 * (x2 - x1):
        letters = ImageFont.truetype(
            font.path, max(0.7 * (y2 - y1) * 0.96 * (x2 - x1) / wide, 4), index=number_of(font)
        )
    layer = Image.new("L", size)
    ImageDraw.Draw(layer).text(((x1 + x2) / 2, (y1 + y2) / 2), text, 255, letters, anchor="mm")
    return np.asarray(layer, float) / 255


# ---- figures ----


def figures(rows: Sequence[Mapping]) -> dict[str, dict]:
    """Task -> method -> figure -> mean with its 95 % interval."""
    values: dict[str, dict] = {}
    for task, methods in METHODS.items():
        for method in methods:
            own = [row for row in rows if row["task"] == task and row["method"] == method]
            if own:
                values.setdefault(task, {})[method] = _figures(own)
    return values


def _figures(rows: Sequence[Mapping]) -> dict[str, dict]:
    columns = {name: [row[name] for row in rows] for name in ("psnr", "ssim", "age", "p_eps", "p_ceps")}
    for reader in rows[0]["read"]:
        said = [row["read"][reader] for row in rows]
        if rows[0]["task"] == "erase":
            left = [_similar(text, row["old"]) >= _REMAINS for text, row in zip(said, rows, strict=True)]
            columns[f"{reader}: text left"] = left
        else:
            pairs = list(zip(said, rows, strict=True))
            columns[f"{reader}: words right"] = [normalise(text) == normalise(row["wanted"]) for text, row in pairs]
            columns[f"{reader}: similarity"] = [_similar(text, row["wanted"]) for text, row in pairs]
    found = {name: _interval(np.array(values, float)) for name, values in columns.items()}
    return found | {"count": {"value": len(rows)}}


def _similar(text: str, true: str) -> float:
    return 1 - normalised_edit_distance(text, true) if text else 0.0


def _interval(values: np.ndarray) -> dict[str, float]:
    rows = np.stack([values, np.ones_like(values)], 1)
    low, high = interval(_MEAN, rows, range(len(rows)))
    return {"value": round(float(values.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def table(values: Mapping[str, Mapping[str, Mapping]]) -> str:
    """In markdown, a table for each task."""
    parts = []
    for task, methods in values.items():
        names = [name for name in next(iter(methods.values())) if name != "count"]
        lines = [["", *names], ["---"] * (1 + len(names))]
        for method, found in methods.items():
            cells = [
                f"{found[name]['value']:.3f} [{found[name]['low']:.3f}, {found[name]['high']:.3f}]" for name in names
            ]
            lines.append([method, *cells])
        count = next(iter(methods.values()))["count"]["value"]
        parts.append(f"{task}, {count} crops\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.drawing", description=__doc__)
    parser.add_argument("--source", type=Path, default=Path("data/sources"), help="filled by `data_tools fetch`")
    parser.add_argument("--photographs", type=Path, help="folder of pictures for more backgrounds")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--out", type=Path, default=Path("runs/drawing-figures"), help="finished parts are kept")
    parser.add_argument("--count", type=positive, default=500, help="pairs (default: 500)")
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--publish", action="store_true", help="write the figures to train/results")
    options = parser.parse_args(words)
    given = sys.argv[1:] if words is None else words
    try:
        require("peers", "cv2", "rapidocr", "onnxruntime", by="train.drawing")
        require("evaluate", "skimage", "rapidfuzz", by="train.drawing")
        drawer = Reader.from_pretrained(options.model).drawer
        about = (options.count, options.seed, options.photographs, given if options.publish else ())
        return measure(options.source, options.out, drawer, *about)
    except ValueError as error:
        return complain(str(error))


if __name__ == "__main__":
    sys.exit(main())
