"""Looks: what the kinds that print a few lines, a table or a form share."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageChops, ImageOps

from data_tools.assets import languages
from data_tools.program import share
from data_tools.render.composer import Composer
from data_tools.render.degrade import degrade, till_print
from data_tools.render.kind import Kind
from data_tools.render.sheet import Sheet
from data_tools.render.strips import Strip
from data_tools.render.themes import Theme, alphabet, random_theme
from data_tools.render.truth import Truth, questions
from data_tools.writer import question_row
from varytoy.tasks import TASKS

_HEIGHT = 1000


class Look:
    """Fonts and texts of one language and split. Raises SourceError if the source folder lacks them."""

    def __init__(self, source: Path, split: str, language: str = languages.ENGLISH):
        self.source, self.split, self.language = source, split, language
        languages.fonts(source, split, language)
        self.letters = alphabet(languages.paragraphs(source, split, language))

    def theme(self, rng: random.Random, width: int, letters: tuple[float, float], inverted: float = 0.1) -> Theme:
        """A theme of one column of ``width`` pixels; ``letters``: range of their size, pixels."""
        lines = (20, 20)
        theme = random_theme(
            rng, self.source, self.split, self.language, self.letters, (width, _HEIGHT), lines, (1, 1), inverted
        )
        size = rng.uniform(*letters)
        return replace(theme, size=size, pitch=size * rng.uniform(1.25, 1.7))

    def composer(self, rng: random.Random, theme: Theme) -> Composer:
        """For words and sentences that the theme's fonts have all letters of."""
        texts = languages.prose_paragraphs(self.source, self.split, self.language)
        return Composer(rng, texts, self.language, theme.covers)


class ScannedKind(Kind):
    """Base of kinds with the options ``--degrade`` and ``--language``."""

    def options(self, parser):
        parser.add_argument("--degrade", type=share, default=0.3, help="strength of the scan, 0 to 1 (default: 0.3)")
        parser.add_argument("--language", choices=languages.LANGUAGES, default=languages.ENGLISH, help="of the texts")
        self.own_options(parser)

    def own_options(self, parser):
        """The options of one kind."""

    def sources(self, options):
        return languages.origins(options.language, options.split)


def stacked(strips: Sequence[Strip], theme: Theme, width: int, rng: random.Random) -> Sheet:
    """Strips below each other on a sheet with random margins."""
    left, top, right, bottom = (round(rng.uniform(0.6, 2.5) * theme.pitch) for _ in range(4))
    height = sum(strip.height + (strip.gap if number else 0) for number, strip in enumerate(strips))
    sheet = Sheet((round(left + width + right), round(top + height + bottom)), theme.paper, theme.darkness)
    y = float(top)
    for number, strip in enumerate(strips):
        y += strip.gap if number else 0
        strip.put(sheet, left, y)
        y += strip.height
    return sheet


def scanned(sheet: Sheet, rng: random.Random, strength: float, till: bool = False) -> tuple[Image.Image, dict]:
    """The picture of a sheet, degraded, and the annotations that belong to it. ``till``: printed by one."""
    image, boxes = sheet.draw()
    if till:
        image, boxes = till_print(image, boxes, rng, strength)
        sheet.size = image.size
    image, boxes = degrade(image, boxes, rng, strength, sheet.paper)
    return image, sheet.annotations(boxes)


def on_paper(image: Image.Image, rng: random.Random) -> Image.Image:
    """A drawing in black on white, RGB, made smaller, and white on black or on coloured paper in some cases."""
    scale = rng.uniform(0.5, 0.9)
    image = image.resize([max(round(side * scale), 16) for side in image.size], Image.Resampling.LANCZOS)
    if rng.random() < 0.08:
        return ImageOps.invert(image)
    if rng.random() < 0.4:
        paper = Image.new("RGB", image.size, tuple(rng.randint(228, 255) for _ in range(3)))
        return ImageChops.multiply(image, paper)
    return image


def text_row(task: str, answer: str, rng: random.Random, annotations: dict | None = None, **metadata: object) -> dict:
    """A row of a task that takes no words, such as ``ocr``."""
    prompt = TASKS[task].prompt("", rng if rng.random() < 0.5 else None)
    return question_row(task, prompt, answer, annotations=annotations, metadata=metadata)


def vqa_rows(truth: Truth, rng: random.Random, count: int) -> list[dict]:
    """Rows of questions about a page, of which the first answer is the sample's."""
    return [
        question_row(
            "vqa",
            TASKS["vqa"].prompt(question.text, rng),
            question.answers[0],
            annotations={"references": list(question.answers)},
            metadata={"kind": question.kind},
        )
        for question in questions(truth, rng, count)
    ]


def named(rows: list[dict], kind: str, split: str, seed: int, index: int) -> list[dict]:
    """The rows with their ids."""
    name = f"{kind}-{split}-{seed}-{index}"
    return [{"id": name if len(rows) == 1 else f"{name}-{number}"} | row for number, row in enumerate(rows)]
