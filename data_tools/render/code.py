"""Code: listings of programs in monospaced letters, as text or as a fenced block of markdown."""

import re
from dataclasses import replace
from pathlib import Path

from PIL import Image

from data_tools.assets import languages
from data_tools.program import span
from data_tools.render.composer import random_listing
from data_tools.render.document import plain_lines
from data_tools.render.glyphs import face
from data_tools.render.kind import register
from data_tools.render.looks import Look, ScannedKind, named, scanned, stacked, text_row
from data_tools.render.markdown import code_markdown
from data_tools.render.strips import Strip, base_line
from data_tools.writer import generator

_KEYWORDS = frozenset(
    "def class return if else elif for while in not and or import from as with try except raise yield lambda None True "
    "False self func var const let type struct package switch case break continue range fn pub mut impl use match enum "
    "static void int char float unsigned double typedef function new this null true false nil".split()
)
_COMMENT = re.compile(r"\s*(#(?!include|define|if|end|else)|//|/\*|\*)")
_LIGHT = {"ink": (30, 30, 30), "keyword": (0, 0, 170), "comment": (0, 120, 60), "text": (160, 30, 30)}
_DARK = {"ink": (220, 220, 220), "keyword": (120, 170, 255), "comment": (120, 160, 110), "text": (230, 170, 120)}


class CodeRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, look: Look, seed: int, lines: tuple[int, int], width: int, degrade: float):
        self.look, self.seed, self.lines, self.width, self.degrade = look, seed, lines, width, degrade
        self.files = languages.code(look.source, look.split)
        self.names = sorted({language for language, _ in self.files})

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "code", self.look.split, index)
        theme = self.look.theme(rng, 900, (10, 19), inverted=0.35)
        dark = sum(theme.paper) < 300
        if dark and rng.random() < 0.5:
            theme = replace(theme, paper=rng.choice(((30, 30, 30), (40, 42, 54), (0, 0, 0), (13, 17, 23))))
        name = rng.choice(self.names)
        file = rng.choice([lines for language, lines in self.files if language == name])
        code = random_listing(rng, name, file, rng.randint(*self.lines), self.width)
        coloured = rng.random() < 0.6
        style = theme.style(code=True)
        known = face(style.path, style.number)
        pitch = style.size * rng.uniform(1.1, 1.5)
        strips = []
        for line in code.lines:
            words, end = [], 0
            for text in line.split():
                at = line.index(text, end)
                role = "ink" if not coloured else _role(line, text)
                ink = style._replace(colour=(_DARK if dark else _LIGHT)[role]) if coloured else style
                x = round(known.width(line[:at]) * style.size)
                words.append((text, x, base_line(pitch, style.size), ink, line[end:at]))
                end = at + len(text)
            strips.append(Strip(pitch, [(words, "\n")]))
        width = max(known.width(line) for line in code.lines) * style.size
        sheet = stacked(strips, theme, round(width), rng)
        image, annotations = scanned(sheet, rng, self.degrade)
        task = rng.choice(("ocr", "markdown"))
        text = "\n".join(line for line in plain_lines(code) if line.strip())
        if task == "markdown":
            annotations["plain_text"] = text
            text = code_markdown(code)
        row = text_row(task, text, rng, annotations, language=name)
        return image, named([row], "code", self.look.split, self.seed, index)


def _role(line: str, word: str) -> str:
    if _COMMENT.match(line):
        return "comment"
    if word[:1] in "\"'":
        return "text"
    return "keyword" if word.strip("(){}:;,") in _KEYWORDS else "ink"


@register
class CodeListings(ScannedKind):
    name = "code"
    help = "listings in five programming languages (OCR and markdown)"

    def own_options(self, parser):
        parser.add_argument("--lines", type=span, default=(4, 40), help="default: 4-40")
        parser.add_argument("--width", type=int, default=90, help="longest line, characters (default: 90)")

    def renderer(self, options):
        look = Look(Path(options.source), options.split, options.language)
        return CodeRenderer(look, options.seed, options.lines, options.width, options.degrade)

    def sources(self, options):
        return super().sources(options) | languages.code_origins()
