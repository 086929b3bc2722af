"""Sheet music: one staff of a few bars by Verovio; the answer is its **kern."""

import io
import math
import random
from fractions import Fraction

import numpy as np
from PIL import Image

from data_tools.program import share, span
from data_tools.render.degrade import degrade
from data_tools.render.kind import Kind, register
from data_tools.render.looks import named, text_row
from data_tools.writer import generator, of_split
from varytoy.extras import require
from varytoy.formats.draw import raster
from varytoy.formats.engraver import engrave

FONTS = ("Leipzig", "Bravura", "Leland", "Gootville", "Petaluma")
"""Verovio's; the last two are for ``--split test`` alone."""
_HELD_OUT = 2
_CLEFS = {"G2": 34, "F4": 22, "C3": 28, "C4": 26}
"""Clef -> the step of the middle line, counted from the lowest C, seven an octave; middle C is 28."""
_METERS = {"4/4": 4, "3/4": 3, "2/4": 2, "2/2": 4, "6/8": 2, "9/8": 3}
"""Meter -> its beats: quarters, or dotted quarters where it is in eighths."""
_SHARPS = "fcgdaeb"
_BEATS = {
    "4": ("4", "4", "4", "8 8", "8 8", "8. 16", "16 16 16 16", "8 16 16", "16 16 8", "12 12 12", "4r", "8r 8"),
    "4.": ("4.", "8 8 8", "8 8 8", "4 8", "8 4", "8. 16 8", "8 16 16 8", "4.r", "8 8r 8"),
}
_TWO_BEATS = {"4": ("2", "2", "4. 8", "8 4 8", "2r"), "4.": ("2.",)}
_MOVES = (-4, -3, -2, -2, -1, -1, -1, -1, 0, 1, 1, 1, 1, 2, 2, 3, 4)
"""Steps of the scale from one note to the next."""
_REACH = 6
"""Steps above and below the middle line."""


def random_music(rng: random.Random, bars: int) -> str:
    """A melody in **kern with rests, dots, triplets, chords, slurs and accidentals, beamed by beats.

    It ends on the key note. Bars have no numbers, which the picture would not show either.
    """
    clef, meter = rng.choice((*_CLEFS, "G2", "G2", "F4")), rng.choice((*_METERS, "4/4", "3/4"))
    signs = rng.randint(-5, 5)
    altered = _SHARPS[:signs] if signs >= 0 else _SHARPS[signs:]
    sign = "#" if signs >= 0 else "-"
    key = "".join(f"{step}{sign}" for step in (altered if signs >= 0 else reversed(altered)))
    lines = ["**kern", f"*clef{clef}", f"*k[{key}]", f"*M{meter}"]
    melody = _Melody(rng, _CLEFS[clef], dict.fromkeys(altered, sign), (4 * signs) % 7)
    for bar in range(bars):
        last = bar == bars - 1
        lines += [] if bar == 0 else ["="]
        groups = _rhythm(rng, _METERS[meter], "4." if meter.endswith("8") else "4", last)
        for number, group in enumerate(groups, 1):
            lines += melody.group(group, last and number == len(groups))
    return "\n".join([*melody.ended(lines), "==", "*-"])


def _rhythm(rng: random.Random, beats: int, beat: str, last: bool) -> list[list[str]]:
    """Groups of lengths that fill a bar; the last bar ends on a long note."""
    groups: list[list[str]] = []
    left = beats
    if last and beats % 2 == 0:
        left -= 2
    elif last:
        left -= 1
    while left:
        two = left >= 2 and rng.random() < 0.25
        groups.append(rng.choice(_TWO_BEATS[beat] if two else _BEATS[beat]).split())
        left -= 2 if two else 1
    if last:
        groups.append([beat] if beats % 2 else [_TWO_BEATS[beat][0]])
    return groups


class _Melody:
    """A walk through a scale around the middle line of a staff."""

    def __init__(self, rng: random.Random, middle: int, altered: dict[str, str], tonic: int):
        self.rng, self.middle, self.altered, self.tonic = rng, middle, altered, tonic
        self.step = middle + rng.randint(-3, 3)
        self.slurred, self.since = False, 0

    def group(self, lengths: list[str], final: bool) -> list[str]:
        """A token for each length, beamed; ``final``: the one note at the end."""
        beams = [0 if "r" in length else _beams(length) for length in lengths]
        written = []
        for number, length in enumerate(lengths):
            written.append(length if "r" in length else self._note(length, final) + _beam_signs(beams, number))
        return written

    def _note(self, length: str, final: bool) -> str:
        rng = self.rng
        move = rng.choice(_MOVES)
        if abs(self.step + move - self.middle) > _REACH:
            move = -move
        self.step += move
        if final:
            self.step = min(range(self.step - 3, self.step + 4), key=lambda step: (step - self.tonic) % 7)
        self.since += 1
        names = [self._named(self.step)]
        if not final and _beams(length) < 2 and rng.random() < 0.08:
            names.append(self._named(self.step + rng.choice((2, 4, 5))))
        if not final and len(names) == 1 and rng.random() < 0.06:
            names = [self._chromatic(self.step)]
        slur = ""
        if self.slurred and (self.since > 2 and rng.random() < 0.5):
            self.slurred, slur = False, ")"
        elif not self.slurred and not final and rng.random() < 0.06:
            self.slurred, slur, self.since = True, "(", 0
        opening, closing = (slur, "") if slur == "(" else ("", slur)
        mark = rng.choice(("'", "^")) if rng.random() < 0.03 else ";" if final and rng.random() < 0.2 else ""
        first, *others = names
        return " ".join([f"{opening}{length}{first}{mark}{closing}", *(f"{length}{name}" for name in others)])

    def _named(self, step: int) -> str:
        letter = "cdefgab"[step % 7]
        octave = step // 7
        name = letter * (octave - 3) if octave >= 4 else letter.upper() * (4 - octave)
        return name + self.altered.get(letter, "")

    def _chromatic(self, step: int) -> str:
        """A note beside the scale: sharpened, flattened, or natural where the key alters it."""
        letter = "cdefgab"[step % 7]
        name = self._named(step).rstrip("#-")
        return f"{name}n" if letter in self.altered else name + self.rng.choice("#-")

    def ended(self, lines: list[str]) -> list[str]:
        """The lines with no slur left open."""
        if self.slurred:
            start = max(number for number, line in enumerate(lines) if "(" in line)
            lines[start] = lines[start].replace("(", "")
        return lines


