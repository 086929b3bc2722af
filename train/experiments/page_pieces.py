"""``python -m train.experiments.page_pieces OUT RENDERED … --seed 1``: rendered pages cut as ``Reader`` cuts them.

RENDERED are folders of ``data_tools render`` whose samples know their words. Each block that the layout finds becomes a
sample: the crop, scaled as for reading, and the words in its rows; a picture or rule without words becomes an
empty answer. Blocks that cut a word in two are left out. Pages are cut into blocks of 1, 2, 4 or 8 lines.
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
from varytoy.layout.page import PageLayout
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS

LINES = (1, 1, 1, 2, 4, 8)
"""Most lines of a block; one of these for each page."""
_EMPTY = 0.2
"""Share of the blocks without words that are kept."""
_WIDTHS = ImageFont.load_default(size=20)
Word = tuple[str, float, float, float, float]


def pieces(sample: Sample, rng: random.Random, text_size: float) -> Iterator[tuple[Image.Image, list[list[Word]]]]:
    """(crop, rows of words with their boxes in the crop's pixels) of each block of a page."""
    image = sample.open_images()[0]
    page = PageLayout(image)
    words = [(box.label, *box.to_pixels(*image.size)) for box in sample.annotations.text_words]
    for block in page.cut(rng.choice(LINES)):
        if block.kind != "text" or block.text_size < layout.SMALLEST:
            continue
        rows = _rows(block, words)
        if rows is None or (not any(rows) and rng.random() > _EMPTY):
            continue
        crop = layout.crop_block(image, block, text_size)
        yield crop, [[_in_crop(block, word, text_size) for word in row] for row in rows if row]


def _rows(block: layout.Block, words: Sequence[Word]) -> list[list[Word]] | None:
    """The words of each row, from left to right; None if the block cuts a word or has one beside its rows."""
    left, top, right, bottom = block.box
    rows: list[list[Word]] = [[] for _ in block.rows]
    for word in words:
        _, x1, y1, x2, y2 = word
        across, middle = min(right, x2) - max(left, x1), (y1 + y2) / 2
        if across <= 0 or not top - 1 <= middle <= bottom + 1:
            continue
        if across < 0.6 * (x2 - x1):
            if across > 0.2 * (x2 - x1):
                return None
            continue
        nearest = min(range(len(rows)), key=lambda n: abs((block.rows[n][1] + block.rows[n][3]) / 2 - middle))
        row_top, row_bottom = block.rows[nearest][1::2]
        if not row_top - 2 <= middle <= row_bottom + 2:
            return None
        rows[nearest].append(word)
    return [sorted(row, key=lambda word: word[1]) for row in rows]


def _in_crop(block: layout.Block, word: Word, text_size: float) -> Word:
    text, x1, y1, x2, y2 = word
    return (text, *block.crop_point(x1, y1, text_size), *block.crop_point(x2, y2, text_size))


def row(name: str, image: str, rows: Sequence[Sequence[Word]], rng: random.Random) -> dict:
    """The sample of a piece. Letters are placed in their words by the widths of a usual font."""
    letters, positions = [], []
    for words in rows:
        middle = sum((y1 + y2) / 2 for _, _, y1, _, y2 in words) / len(words)
        for text, x1, _, x2, _ in words:
            widths = [_WIDTHS.getlength(letter) for letter in text]
            ends = list(itertools.accumulate(widths))
            for letter, width, end in zip(text, widths, ends, strict=True):
                letters.append(letter)
                positions += [round(x1 + (end - width / 2) * (x2 - x1) / max(ends[-1], 1.0)), round(middle)]
    answer = "\n".join(" ".join(word[0] for word in words) for words in rows)
    prompt = TASKS["ocr"].prompt("", rng)
    return {
        "id": name,
        "task": "ocr",
        "messages": [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}],
        "images": [image],
        "annotations": {"letters": "".join(letters), "letter_positions": positions},
        "metadata": {"lines": len(rows)},
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.experiments.page_pieces", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("rendered", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of each page's blocks")
    options = parser.parse_args(words)
    text_size = VaryProcessor.from_pretrained(varytoy.NANO).image_processor.text_size
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
                for crop, rows in found:
                    if rng.random() >= options.share:
                        continue
                    name = f"images/{count:06d}.webp"
                    crop.convert("L").save(options.out / name, quality=80)
                    one = row(f"{sample.id}-{count}", name, rows, rng)
                    lines.write(json.dumps(one, ensure_ascii=False) + "\n")
                    count += 1
    print(f"{count:,} samples in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
