"""Pairs for writing and erasing: a place on a photograph or on paper empty, with a text, and with another text in its
style. All else is the same in the three images, noise and compression too, but what JPEG does around letters."""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from data_tools.assets import languages
from data_tools.program import share
from data_tools.render import textures
from data_tools.render.degrade import DEGRADATIONS
from data_tools.render.glyphs import face
from data_tools.render.kind import Kind, register
from data_tools.render.looks import Look, named
from data_tools.render.pictures import library, load_background, origins
from data_tools.render.scene_text import contrasting, luma
from data_tools.render.sheet import thousandths
from data_tools.render.themes import number_of
from data_tools.writer import Pictures, generator, of_split, question_row
from varytoy.data.pictures import FORMATS
from varytoy.tasks import TASKS

SIZE = (256, 64)
"""Width and height of the images, pixels."""
_FINER = 3
"""Letters are drawn so many times larger, and made smaller."""
_LEAST_CONTRAST = 70
"""Of 255, between letters and the middle of what is behind them."""
_LONGER = 1.5
"""Most letters of the other text for each of the first, in whose width it is written."""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class _Style:
    """How a text is drawn. Lengths are in heights of its letters; ``shadow``: how far to the right and down."""

    path: str
    number: int
    colour: tuple[int, int, int]
    opacity: float
    outline: float
    outline_colour: tuple[int, int, int]
    shadow: tuple[float, float]
    shadow_share: float
    spacing: float


