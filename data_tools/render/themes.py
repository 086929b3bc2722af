"""Themes: the fonts, sizes, margins and colours of a page."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data_tools.assets import languages
from data_tools.assets.packages import SourceError
from data_tools.assets.sources import Font
from data_tools.render.glyphs import Face, Style, face

Colour = tuple[int, int, int]
_MONOSPACED = ("Mono", "Typewriter", "Inconsolata", "Cursor")
_HELD_OUT_MONOSPACED = ("Latin Modern Mono", "Linux Libertine Mono O")
_MONO_FILES = ("lmmono10-regular.otf", "lmmono9-regular.otf", "LinLibertine_M.otf")
_LEAST_PITCH = 0.0122
"""Of a line, in longer sides of the page: 12.5 pixels of 1024."""
_DARK = ((0, 0, 0), (0, 0, 0), (20, 20, 20), (45, 45, 45))
_ACCENTS = ((20, 50, 120), (130, 20, 30), (10, 95, 70), (90, 40, 120), (160, 80, 0))


@dataclass(frozen=True)
class Theme:
    """How a page looks. Lengths are pixels; ``body`` has the faces regular, bold, italic and bold italic."""

    body: tuple[Font, Font, Font, Font]
    heading: Font
    mono: Font
    size: float
    pitch: float
    margins: tuple[int, int, int, int]
    columns: int = 1
    gutter: int = 0
    paper: Colour = (255, 255, 255)
    ink: Colour = (0, 0, 0)
    accent: Colour = (0, 0, 0)
    faint: Colour = (120, 120, 120)
    justified: bool = False
    indented: bool = False
    centred: bool = False
    table: str = "ruled"
    darkness: float = 1.0

    def style(self, bold: bool = False, italic: bool = False, code: bool = False, scale: float = 1.0) -> Style:
        font = self.mono if code else self.body[bold + 2 * italic]
        return self._style(font, self.size * scale, self.ink)

    def heading_style(self, scale: float) -> Style:
        return self._style(self.heading, self.size * scale, self.accent)

    def small(self, scale: float = 0.85) -> Style:
        return self._style(self.body[0], self.size * scale, self.ink)

    def _style(self, font: Font, size: float, colour: Colour) -> Style:
        return Style(font.path, round(size * 4) / 4, colour, number_of(font))

    def covers(self, text: str) -> bool:
        """Whether all fonts of the theme have all characters of a text."""
        return all(font_face(font).covers(text) for font in {*self.body, self.heading})

    @property
    def has_bold(self) -> bool:
        return self.body[1] != self.body[0]

    @property
    def has_italic(self) -> bool:
        return self.body[2] != self.body[0]


def number_of(font: Font) -> int:
    return getattr(font, "number", 0)


def font_face(font: Font) -> Face:
    return face(font.path, number_of(font))


@lru_cache(maxsize=16)
def families(source: Path, split: str, language: str) -> tuple[tuple[Font, Font, Font, Font], ...]:
    """Regular, bold, italic and bold italic face of each way to set a text; a face that a family lacks is the regular
    one. Raises SourceError."""
    fonts = languages.fonts(source, split, language)
    found = []
    for font in fonts:
        same = {other.style.replace("oblique", "italic"): other for other in fonts if other.family == font.family}
        if font.upright:
            bold, italic = same.get("bold", font), same.get("italic", font)
            found.append((font, bold, italic, same.get("bold italic", bold if bold != font else italic)))
        elif language != languages.CHINESE:  # a page all in bold, medium or italic letters
            found.append((font, font, font, font))
    if not found:
        raise SourceError(f"no {split} fonts for '{language}' in {source / 'fonts'}")
    return tuple(found)


@lru_cache(maxsize=4)
def monospaced(source: Path, split: str) -> tuple[Font, ...]:
    """Upright fonts for code. Those for ``test`` are used nowhere else."""
    if split == "test":
        paths = [source / "fonts" / name for name in _MONO_FILES]
        held_out = tuple(Font(path.stem, "regular", str(path)) for path in paths if path.is_file())
        if held_out:
            return held_out
    fonts = languages.fonts(source, split)
    return tuple(font for font in fonts if any(word in font.family for word in _MONOSPACED) and font.upright) or tuple(
        font for font in fonts if font.upright
    )


@lru_cache(maxsize=4096)
def _suits(font: Font, sample: str) -> bool:
    """Whether a font has nearly all of the letters that a language needs."""
    letters = set(sample)
    known = font_face(font)
    return sum(known.covers(letter) for letter in letters) >= 0.97 * len(letters)


def alphabet(texts: Sequence[str]) -> str:
    """The letters of a sample of texts that are not rare."""
    counts: dict[str, int] = {}
    sample = texts[:: max(len(texts) // 400, 1)]
    least = 3 if len(sample) >= 100 else 1
    for text in sample:
        for character in set(text):
            counts[character] = counts.get(character, 0) + 1
    return "".join(sorted(letter for letter, count in counts.items() if count >= least and letter != " "))


def random_theme(
    rng: random.Random,
    source: Path,
    split: str,
    language: str,
    letters: str,
    size: tuple[int, int],
    lines: tuple[int, int],
    columns: tuple[int, int],
    inverted: float = 0.06,
) -> Theme:
    """A theme for a page of ``size`` pixels with a number of lines and columns in the given ranges; ``letters``: what
    the fonts must have; ``inverted``: share of pages with light letters on dark paper."""
    sets = families(source, split, language)
    upright = [each for each in sets if each[0].upright] or sets
    for _ in range(60):
        body = rng.choice(upright if rng.random() < 0.85 else sets)
        if all(_suits(font, letters) for font in set(body)):
            break
    else:
        raise SourceError(f"no {split} font in {source / 'fonts'} has the letters of '{language}'")
    heads = [each for each in sets if each[1] != each[0] and _suits(each[1], letters)]
    heading = rng.choice(heads)[1] if heads and rng.random() < 0.3 else body[1]
    if language == languages.CHINESE:
        heading = body[1]
    width, height = size
    number = rng.randint(*columns)
    margins = tuple(round(rng.uniform(*span) * length) for span, length in _margins(width, height))
    pitch = (height - margins[1] - margins[3]) / (rng.randint(*lines) + 0.2)
    pitch = max(pitch, _LEAST_PITCH * max(size))
    leading = rng.uniform(1.3, 1.75) if language == languages.CHINESE else rng.uniform(1.12, 1.6)
    letter = pitch / leading
    most = 0.75 * width / (10 * letter)  # columns of about ten letters at least
    number = max(min(number, int(most)), columns[0])
    gutter = round(rng.uniform(1.2, 2.4) * letter)
    column = (width - margins[0] - margins[2] - gutter * (number - 1)) / number
    letter = min(letter, column / (14 if language == languages.CHINESE else 12))
    pitch = min(pitch, 2.4 * letter)
    paper, ink, accent, faint = _colours(rng, inverted)
    return Theme(
        body,
        heading,
        rng.choice(monospaced(source, split)),
        letter,
        pitch,
        margins,
        number,
        gutter,
        paper,
        ink,
        accent,
        faint,
        justified=rng.random() < (0.6 if number > 1 else 0.4),
        indented=rng.random() < 0.45,
        centred=rng.random() < 0.25,
        table=rng.choice(("ruled", "lines", "booktabs", "striped", "plain")),
        darkness=rng.uniform(0.7, 1.05),
    )


def _margins(width: int, height: int) -> tuple[tuple[tuple[float, float], int], ...]:
    side, end = (0.05, 0.12), (0.06, 0.1)
    return (side, width), (end, height), (side, width), (end, height)


def _colours(rng: random.Random, inverted: float) -> tuple[Colour, Colour, Colour, Colour]:
    """Paper, ink, headings and thin rules."""
    kind = rng.random()
    if kind < inverted:
        dark = rng.randint(0, 40)
        paper = (dark,) * 3 if rng.random() < 0.6 else tuple(rng.randint(0, 60) for _ in range(3))
        ink = (rng.randint(215, 255),) * 3
        return paper, ink, ink, (150, 150, 150)
    if kind < 0.75:
        paper = (255, 255, 255) if rng.random() < 0.75 else (rng.randint(232, 254),) * 3
        ink = rng.choice(_DARK)
        return paper, ink, ink, (rng.randint(90, 170),) * 3
    paper = (255, 255, 255) if rng.random() < 0.5 else tuple(rng.randint(228, 255) for _ in range(3))
    ink = rng.choice(_DARK)
    return paper, ink, rng.choice(_ACCENTS), (150, 150, 160)
