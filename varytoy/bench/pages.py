"""How fast a page is read, beside transformers' ``generate`` on the same weights."""

import functools
import random
import textwrap
from statistics import median

from PIL import Image, ImageDraw, ImageFont

from varytoy.bench.timing import STOCK, ratio, timed
from varytoy.data.answer import Answer
from varytoy.data.documents import Page
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.engine import Engine, Request, TransformersEngine
from varytoy.inference.reader import Reader

_TEXT_LAYER = "varytoy with the PDF's text"
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
    """An engine that keeps the requests of its last call: those of the page; before them its way up is found."""

    def __init__(self, engine: Engine):
        self.processor, self.context = engine.processor, engine.context
        self.requests: list[Request] = []

    def generate(self, requests, show=None, cancel=None) -> list[Answer]:
        self.requests = list(requests)
        return []


def requests_of(reader: Reader, page: Image.Image | Page, drafts: str = "model") -> list[Request]:
    recorder = _Recorder(reader.engine)
    Reader(recorder).ocr(page, drafts=drafts)
    return recorder.requests


def compare(reader: Reader, page: Page, batch_size: int, repeats: int) -> list[str]:
    """A markdown table of seconds, tokens a second, passes of the decoder, the share of drafted tokens that it agreed
    with, and the ratio to the first engine. Drafts are the model's own, and of the PDF's text layer if it has one."""
    requests = requests_of(reader, page)
    engine: TransformersEngine | BatchingEngine = reader.engine  # type: ignore[assignment]  # as from_pretrained makes it
    model, processor = engine.model, engine.processor
    engines: dict[str, Engine] = {STOCK: TransformersEngine(model, processor, batch_size)}
    if BatchingEngine.supports(model):
        plain = BatchingEngine(model, processor, batch_size)
        plain.drafts = False
        engines["varytoy"] = plain
        engines["varytoy with drafts"] = BatchingEngine(model, processor, batch_size)
    runs = {name: functools.partial(each.generate, requests) for name, each in engines.items()}
    if len(engines) > 1 and page.words():
        engines[_TEXT_LAYER] = BatchingEngine(model, processor, batch_size)
        runs[_TEXT_LAYER] = functools.partial(engines[_TEXT_LAYER].generate, requests_of(reader, page, "pdf"))
    if model.device.type == "cuda":
        timed(runs, 2)  # the second captures graphs
    passes = {name: each.passes for name, each in engines.items() if isinstance(each, BatchingEngine)}
    seconds, answers = timed(runs, repeats)
    names = ("engine", "seconds", "tokens a second", "passes", "agreed", "times as fast", "same text")
    rows = [
        f"{len(requests)} lines and cells, {batch_size} together",
        "",
        f"| {' | '.join(names)} |",
        "|---" * len(names) + "|",
    ]
    for name, each in engines.items():
        times, tokens = seconds[name], sum(answer.tokens for answer in answers[name])
        cells = [name, f"{median(times):.2f}", f"{tokens / median(times):.0f}", "", ""]
        if isinstance(each, BatchingEngine):
            cells[3] = f"{(each.passes - passes[name]) // repeats}"
            cells[4] = f"{each.agreed / each.drafted:.2f}" if each.drafted else ""
        same = all(a.text == b.text for a, b in zip(answers[STOCK], answers[name], strict=True))
        cells += [f"{ratio(seconds[STOCK], times):.2f}", "yes" if same else "no"]
        rows.append(f"| {' | '.join(cells)} |")
    return rows
