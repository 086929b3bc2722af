"""``python -m train.experiments.page_pieces OUT RENDERED … --seed 1``: rendered pages cut as ``Reader`` cuts them.

RENDERED are folders of ``data_tools render`` whose samples know their words. Each cell that the layout finds becomes a
sample: the view that the model would get, and the words in it; a picture or rule without words becomes an empty answer.
Cells that cut a word in two are left out, and pages that stand askew.
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageFont
from tqdm import tqdm

import varytoy
from data_tools.writer import generator
from varytoy import layout
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import read_samples
from varytoy.layout.blocks import Cell
from varytoy.layout.page import PageLayout
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS

_STRAIGHT = 0.15
"""Degrees."""
_EMPTY = 0.2
"""Share of the cells without words that are kept."""
_WIDTHS = ImageFont.load_default(size=20)
Word = tuple[str, float, float, float, float]


def pieces(sample: Sample, rng: random.Random, text_size: float) -> Iterator[tuple[Image.Image, list[Word]]]:
    """(view, words with their boxes in its pixels) of each cell of a page."""
    image = sample.open_images()[0]
    page = PageLayout(image)
    if abs(page.skew) > _STRAIGHT:  # its words' places in the views are not known exactly
        return
    words = [(box.label, *box.to_pixels(*image.size)) for box in sample.annotations.text_words]
    for cell in (cell for block in page.blocks for cell in block.cells):
        if cell.text_size < layout.SMALLEST:
            continue
        own = _words(cell, words)
        if own is None or (not own and rng.random() > _EMPTY):
            continue
        view = layout.CellView.of(cell, text_size)
        placed = [(text, *view.point(x1, y1), *view.point(x2, y2)) for text, x1, y1, x2, y2 in own]
        yield view.image(page.image, page.analysis), placed


def _words(cell: Cell, words: Sequence[Word]) -> list[Word] | None:
    """The words in a cell, from left to right; None if it cuts one, or one lies half in it."""
    left, top, right, bottom = cell.box
    own = []
    for word in words:
        _, x1, y1, x2, y2 = word
        across, middle = min(right, x2) - max(left, x1), (y1 + y2) / 2
        if across <= 0 or not top - 2 <= middle <= bottom + 2:
            continue
        share = across / max(x2 - x1, 1)
        if share > 0.6:
            own.append(word)
        elif share > 0.2:
            return None
    rows = [word[2] + word[4] for word in own]
    if own and max(rows) - min(rows) > 2 * (bottom - top):
        return None
    return sorted(own, key=lambda word: word[1])


def row(name: str, image: str, words: Sequence[Word], rng: random.Random) -> dict:
    """The sample of a cell. Letters are placed in their words by the widths of a usual font."""
    letters, positions = [], []
    middle = sum((y1 + y2) / 2 for _, _, y1, _, y2 in words) / max(len(words), 1)
    for text, x1, _, x2, _ in words:
        widths = [_WIDTHS.getlength(letter) for letter in text]
        ends = list(itertools.accumulate(widths))
        for letter, width, end in zip(text, widths, ends, strict=True):
            letters.append(letter)
            positions += [round(x1 + (end - width / 2) * (x2 - x1) / max(ends[-1], 1.0)), round(middle)]
    answer = " ".join(word[0] for word in words)
    prompt = TASKS["ocr"].prompt("", rng)
    return {
        "id": name,
        "task": "ocr",
        "messages": [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}],
        "images": [image],
        "annotations": {"letters": "".join(letters), "letter_positions": positions},
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.page_pieces", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("rendered", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of each page's cells")
    parser.add_argument("--keep", default="", metavar="CHARACTERS", help="cells with one of these are all kept")
    options = parser.parse_args(words)
    text_size = VaryProcessor.from_pretrained(varytoy.NANO).image_processor.line_size
    (options.out / "images").mkdir(parents=True)
    count = 0
    with (options.out / "samples.jsonl").open("w", encoding="utf-8") as lines:
        for folder in options.rendered:
            for sample in tqdm(read_samples(folder), desc=folder.name, unit="page", mininterval=10):
                rng = generator(options.seed, "pieces", sample.id)
                if not sample.annotations.words:
                    continue
                try:
                    found = list(pieces(sample, rng, text_size))
                except SampleError as error:
                    print(f"page_pieces: {error}", file=sys.stderr)
                    continue
                for crop, own in found:
                    if rng.random() >= options.share and not set(options.keep) & {c for word in own for c in word[0]}:
                        continue
                    name = f"images/{count:06d}.webp"
                    crop.convert("L").save(options.out / name, quality=80)
                    one = row(f"{sample.id}-{count}", name, own, rng)
                    lines.write(json.dumps(one, ensure_ascii=False) + "\n")
                    count += 1
    print(f"{count:,} samples in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