def _beams(length: str) -> int:
    value = int(length.rstrip(".r"))
    return 2 if value >= 16 else 1 if value >= 8 else 0


def _beam_signs(beams: list[int], number: int) -> str:
    """L, J and k: beams that begin, end, and are a stump at a note."""
    own = beams[number]
    before = beams[number - 1] if number else 0
    after = beams[number + 1] if number + 1 < len(beams) else 0
    if not own or not (before or after):
        return ""
    opens, closes = max(own - before, 0), max(own - after, 0)
    stumps = min(opens, closes)
    return "L" * (opens - stumps) + "J" * (closes - stumps) + ("k" if after == 0 else "K") * stumps


def bar_lengths(kern: str) -> list[Fraction]:
    """Of each bar, in whole notes."""
    bars, sums = [], Fraction(0)
    for line in kern.splitlines():
        if line.startswith("="):
            bars.append(sums)
            sums = Fraction(0)
        elif not line.startswith("*"):
            digits = "".join(letter for letter in line.split()[0] if letter.isdigit() or letter == ".")
            value = Fraction(1, int(digits.rstrip(".")))
            sums += value * (Fraction(3, 2) if digits.endswith(".") else 1)
    return bars


class MusicRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, seed: int, split: str, bars: tuple[int, int], strength: float):
        self.seed, self.split, self.bars, self.strength = seed, split, bars, strength
        self.fonts = FONTS[-_HELD_OUT:] if split == "test" else FONTS[:-_HELD_OUT]

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "music", self.split, index)
        kern = of_split(lambda: random_music(rng, rng.randint(*self.bars)), self.split)
        font = rng.choice(self.fonts)
        image = draw_music(kern, rng, font)
        image, _ = degrade(image, np.array([[0, 0, *image.size]]), rng, self.strength)
        return image, named([text_row("music", kern, rng, font=font)], "music", self.split, self.seed, index)


def draw_music(kern: str, rng: random.Random, font: str) -> Image.Image:
    """The staff, in one line or several, cut to its ink with a margin."""
    options = {
        "font": font,
        "scale": 100,
        "pageWidth": rng.randint(900, 2100),
        "spacingLinear": rng.uniform(0.2, 0.32),
        "spacingSystem": rng.randint(6, 12),
        "staffLineWidth": rng.uniform(0.1, 0.2),
        "barLineWidth": rng.uniform(0.25, 0.4),
        "stemWidth": rng.uniform(0.15, 0.25),
        "beamMaxSlope": rng.randint(4, 14),
        "xmlIdSeed": 1,
    }
    (svg,) = engrave(kern, options)
    with Image.open(io.BytesIO(raster(svg, 1))) as drawn:
        grey = np.asarray(drawn.convert("L"))
    rows, columns = np.flatnonzero((grey < 128).any(1)), np.flatnonzero((grey < 128).any(0))
    grey = grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = rng.uniform(0.3, 0.6)
    size = (math.ceil(grey.shape[1] * scale), math.ceil(grey.shape[0] * scale))
    ink = Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS)
    left, top, right, bottom = (rng.randint(8, 36) for _ in range(4))
    image = Image.new("L", (left + size[0] + right, top + size[1] + bottom), 255)
    image.paste(ink, (left, top))
    dark, light = (rng.randint(0, 70), rng.randint(225, 255)) if rng.random() < 0.4 else (0, 255)
    return image.point([dark + (light - dark) * value // 255 for value in range(256)])


@register
class Music(Kind):
    name = "music"
    help = "sheet music of one staff (music: **kern)"

    def options(self, parser):
        parser.add_argument("--bars", type=span, default=(2, 6), help="in an image (default: 2-6)")
        parser.add_argument("--degrade", type=share, default=0.3, help="strength of the scan, 0 to 1 (default: 0.3)")

    def renderer(self, options):
        require("render", "verovio", "resvg_py", by="the kind 'music'")
        return MusicRenderer(options.seed, options.split, options.bars, options.degrade)

    def sources(self, options):
        return {"Verovio": "LGPL-3.0 (music fonts: OFL-1.1)"}
