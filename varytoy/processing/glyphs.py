"""Glyph pictures: wanted words in a plain font, where an image decoder is to write them."""

from functools import lru_cache
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from varytoy.data.boxes import Coordinates

_HIGH, _WIDE = 0.62, 0.94
"""Height of a capital letter with its descenders' room, and most width of the words, in sides of the box."""
LEAST = 6.0


def draw_glyphs(text: str, box: Coordinates, size: tuple[int, int], least: float = LEAST) -> Image.Image:
    """White words on black, "L", of ``size`` (width, height) pixels, in the middle of ``box`` (x1, y1, x2, y2).

    Args:
        least: size of letters below which words do not fit, pixels.

    Raises:
        ValueError: a letter that the font lacks, or a text too long for the box.
    """
    x1, y1, x2, y2 = box
    missing = sorted({letter for letter in text if not (letter.isspace() or _has(letter))})
    if missing:
        raise ValueError(f"the letter '{missing[0]}' cannot be written yet: use English letters, digits and signs")
    letters = min(_HIGH * (y2 - y1) / _cap(), _WIDE * (x2 - x1) / max(_font(100).getlength(text) / 100, 1e-6))
    if letters < least:
        raise ValueError(f"'{text}' is too long for the place: its letters would be too small. Make the place wider")
    picture = Image.new("L", size)
    middle = (y1 + y2) / 2 + 0.35 * letters
    ImageDraw.Draw(picture).text(((x1 + x2) / 2, middle), text, 255, _font(round(letters, 1)), anchor="ms")
    return picture


@lru_cache(64)
def _font(size: float) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=size))


@lru_cache(1)
def _cap() -> float:
    """Height of a capital letter, in sizes of the font."""
    return -_font(100).getbbox("H", anchor="ls")[1] / 100


@lru_cache(4096)
def _has(letter: str) -> bool:
    """Whether the font has a letter: what it lacks looks like a character that no font has."""
    return not np.array_equal(_drawn(letter), _drawn("\U0010fffe"))


def _drawn(letter: str) -> np.ndarray:
    return np.asarray(_font(24).getmask(letter, "L")).reshape(-1)