class WordPairRenderer:
    """index -> (images by name, rows): see data_tools.writer. Equal arguments give equal images.

    Args:
        photographs: backgrounds beside those of the source.
        strength: of the flaws of camera and compression, 0 to 1.
    """

    def __init__(self, look: Look, seed: int, photographs: Sequence[Path] = (), strength: float = 0.5):
        self.look, self.seed, self.strength = look, seed, strength
        self.photographs = list(photographs)
        self.library = library(look.source, look.split)
        held_out = tuple(each for each in self.library.backgrounds if each.held_out)
        self.backgrounds = held_out if look.split == "test" and held_out else self.library.backgrounds
        self.fonts = languages.fonts(look.source, look.split, look.language)

    def __call__(self, index: int) -> tuple[Pictures, list[dict]]:
        rng = generator(self.seed, "word-pairs", self.look.split, index)
        clean = self._background(rng)
        font = rng.choice(self.fonts)
        covers = face(font.path, number_of(font)).covers
        old, new = self._text(rng, covers), self._text(rng, covers)
        while new == old or len(new) > _LONGER * len(old) + 1:
            new = self._text(rng, covers)
        style = self._style(rng, font, clean)
        size, place, bend = self._place(rng, style, old)
        layers: list[Image.Image] = []
        while not layers or any(map(_is_cut, layers)):
            layers = [self._letters(style, old, size, place, bend)]
            left, _, right, _ = layers[0].getbbox() or (0, 0, *SIZE)
            layers.append(self._letters(style, new, size, place, bend, wide=right - left))
            size *= 0.9
        box = _around([layer.getbbox() or (0, 0, *SIZE) for layer in layers], rng)
        images = [clean, *(_printed(clean, layer, style, size) for layer in layers)]
        flaws = rng.getrandbits(63)
        clean, with_old, with_new = (self._flawed(image, random.Random(flaws)) for image in images)
        pictures = {"clean": clean, "old": with_old, "new": with_new}
        return pictures, named(self._rows(rng, old, new, box, font), "word-pairs", self.look.split, self.seed, index)

    def _rows(self, rng: random.Random, old: str, new: str, box: tuple, font) -> list[dict]:
        where = thousandths(np.array([box], float), SIZE)
        common = {"boxes": [{"label": "text", "box": where}], "metadata": {"font": font.family, "style": font.style}}
        asked = {"erase": "", "edit": new, "generate": new}
        shown = {
            "erase": ("old", ["clean"]),
            "edit": ("old", ["new", "clean"]),
            "generate": ("clean", ["new", "clean"]),
        }
        rows = []
        for task, words in asked.items():
            prompt = TASKS[task].prompt(words, rng if rng.random() < 0.5 else None)
            image, targets = shown[task]
            texts = {"plain_text": old if image == "old" else "", "wanted_text": words}
            files = {"images": [image], "target_images": targets}
            rows.append(question_row(task, prompt, TASKS[task].answer(""), annotations=texts) | files | common)
        return rows

    # ---- what is written ----

    def _text(self, rng: random.Random, covers) -> str:
        """A word or a few, a number, or random letters; of the split."""
        return of_split(lambda: self._any_text(rng, covers), self.look.split)

    def _any_text(self, rng: random.Random, covers) -> str:
        while True:
            sort = rng.random()
            if sort < 0.62:
                paragraph = rng.choice(
                    languages.prose_paragraphs(self.look.source, self.look.split, self.look.language)
                )
                words = [word.strip(".,;:()\"'") for word in paragraph.split()]
                start = rng.randrange(len(words))
                text = " ".join(words[start : start + rng.choice((1, 1, 1, 1, 2, 2, 3))])
            elif sort < 0.82:
                text = _number(rng)
            else:
                text = "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(rng.randint(2, 9)))
            text = rng.choice((str, str, str.upper, str.lower, str.capitalize))(text)
            if 1 <= len(text) <= 18 and text.isascii() and covers(text):
                return text

    # ---- how it looks ----

    def _background(self, rng: random.Random) -> Image.Image:
        width, height = SIZE
        if self.photographs and rng.random() < 0.5:
            with Image.open(rng.choice(self.photographs), formats=FORMATS) as opened:
                picture = opened.convert("RGB")
        elif self.backgrounds and rng.random() < 0.5:
            picture = load_background(rng.choice(self.backgrounds).path)
        else:
            noise = np.random.default_rng(rng.getrandbits(63))
            return textures.draw(rng.choice(self.library.textures), width, height, noise)[0]
        across = rng.uniform(0.25, 1.0) * min(picture.width, picture.height * width / height)
        across, down = max(across, 16.0), max(across * height / width, 4.0)
        left, top = rng.uniform(0, max(picture.width - across, 0)), rng.uniform(0, max(picture.height - down, 0))
        part = (left, top, min(left + across, picture.width), min(top + down, picture.height))
        return picture.resize(SIZE, Image.Resampling.BICUBIC, box=part)

    def _style(self, rng: random.Random, font, clean: Image.Image) -> _Style:
        behind = np.asarray(clean.convert("L"), float)[16:48, 32:224].mean()
        colour = contrasting(rng, behind, _LEAST_CONTRAST)
        outlined, shadowed = rng.random() < 0.2, rng.random() < 0.25
        return _Style(
            font.path,
            number_of(font),
            colour,
            rng.uniform(0.75, 1.0),
            rng.uniform(0.04, 0.12) if outlined else 0.0,
            contrasting(rng, luma(colour), _LEAST_CONTRAST),
            (rng.uniform(-0.15, 0.15), rng.uniform(0.03, 0.15)) if shadowed else (0.0, 0.0),
            rng.uniform(0.3, 0.8) if shadowed else 0.0,
            rng.uniform(0, 0.15) if rng.random() < 0.15 else 0.0,
        )

    def _place(self, rng: random.Random, style: _Style, text: str) -> tuple[float, tuple[float, float], np.ndarray]:
        """Size of the letters, the place of the text's middle, and where the image's corners move to."""
        width, height = SIZE
        size = rng.uniform(0.35, 0.85) * height
        natural = _font(style, size).getlength(text) / _FINER + style.spacing * size * len(text)
        size *= min(1.0, rng.uniform(0.6, 0.92) * width / natural)
        half = min(natural * size, width) / 2
        x = width / 2 + rng.uniform(-0.5, 0.5) * max(0.9 * width - 2 * half, 0)
        bend = np.array([[rng.uniform(-0.05, 0.05) * width * 0.3, rng.uniform(-0.08, 0.08) * height] for _ in range(4)])
        return size, (x, height / 2 + rng.uniform(-0.08, 0.08) * height), bend * (rng.random() < 0.6)

    def _letters(
        self, style: _Style, text: str, size: float, place: tuple[float, float], bend: np.ndarray, wide: float = 0.0
    ) -> Image.Image:
        """Coverage of the letters, "L", of the images' size. A text wider than ``wide`` pixels has smaller letters."""
        width, height = SIZE
        font = _font(style, size)
        if wide:
            natural = font.getlength(text) / _FINER + style.spacing * size * (len(text) - 1)
            if natural > wide:
                font = _font(style, max(size * wide / natural, 6.0))
        layer = Image.new("L", (width * _FINER, height * _FINER))
        pen, (x, y) = ImageDraw.Draw(layer), place
        extra = style.spacing * size * _FINER
        length = font.getlength(text) + extra * (len(text) - 1)
        left = min(
            max(x * _FINER - length / 2, 2.0 * _FINER), max(width * _FINER - length - 2.0 * _FINER, 2.0 * _FINER)
        )
        base = y * _FINER + 0.35 * font.size
        if extra:
            for letter in text:
                pen.text((left, base), letter, 255, font, anchor="ls")
                left += font.getlength(letter) + extra
        else:
            pen.text((left, base), text, 255, font, anchor="ls")
        if bend.any():
            corners = np.array([[0, 0], [0, height], [width, height], [width, 0]], float)
            quad = (corners + bend) * _FINER
            layer = layer.transform(layer.size, Image.Transform.QUAD, tuple(quad.flatten()), Image.Resampling.BILINEAR)
        return layer.resize(SIZE, Image.Resampling.BOX)

    def _flawed(self, image: Image.Image, rng: random.Random) -> Image.Image:
        if rng.random() < 0.4:
            image = image.filter(ImageFilter.GaussianBlur(self.strength * rng.uniform(0.2, 1.6)))
        for name, often in (("light", 0.2), ("noise", 0.4), ("jpeg", 0.4)):
            if rng.random() < often and self.strength:
                image = DEGRADATIONS[name](image, self.strength * rng.uniform(0.1, 0.8), rng)
        return image


