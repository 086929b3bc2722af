"""Pictures of text for a model that sees photographs: their captions and answers say that there is only text."""

import random
from pathlib import Path

from PIL import Image

from data_tools.assets import sources
from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.render.kind import Kind, register
from data_tools.writer import generator, question_row
from varytoy.tasks import TASKS

CAPTIONS = ("A page of printed text.", "Printed text on a page.", "A page with text on it.")
_ABSENT = tuple("man woman child dog horse bird car bicycle boat tree ball water shirt hat grass snow beach".split())
_SIDE = 448


class TextPictures:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, source: Path, seed: int, split: str = "train"):
        self.seed, self.split = seed, split
        small = BlockOptions(lines=(1, 12), columns=(10, 90), blank=0.0)
        large = BlockOptions(lines=(18, 30), columns=(50, 90), blank=0.0)
        self.renderers = [BlockRenderer(source, seed, split, options) for options in (small, large)]

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "text-pictures", self.split, index)
        image, _ = self.renderers[index % 2](index)
        image.thumbnail((_SIDE, _SIDE))
        rows = [_caption(caption, rng) for caption in CAPTIONS]
        rows.append(_question("Is there text?", "yes", "presence", rng))
        rows += [_question(f"Is there a {noun}?", "no", "presence", rng) for noun in rng.sample(_ABSENT, 2)]
        rows.append(_question("How many people are there?", "0", "count", rng))
        classes = ["people", "animals", "vehicles"]
        annotations = {"classes": classes, "all_objects": False}
        rows.append(
            question_row("detect", TASKS["detect"].prompt(", ".join(classes)), "None.", annotations=annotations)
        )
        for number, row in enumerate(rows):
            row["id"] = f"text-{self.split}-{self.seed}-{index}-{number}"
        return image, rows


def _caption(caption: str, rng: random.Random) -> dict:
    return question_row(
        "caption", TASKS["caption"].prompt("", rng), caption, annotations={"references": list(CAPTIONS)}
    )


def _question(question: str, answer: str, kind: str, rng: random.Random) -> dict:
    prompt = TASKS["vqa"].prompt(question, rng)
    return question_row("vqa", prompt, answer, annotations={"references": [answer]}, metadata={"kind": kind})


@register
class PicturesOfText(Kind):
    name = "text-pictures"
    help = "pictures of text whose captions say that they are text"

    def renderer(self, options):
        return TextPictures(options.source, options.seed, options.split)

    def sources(self, options):
        return sources.origins(split=options.split)
