"""Text blocks: one to thirty lines of real English in many fonts and on many backgrounds, with their text.

Letters are close to the size at which the small models read (``READING_SIZE``, the height of an x in pixels), because
``Reader`` scales every block to it. Formatted blocks have their markdown too.
"""

import io
import math
import random
import re
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data_tools.assets import sources
from data_tools.program import share, span, span_of_floats
from data_tools.render.kind import Kind, register
from data_tools.render.texts import Mapped
from data_tools.writer import generator
from varytoy.tasks import TASKS

READING_SIZE = 8.0
Letter = tuple[str, float, float]
"""A letter and its centre in pixels."""
_FORMS = ("plain", "plain", "plain", "words", "symbols", "formatted", "formatted")


@dataclass(frozen=True)
class BlockOptions:
    """What to render: inclusive ranges of lines and of characters a line; x-heights in pixels of the image, or
    instead font sizes in pixels."""

    lines: tuple[int, int] = (1, 8)
    columns: tuple[int, int] = (8, 90)
    x_height: tuple[float, float] = (6.3, 9.8)
    font_size: tuple[float, float] | None = None
    formatted: bool = True
    blank: float = 0.015
    degrade: float = 0.7
    repeats: float = 0.0
    """Share of the blocks that repeat a few words: the model must track its position, not only the last words."""
    texts: tuple[Path, ...] = ()
    """A user's text files, used instead of the source folder's."""
    fonts: Path | None = None
    """A user's folder of fonts, used instead of the source folder's."""


@dataclass
class _Line:
    """One printed line: pieces of (text, bold), the scale of its letters, and its markdown prefix."""

    pieces: list[tuple[str, bool]]
    scale: float = 1.0
    indent: float = 0.0
    gap: float = 0.0
    prefix: str = ""
    starts: bool = True

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass
class _Block:
    lines: list[_Line] = field(default_factory=list)
    formatted: bool = False

    def printed(self) -> str:
        return "\n".join(line.text for line in self.lines)

    def markdown(self) -> str:
        """CommonMark of the block: a blank line between paragraphs, soft breaks inside them."""
        rows: list[str] = []
        for line in self.lines:
            if line.starts and rows:
                tight = line.prefix[:1] in "-123456789" and line.prefix and rows[-1][:1] in "-123456789 "
                if not tight:
                    rows.append("")
            body = "".join(
                f"**{text.strip()}**" + " " * text.endswith(" ") if bold and line.prefix[:1] != "#" else text
                for text, bold in line.pieces
            )
            if line.starts and line.prefix and not line.prefix.startswith("#"):
                body = re.sub(r"^(\u2022|-|\d+\.) ?", "", body)
            rows.append((line.prefix if line.starts else " " * len(line.prefix)) + body.strip())
        return "\n".join(rows)


class BlockRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, source: Path, seed: int, split: str = "train", options: BlockOptions | None = None):
        self.source, self.seed, self.split = source, seed, split
        self.options = options or BlockOptions()
        self._fonts(), self._texts()  # raises if they are missing

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "blocks", self.split, index)
        noise = np.random.default_rng(rng.getrandbits(63))
        name = f"blocks-{self.split}-{self.seed}-{index}"
        if rng.random() < self.options.blank:
            image = _paper(rng, rng.randint(80, 600), rng.randint(24, 160))[0]
            return _degrade(image, rng, noise, []), [_row(name, "ocr", "", rng, {}, {"lines": 0})]
        block = self._block(rng)
        letters: list[Letter] = []
        upright = [font for font in self._fonts() if font.upright]
        font = rng.choice(upright if block.formatted and upright else self._fonts())
        x_height = rng.uniform(*self.options.x_height)
        if self.options.font_size:
            x_height = rng.uniform(*self.options.font_size) * _x_ratio(font.path)
        image = _print(block, font, self._bold(font), x_height, rng, letters)
        if rng.random() < self.options.degrade:
            image = _degrade(image, rng, noise, letters)
        annotations = {
            "letters": "".join(letter for letter, _, _ in letters),
            "letter_positions": [round(value) for _, x, y in letters for value in (x, y)],
        }
        metadata = {"lines": len(block.lines), "font": font.family, "x_height": round(x_height, 1)}
        if block.formatted and rng.random() < 0.6:
            annotations["plain_text"] = block.printed()
            return image, [_row(name, "markdown", block.markdown(), rng, annotations, metadata)]
        return image, [_row(name, "ocr", block.printed(), rng, annotations, metadata)]

    def _fonts(self) -> tuple[sources.Font, ...]:
        if self.options.fonts is not None:
            return sources.own_fonts(self.options.fonts)
        return sources.fonts(self.source, self.split)

    def _texts(self) -> tuple[str, ...]:
        if self.options.texts:
            return sources.own_paragraphs(self.options.texts, self.split)
        return sources.paragraphs(self.source, self.split)

    def _bold(self, font: sources.Font) -> sources.Font:
        """The family's bold face, or the face itself."""
        family = [other for other in self._fonts() if other.family == font.family]
        return next((other for other in family if other.style == "bold"), font)

    def _block(self, rng: random.Random) -> _Block:
        low, high = self.options.lines
        # More short blocks than long ones, because a long one has more text.
        lines = min(low + int((high - low + 1) * rng.random() ** 1.3), high)
        columns = rng.randint(*self.options.columns)
        if lines > 1:
            columns = max(columns, min(20, self.options.columns[1]))
        form = rng.choice(_FORMS)
        texts = self._texts()
        if self.options.repeats and rng.random() < self.options.repeats:
            return _Block(_wrap(_repeats(lines * columns, texts, rng), columns, lines))
        if form == "formatted" and self.options.formatted and lines >= 2:
            return _formatted(lines, columns, texts, rng)
        if form == "words":
            words = [rng.choice(rng.choice(texts).split()) for _ in range(lines * columns // 4 + 2)]
            words = [word.upper() if rng.random() < 0.06 else word for word in words]
            return _Block(_wrap(" ".join(words), columns, lines))
        if form == "symbols":
            return _Block(_wrap(_symbols(rng, lines * columns), columns, lines))
        return _Block(_paragraph(lines, columns, texts, rng))


def _row(name: str, task: str, answer: str, rng: random.Random, annotations: dict, metadata: dict) -> dict:
    prompt = TASKS[task].prompt("", rng if rng.random() < 0.5 else None)
    messages = [{"role": "user", "content": "<image>\n" + prompt}, {"role": "assistant", "content": answer}]
    return {"id": name, "task": task, "messages": messages, "annotations": annotations, "metadata": metadata}


def _prose(columns: int, texts: Sequence[str], rng: random.Random) -> str:
    """Text of at least ``columns`` characters that starts at a word."""
    text = rng.choice(texts)
    while len(text) < columns:
        text += " " + rng.choice(texts)
    if rng.random() < 0.5:
        start = text.find(" ", rng.randrange(max(len(text) - columns, 1)))
        text = text[start + 1 :]
    if rng.random() < 0.04:
        text = text.upper()
    return text


def _wrap(text: str, columns: int, max_lines: int) -> list[_Line]:
    """Greedy line breaking by characters; words longer than a line are cut."""
    rows, row = [], ""
    for word in text.split():
        word = word[:columns]
        if row and len(row) + 1 + len(word) > columns:
            rows.append(row)
            row = ""
            if len(rows) == max_lines:
                break
        row = f"{row} {word}" if row else word
    if row and len(rows) < max_lines:
        rows.append(row)
    return [_Line([(row, False)], starts=number == 0) for number, row in enumerate(rows)]


def _paragraph(lines: int, columns: int, texts: Sequence[str], rng: random.Random) -> list[_Line]:
    paragraphs: list[_Line] = []
    while len(paragraphs) < lines:
        left = lines - len(paragraphs)
        take = left if rng.random() < 0.7 else rng.randint(1, left)
        more = _wrap(_prose(take * columns + 1, texts, rng), columns, take)
        if paragraphs:
            more[0].gap = rng.choice((0.0, 0.4, 0.8))
            more[0].indent = rng.choice((0.0, 2.0))
        paragraphs += more
    return paragraphs


def _symbols(rng: random.Random, length: int) -> str:
    """Numbers, codes, paths and punctuation, which are rare in prose."""
    printed = sorted(sources.PRINTED - {" "})
    words = []
    for _ in range(length // 5 + 2):
        kind = rng.random()
        if kind < 0.35:
            words.append(
                rng.choice(("", "$", "(", "-", "#"))
                + f"{rng.uniform(0, 10 ** rng.randint(1, 6)):,.{rng.randint(0, 2)}f}"
            )
        elif kind < 0.5:
            words.append(
                rng.choice("/-.").join(str(rng.randint(*limits)) for limits in ((1, 31), (1, 12), (1950, 2030)))
            )
        elif kind < 0.75:
            words.append("".join(rng.choice(printed) for _ in range(rng.randint(1, 8))))
        else:
            letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-\\/"
            words.append("".join(rng.choice(letters) for _ in range(rng.randint(2, 9))))
    return " ".join(words)


def _repeats(length: int, texts: Sequence[str], rng: random.Random) -> str:
    """A few words, phrases and numbers, repeated in random order."""
    pool = []
    for _ in range(rng.randint(2, 10)):
        words = rng.choice(texts).split() if rng.random() < 0.8 else _symbols(rng, 40).split()
        start = rng.randrange(len(words))
        pool.append(" ".join(words[start : start + rng.choice((1, 1, 2, 4))]))
    text = ""
    while len(text) <= length:
        text += rng.choice(pool) + " "
    return text


_MARKS = re.compile(r"[*_`<>\[\]\\#~|]")
_LIST_MARK = re.compile(r"[-+=\u2022]+|\d+[.)]")


def _plain(text: str) -> str:
    """A text without characters that are markdown syntax, so that what is printed and its source are equal."""
    words = _MARKS.sub("", text).split()
    return " ".join(word for word in words if not _LIST_MARK.fullmatch(word)) or "Contents"


def _formatted(lines: int, columns: int, texts: Sequence[str], rng: random.Random) -> _Block:
    """A heading, a list or paragraphs with bold words: at most ``lines`` lines."""
    block = _Block(formatted=True)
    columns = max(columns, 24)
    texts = Mapped(texts, _plain)
    if rng.random() < 0.6:
        level = rng.choice((1, 2))
        head = _wrap(_title(texts, rng), max(columns * 2 // 3, 16), 1)[0]
        head.pieces = [(head.text, True)]
        head.scale, head.prefix = (1.7, "# ") if level == 1 else (1.32, "## ")
        block.lines.append(head)
    while len(block.lines) < lines:
        left = lines - len(block.lines)
        if rng.random() < 0.45:
            block.lines += _list(left, columns, texts, rng)
        else:
            more = _wrap(_prose(columns, texts, rng), columns, rng.randint(1, left))
            _embolden(more, rng)
            more[0].gap = 0.6
            block.lines += more
    return block


def _title(texts: Sequence[str], rng: random.Random) -> str:
    words = _prose(40, texts, rng).split()[: rng.randint(1, 5)]
    return " ".join(words).strip(".,;:(") or "Contents"


def _list(max_lines: int, columns: int, texts: Sequence[str], rng: random.Random) -> list[_Line]:
    items: list[_Line] = []
    numbered, mark = rng.random() < 0.4, rng.choice(("\u2022", "\u2022", "-"))
    for number in range(1, min(rng.randint(2, 5), max_lines) + 1):
        item = _wrap(_prose(12, texts, rng)[: columns * rng.choice((1, 1, 2)) - 4], columns - 4, max_lines - len(items))
        if not item:
            break
        sign, prefix = (f"{number}.", f"{number}. ") if numbered else (mark, "- ")
        item[0].pieces = [(f"{sign} {item[0].text}", False)]
        for line in item:
            line.prefix, line.indent = prefix, 1.0 if line.starts else 2.6
        item[0].gap = 0.5 if number == 1 else 0.0
        items += item
        if len(items) >= max_lines:
            break
    return items


def _embolden(lines: list[_Line], rng: random.Random) -> None:
    """Make a run of one to three words of some line bold."""
    if rng.random() < 0.5:
        return
    line = rng.choice(lines)
    words = line.text.split()
    start = rng.randrange(len(words))
    stop = min(start + rng.randint(1, 3), len(words))
    runs = [(" ".join(words[:start]), False), (" ".join(words[start:stop]), True), (" ".join(words[stop:]), False)]
    runs = [run for run in runs if run[0]]
    line.pieces = [(text + (" " if number + 1 < len(runs) else ""), bold) for number, (text, bold) in enumerate(runs)]


_faces: OrderedDict[tuple[str, int], ImageFont.FreeTypeFont] = OrderedDict()


def _face(path: str, size: float) -> ImageFont.FreeTypeFont:
    """A font face at a size in half pixels, from a small cache."""
    key = (path, round(size * 2))
    if key not in _faces:
        _faces[key] = ImageFont.truetype(path, key[1] / 2)
        if len(_faces) > 400:
            _faces.popitem(last=False)
    return _faces[key]


def _x_ratio(path: str) -> float:
    """Height of an x as a share of the font size."""
    box = _face(path, 100).getbbox("x")
    return max((box[3] - box[1]) / 100, 0.3)


def _print(
    block: _Block,
    font: sources.Font,
    bold: sources.Font,
    x_height: float,
    rng: random.Random,
    letters: list[Letter],
) -> Image.Image:
    """Draw at a random size, then scale the letters to ``x_height`` as ``Reader`` does.

    ``letters`` is filled with every letter and its centre in the final image.
    """
    zoom = 1.0 if rng.random() < 0.55 else rng.uniform(0.75, 2.2)
    size = x_height * zoom / _x_ratio(font.path)
    pitch = size * (rng.uniform(1.05, 1.4) if rng.random() < 0.6 else rng.uniform(1.4, 2.3))
    pad = [round(x_height * zoom * rng.uniform(0.25, 2.0)) for _ in range(4)]
    layout, bottom, right = [], float(pad[1]), 0.0
    centred, justified = rng.random() < 0.06 and not block.formatted, rng.random() < 0.25
    for number, line in enumerate(block.lines):
        bottom += (pitch * line.gap if number else 0) + pitch * line.scale
        faces = [(text, _face((bold if strong else font).path, size * line.scale)) for text, strong in line.pieces]
        width = sum(face.getlength(text) for text, face in faces)
        layout.append((line, faces, bottom, width))
        right = max(right, line.indent * size * 0.5 + width)
    paper, ink = _paper(rng, round(pad[0] + right + pad[2] + 1), round(bottom + size * 0.35 + pad[3]))
    pen = ImageDraw.Draw(paper)
    for number, (line, faces, base, width) in enumerate(layout):
        x = pad[0] + line.indent * size * 0.5
        if centred:
            x = pad[0] + (right - width) / 2
        last = number + 1 == len(layout) or layout[number + 1][0].starts
        stretch = (right - line.indent * size * 0.5 - width) if justified and not last and not block.formatted else 0.0
        drawn = _draw_line(pen, faces, x, base, ink, stretch if stretch < 0.25 * width else 0.0)
        y = base - 0.5 * x_height * zoom * line.scale
        letters += [(letter, centre / zoom, y / zoom) for letter, centre in drawn]
    if zoom != 1.0:
        box = (max(round(paper.width / zoom), 8), max(round(paper.height / zoom), 8))
        paper = paper.resize(box, rng.choice((Image.LANCZOS, Image.BICUBIC, Image.BILINEAR)))
    return paper


def _draw_line(pen: ImageDraw.ImageDraw, faces: list, x: float, base: float, ink, stretch: float) -> list:
    """Print the pieces of one line from ``x`` on the base line, spreading ``stretch`` pixels over its spaces.

    Returns (letter, x of its centre) of all but the spaces.
    """
    drawn = []
    spaces = sum(text.count(" ") for text, _ in faces)
    for text, face in faces:
        for part in re.split("(?<= )", text) if stretch and spaces else [text]:
            pen.text((x, base), part, fill=ink, font=face, anchor="ls")
            edges = [face.getlength(part[:end]) for end in range(len(part) + 1)]
            drawn += [
                (letter, x + (edges[index] + edges[index + 1]) / 2)
                for index, letter in enumerate(part)
                if letter != " "
            ]
            x += face.getlength(part) + (stretch / spaces if part.endswith(" ") and stretch and spaces else 0.0)
    return drawn


def _paper(rng: random.Random, width: int, height: int) -> tuple[Image.Image, tuple]:
    """A background and a contrasting text colour: mostly dark on white, some tinted, with a gradient or inverted."""
    kind = rng.random()
    if kind < 0.45:
        paper, ink = (255, 255, 255), (0, 0, 0) if rng.random() < 0.6 else (rng.randint(0, 90),) * 3
    elif kind < 0.88:
        paper = tuple(rng.randint(205, 255) for _ in range(3))
        ink = tuple(rng.randint(0, 120) for _ in range(3))
    else:
        paper = tuple(rng.randint(0, 90) for _ in range(3))
        ink = tuple(rng.randint(185, 255) for _ in range(3))
    image = Image.new("RGB", (width, height), paper)
    if rng.random() < 0.2:
        ramp = (
            np.linspace(1.0, rng.uniform(0.8, 1.0), width)[None, :]
            * np.linspace(1.0, rng.uniform(0.8, 1.0), height)[:, None]
        )
        if rng.random() < 0.5:
            ramp = ramp[::-1, ::-1]
        image = Image.fromarray((np.asarray(image) * ramp[..., None]).astype(np.uint8))
    return image, ink


def _degrade(image: Image.Image, rng: random.Random, noise: np.random.Generator, letters: list[Letter]) -> Image.Image:
    """Mild degradation: a small rotation (also of ``letters``), blur, noise, JPEG."""
    if rng.random() < 0.2:
        degrees = rng.uniform(-0.7, 0.7)
        colour, slope = image.getpixel((0, 0)), math.radians(degrees)
        image = image.rotate(degrees, Image.BICUBIC, fillcolor=colour)
        letters[:] = [
            (letter, x + slope * (y - image.height / 2), y - slope * (x - image.width / 2)) for letter, x, y in letters
        ]
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.75)))
    if rng.random() < 0.3:
        pixels = np.asarray(image, np.float32)
        grain = noise.normal(0, rng.uniform(2, 12), pixels.shape[:2])[..., None]
        image = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(40, 90))
        image = Image.open(buffer).convert("RGB")
    return image


@register
class Blocks(Kind):
    name = "blocks"
    help = "text blocks (OCR and markdown)"

    def options(self, parser):
        defaults = BlockOptions()
        parser.add_argument("--lines", type=span, default=defaults.lines, help="e.g. 1-8, or 30")
        parser.add_argument("--columns", type=span, default=defaults.columns, help="characters per line")
        parser.add_argument(
            "--x-height", type=span_of_floats, default=defaults.x_height, help="letter height in pixels"
        )
        parser.add_argument("--font-size", type=span_of_floats, help="font sizes in pixels, instead of --x-height")
        parser.add_argument("--plain", action="store_true", help="no headings, lists or bold text")
        parser.add_argument("--repeats", type=share, default=0.0, help="share of blocks that repeat words, 0 to 1")
        parser.add_argument("--texts", type=Path, nargs="+", default=[], metavar="FILE", help="your own texts, UTF-8")
        parser.add_argument("--fonts", type=Path, metavar="FOLDER", help="your own fonts, *.ttf and *.otf")

    def renderer(self, options):
        chosen = BlockOptions(
            lines=options.lines,
            columns=options.columns,
            x_height=options.x_height,
            font_size=options.font_size,
            formatted=not options.plain,
            repeats=options.repeats,
            texts=tuple(options.texts),
            fonts=options.fonts,
        )
        left_out = sources.unknown(options.texts)
        if left_out:
            counts = ", ".join(f"{character} ({count})" for character, count in left_out.most_common(10))
            print(f"words with characters that the small models do not know are left out: {counts}", file=sys.stderr)
        return BlockRenderer(options.source, options.seed, options.split, chosen)

    def sources(self, options):
        return sources.origins(options.texts, options.fonts, options.split)
