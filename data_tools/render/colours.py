"""Colour words measured from a cut-out's pixels, and recoloured copies that measure as a given word."""

import numpy as np
from PIL import Image

PAINTS = {"red": 0, "orange": 25, "yellow": 52, "green": 115, "blue": 218, "purple": 272, "pink": 318}
"""Colours a cut-out can be painted in: the hue at the middle of the word's range, degrees."""

CONFUSABLE = frozenset(
    frozenset(pair.split())
    for pair in (
        "red orange,red pink,red brown,red purple,orange yellow,orange brown,orange pink,yellow brown,yellow white,"
        "blue purple,purple pink,gray white,gray black,black brown,gray brown,pink white"
    ).split(",")
)
"""Pairs of words that people do not reliably tell apart; a phrase never relies on one."""

_WORDS = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "unnamed")
_NEUTRAL = 3  # the first three words have no hue
_HUES = ((12, 3), (40, 4), (60, 5), (75, 11), (160, 6), (190, 11), (250, 7), (295, 8), (335, 9), (345, 11), (361, 3))
"""Upper end of each hue range (degrees) and the index of its word; unnamed ranges separate words that are confused."""
_SIDE = 48  # pixels of the longer side for a measurement

CHROMATIC_SHARE = 0.35
"""From this share of coloured pixels on, only these are counted: a red car has black tyres and grey windows."""
NEUTRAL_SHARE = 0.15
"""Below this share of coloured pixels a thing is black, white, gray or unnamed; between the two it has no word."""
DOMINANCE = 0.75
"""Least share of the counted pixels for a word."""


def colour_word(image: Image.Image) -> str | None:
    """The colour word of an RGBA cut-out, or None if no word applies to at least DOMINANCE of it."""
    pixels, alpha = _measured(image)
    words = _classify(pixels)[alpha > 128]
    if not len(words):
        return None
    counts = np.bincount(words, minlength=len(_WORDS))
    hued = counts[_NEUTRAL:].sum() / len(words)
    if hued >= CHROMATIC_SHARE:
        counts[:_NEUTRAL] = 0
    elif hued >= NEUTRAL_SHARE:
        return None
    best = int(counts.argmax())
    return _WORDS[best] if counts[best] >= DOMINANCE * counts.sum() and _WORDS[best] != "unnamed" else None


def paint(image: Image.Image, colour: str) -> Image.Image | None:
    """A copy with its main hue shifted to ``colour`` (a key of PAINTS); None if the result does not measure as that."""
    pixels = np.asarray(image.convert("RGB").convert("HSV")).astype(np.float32)
    alpha = np.asarray(image.getchannel("A"))
    hue, saturation, value = (pixels[..., channel] for channel in range(3))
    body = (saturation > 45) & (value > 45) & (alpha > 0)
    if body.sum() < CHROMATIC_SHARE * (alpha > 128).sum():
        return None
    histogram = np.bincount((hue[body] // 8).astype(int), minlength=32)
    main = float((histogram + np.roll(histogram, 1) + np.roll(histogram, -1)).argmax()) * 8 + 4
    away = (hue - main + 128) % 256 - 128
    body &= np.abs(away) < 28
    pixels[..., 0] = np.where(body, (PAINTS[colour] * 256 / 360 + away * 0.25) % 256, hue)
    pixels[..., 1] = np.where(body, np.clip(saturation, 150, 235), saturation)
    if colour in ("yellow", "orange", "pink"):  # dark yellow reads as brown
        pixels[..., 2] = np.where(body, 175 + value * 80 / 255, value)
    painted = Image.fromarray(pixels.astype(np.uint8), "HSV").convert("RGB")
    painted.putalpha(image.getchannel("A"))
    return painted if colour_word(painted) == colour else None


def _measured(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """HSV (degrees, 0-1, 0-1) and alpha (0-255) of at most _SIDE x _SIDE pixels."""
    step = max(1, max(image.size) // _SIDE)
    small = image.resize((max(1, image.width // step), max(1, image.height // step)), Image.Resampling.NEAREST)
    pixels = np.asarray(small.convert("RGB").convert("HSV")).astype(np.float32) / (256 / 360, 255, 255)
    return pixels, np.asarray(small.getchannel("A"))


def _classify(pixels: np.ndarray) -> np.ndarray:
    """Index into _WORDS of each HSV pixel."""
    hue, saturation, value = (pixels[..., channel] for channel in range(3))
    limits, codes = zip(*_HUES, strict=True)
    words = np.asarray(codes)[np.searchsorted(limits, hue, side="right")]
    reddish, earthy = (hue < 12) | (hue >= 335), (hue >= 8) & (hue < 46)
    words[reddish & (saturation < 0.55) & (value > 0.75)] = _WORDS.index("pink")
    words[earthy & (saturation < 0.45) & (value >= 0.8)] = _WORDS.index("unnamed")
    words[earthy & ((value < 0.65) | ((saturation < 0.5) & (value < 0.8)))] = _WORDS.index("brown")
    words[(hue >= 200) & (hue < 330) & (saturation < 0.45) & (value < 0.5)] = _WORDS.index("unnamed")
    words[(hue >= 40) & (hue < 60) & (value < 0.6)] = _WORDS.index("unnamed")
    words[saturation < 0.15] = _WORDS.index("gray")
    words[(saturation < 0.12) & (value > 0.85)] = _WORDS.index("white")
    words[(value < 0.22) | ((value < 0.35) & (saturation < 0.25))] = _WORDS.index("black")
    return words
