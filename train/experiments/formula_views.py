"""``python -m train.experiments.formula_views OUT --formulas FOLDER … --text FOLDER …``: formulas as ``Reader``
cuts them out, and lines of text, about which the answer is empty.

Folders of ``data_tools render formulas --task formula``, and of samples of cells and blocks (``page_pieces``, ``render
blocks``).
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data_tools.writer import generator
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.layout.formulas import formula_cell, view_of
from varytoy.layout.page import PageLayout
from varytoy.tasks import TASKS

_SIZE = 0.07
"""Deviation of the letters' size from that measured, as on other pages it may be measured otherwise."""
_EDGE = 2
"""Pixels by which a side may be farther out."""
_LARGEST = (1000, 360)


def view(image: Image.Image, rng: random.Random) -> Image.Image | None:
    """None if there is no ink, or the view is too large."""
    page = PageLayout(image)
    cell = formula_cell(page)
    if cell is None:
        return None
    x0, y0, x1, y1 = cell.box
    left, top, right, bottom = (rng.randint(0, _EDGE) for _ in range(4))
    box = (max(x0 - left, 0), max(y0 - top, 0), min(x1 + right, image.width), min(y1 + bottom, image.height))
    found = view_of(replace(cell, box=box, text_size=cell.text_size * math.exp(rng.gauss(0, _SIZE))), page)
    return found if found.width <= _LARGEST[0] and found.height <= _LARGEST[1] else None


def samples(options: argparse.Namespace) -> Iterator[tuple[Sample, str]]:
    """(sample, answer)"""
    for folder in options.formulas:
        for sample in read_samples(folder):
            if sample.task == "formula":
                yield sample, sample.answer
    for folder in options.text:
        found = list(read_samples(folder))
        for sample in generator(options.seed, "text", folder.name).sample(found, min(options.count, len(found))):
            if sample.answer.strip():
                yield sample, ""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.formula_views", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--formulas", type=Path, nargs="*", default=[])
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=1000, help="samples of each folder of text")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    (options.out / "images").mkdir(parents=True)
    prompt, count = TASKS["formula"].prompt(), 0
    with (options.out / "samples.jsonl").open("w", encoding="utf-8") as lines:
        for sample, answer in tqdm(samples(options), unit="view", mininterval=10):
            found = view(sample.open_images()[0], generator(options.seed, "views", sample.id))
            if found is None:
                continue
            name = f"images/{count:06d}.webp"
            found.convert("L").save(options.out / name, quality=85)
            turns = [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}]
            row = {"id": f"{sample.id}-{count}", "task": "formula", "messages": turns, "images": [name]}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count:,} samples in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
