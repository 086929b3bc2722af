"""Formulas: one or several displayed formulas; the answer is their LaTeX."""

import numpy as np
from PIL import Image

from data_tools.program import share, span
from data_tools.render.degrade import degrade
from data_tools.render.document import Formula
from data_tools.render.kind import Kind, register
from data_tools.render.looks import named, text_row
from data_tools.render.markdown import block_markdown
from data_tools.render.mathematics import FONTS, LATEX, check_latex, formula_picture, random_formula
from data_tools.writer import generator
from varytoy.extras import require

_HELD_OUT = 2
"""Of the fonts, those at the end."""


class FormulaRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(
        self, seed: int, split: str, count: tuple[int, int], strength: float, latex: bool = False, alone: bool = False
    ):
        """``alone``: one formula in each image, of the task ``formula``; else markdown."""
        self.seed, self.split, self.strength, self.alone = seed, split, strength, alone
        self.count = (1, 1) if alone else count
        self.fonts = (LATEX,) if latex else FONTS[-_HELD_OUT:] if split == "test" else FONTS[:-_HELD_OUT]

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "formulas", self.split, index)
        size, font = rng.uniform(14, 40), rng.choice(self.fonts)
        dark = rng.random() < 0.1
        ink, paper = ((rng.randint(220, 255),) * 3, (rng.randint(0, 40),) * 3) if dark else ((0, 0, 0), (255, 255, 255))
        if not dark and rng.random() < 0.4:
            ink, paper = (rng.randint(0, 80),) * 3, tuple(rng.randint(225, 255) for _ in range(3))
        formulas = [random_formula(rng, rng.randint(1, 5)) for _ in range(rng.randint(*self.count))]
        pictures = [formula_picture(formula, size, ink, font) for formula in formulas]
        left, top, right, bottom = (round(rng.uniform(0.4, 2) * size) for _ in range(4))
        space = round(rng.uniform(0.6, 1.4) * size)
        width = max(picture.width for picture in pictures)
        height = sum(picture.height for picture in pictures) + space * (len(pictures) - 1)
        mode = "L" if len(set(paper)) == 1 else "RGB"
        image = Image.new(mode, (left + width + right, top + height + bottom), paper if mode == "RGB" else paper[0])
        y, centred = top, rng.random() < 0.7
        boxes = []
        for picture in pictures:
            x = left + (width - picture.width) // 2 * centred
            image.paste(picture.convert(mode), (x, y), picture.getchannel("A"))
            boxes.append((x, y, x + picture.width, y + picture.height))
            y += picture.height + space
        image, _ = degrade(image, np.array(boxes), rng, self.strength, paper)
        answer = "\n\n".join(block_markdown(Formula(formula)) for formula in formulas)
        task, answer = ("formula", formulas[0]) if self.alone else ("markdown", answer)
        row = text_row(task, answer, rng, {"plain_text": ""}, font=font, size=round(size, 1))
        return image, named([row], "formulas", self.split, self.seed, index)


@register
class Formulas(Kind):
    name = "formulas"
    help = "displayed formulas (markdown or formula: LaTeX)"

    def options(self, parser):
        parser.add_argument("--formulas", type=span, default=(1, 3), help="in an image (default: 1-3)")
        parser.add_argument("--task", choices=("markdown", "formula"), default="markdown", help="formula: one an image")
        parser.add_argument("--latex", action="store_true", help="draw by LaTeX itself (pdflatex), a few a second")
        parser.add_argument("--degrade", type=share, default=0.3, help="strength of the scan, 0 to 1 (default: 0.3)")

    def renderer(self, options):
        if options.latex:
            check_latex()
        else:
            require("train", "matplotlib", by="the kind 'formulas'")
        alone = options.task == "formula"
        return FormulaRenderer(options.seed, options.split, options.formulas, options.degrade, options.latex, alone)

    def sources(self, options):
        if options.latex:
            return {"LaTeX": "fonts: Computer Modern and AMS (OFL-1.1)"}
        return {"matplotlib": "Matplotlib licence (fonts: Bitstream Vera, STIX, Computer Modern)"}
