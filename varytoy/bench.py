"""``python -m varytoy.bench``: how fast a page is read, beside transformers' ``generate`` on the same weights.

Ratios are of one run on one machine; medians of repeated, alternating runs.
"""

import argparse
import platform
import random
import statistics
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from varytoy.data.answer import Answer
from varytoy.data.documents import open_pages
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.engine import Engine, Request, TransformersEngine
from varytoy.inference.reader import Reader
from varytoy.options import device_options, positive

_WORDS = "the a of reading page small model line letters image each long table word paper print new and in".split()


def page(paragraphs: int, seed: int = 0) -> Image.Image:
    """A page of text in two columns: headings, short and long paragraphs of made-up words."""
    rng = random.Random(seed)
    rows = -(-paragraphs // 2)
    image = Image.new("RGB", (1000, 60 + 210 * rows), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    for number in range(paragraphs):
        words = " ".join(rng.choices(_WORDS, k=rng.choice((3, 8, 20, 30, 40)))).capitalize() + "."
        place = (40 + 490 * (number // rows), 40 + 210 * (number % rows))
        pen.multiline_text(place, "\n".join(textwrap.wrap(words, 42)[:7]), "black", font, spacing=5)
    return image


class _Recorder:
    """An engine that keeps the requests that a page becomes."""

    def __init__(self, engine: Engine):
        self.processor, self.context = engine.processor, engine.context
        self.requests: list[Request] = []

    def generate(self, requests, show=None, cancel=None) -> list[Answer]:
        self.requests += requests
        return []


def machine(device: torch.device) -> str:
    """The name of the GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # another system or processor
        return platform.processor() or platform.machine()


def requests_of(reader: Reader, image: Image.Image) -> list[Request]:
    recorder = _Recorder(reader.engine)
    Reader(recorder).read_page(image)
    return recorder.requests


def compare(engines: dict[str, Engine], requests: Sequence[Request], repeats: int) -> list[str]:
    """A markdown table of seconds, tokens a second, passes of the decoder, the share of drafted tokens that it agreed
    with, and the ratio to the first engine."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    answers: dict[str, list[Answer]] = {}
    for _ in range(repeats):
        for name, engine in engines.items():
            start = time.perf_counter()
            answers[name] = engine.generate(requests)
            seconds[name].append(time.perf_counter() - start)
    first, *_ = engines
    names = ("engine", "seconds", "tokens a second", "passes", "agreed", "times as fast", "same text")
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for name, times in seconds.items():
        median, tokens = statistics.median(times), sum(answer.tokens for answer in answers[name])
        ratio = statistics.median(a / b for a, b in zip(seconds[first], times, strict=True))
        same = all(a.text == b.text for a, b in zip(answers[first], answers[name], strict=True))
        engine = engines[name]
        passes = agreed = ""
        if isinstance(engine, BatchingEngine):
            passes = f"{engine.passes // repeats}"
            agreed = f"{engine.agreed / engine.drafted:.2f}" if engine.drafted else ""
        speed = f"{median:.2f} | {tokens / median:.0f}"
        rows.append(f"| {name} | {speed} | {passes} | {agreed} | {ratio:.2f} | {'yes' if same else 'no'} |")
    return rows


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m varytoy.bench", description=__doc__)
    parser.add_argument("--model", default="nano", help="nano (the embedded one), a folder or a hub id")
    parser.add_argument("--page", type=Path, help="an image or PDF, whose first page is read (default: one is drawn)")
    parser.add_argument("--paragraphs", type=positive, default=16, help="of the drawn page")
    parser.add_argument("--batch-size", type=positive, default=12, help="blocks that are read together")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of a CPU")
    device_options(parser)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    reader = Reader.from_pretrained(options.model, options.device, options.dtype, options.quantize)
    image = next(iter(open_pages(options.page))).image if options.page else page(options.paragraphs)
    requests = requests_of(reader, image)
    engine: TransformersEngine | BatchingEngine = reader.engine  # type: ignore[assignment]  # as from_pretrained makes it
    model, processor = engine.model, engine.processor
    engines: dict[str, Engine] = {
        "transformers' generate": TransformersEngine(model, processor, options.batch_size),
    }
    if BatchingEngine.supports(model):
        engines["varytoy"] = BatchingEngine(model, processor, options.batch_size)
        if model.letters is not None:
            plain = BatchingEngine(model, processor, options.batch_size)
            plain.drafts = False
            engines = {**engines, "varytoy": plain, "varytoy with drafts": engines["varytoy"]}
    print(f"{options.model}: {len(requests)} blocks, {options.batch_size} together, {next(model.parameters()).dtype}")
    print(f"{machine(model.device)}, {options.threads} threads, torch {torch.__version__}\n")
    print("\n".join(compare(engines, requests, options.repeats)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