def _font(style: _Style, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(style.path, size * _FINER, index=style.number)


def _printed(clean: Image.Image, letters: Image.Image, style: _Style, size: float) -> Image.Image:
    """The letters on a background, with outline and shadow."""
    image = clean.copy()
    if style.shadow_share:
        moved = Image.new("L", letters.size)
        moved.paste(letters, tuple(round(side * size) for side in style.shadow))
        soft = moved.filter(ImageFilter.GaussianBlur(0.03 * size)).point(lambda value: value * style.shadow_share)
        image.paste((0, 0, 0), (0, 0), soft)
    if style.outline:
        wide = 2 * max(round(style.outline * size / 2), 1) + 1
        image.paste(style.outline_colour, (0, 0), letters.filter(ImageFilter.MaxFilter(wide)))
    image.paste(style.colour, (0, 0), letters.point(lambda value: value * style.opacity))
    return image


def _is_cut(letters: Image.Image) -> bool:
    """Whether letters reach a side of the image."""
    left, top, right, bottom = letters.getbbox() or (1, 1, 1, 1)
    return left == 0 or top == 0 or right == letters.width or bottom == letters.height


def _around(boxes: Sequence[tuple[int, int, int, int]], rng: random.Random) -> tuple[float, float, float, float]:
    """A box around several, with room for outline and shadow and as much as a person leaves."""
    left, top = (min(box[side] for box in boxes) - rng.uniform(3, 8) for side in (0, 1))
    right, bottom = (max(box[side] for box in boxes) + rng.uniform(3, 8) for side in (2, 3))
    return max(left, 0), max(top, 0), min(right, SIZE[0]), min(bottom, SIZE[1])


def _number(rng: random.Random) -> str:
    """A price, a date, a time, a number or a percentage."""
    return rng.choice(
        (
            f"{rng.choice('$£')}{rng.randint(0, 999)}.{rng.randint(0, 99):02}",
            f"{rng.randint(0, 99)}.{rng.randint(0, 99):02}",
            f"{rng.randint(1, 28)}/{rng.randint(1, 12)}/{rng.randint(1980, 2030)}",
            f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}",
            str(rng.randint(1, 99999)),
            f"{rng.randint(1, 100)}%",
        )
    ).replace("£", "$")


@register
class WordPairs(Kind):
    name = "word-pairs"
    help = "places with a text, with another and without, to learn erasing, editing and writing"

    def options(self, parser):
        parser.add_argument("--degrade", type=share, default=0.5, help="strength of the photograph's flaws, 0 to 1")
        parser.add_argument("--photographs", type=Path, help="folder of pictures for more backgrounds")

    def renderer(self, options):
        look = Look(Path(options.source), options.split)
        folder = options.photographs
        files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES] if folder else []
        if folder and not files:
            raise ValueError(f"--photographs {folder}: no pictures in this folder")
        return WordPairRenderer(look, options.seed, files, options.degrade)

    def sources(self, options):
        return languages.origins(languages.ENGLISH, options.split) | origins()
