"""Procedural backgrounds: plain colours, gradients, sky, sand, wood, water, fields, checks, stripes, soft noise."""

from collections.abc import Callable

import numpy as np
from PIL import Image

PLAIN = {
    "white": (242, 242, 240),
    "gray": (150, 152, 155),
    "black": (28, 28, 32),
    "blue": (120, 165, 225),
    "green": (140, 200, 140),
    "yellow": (240, 225, 130),
    "pink": (245, 185, 205),
    "purple": (170, 140, 205),
    "orange": (240, 175, 110),
    "brown": (130, 95, 65),
}
"""Named colours of plain backgrounds, RGB; each image varies them a little."""

HELD_OUT = ("stripes",)
"""Textures that are not used in training images."""


def draw(name: str, width: int, height: int, random: np.random.Generator) -> tuple[Image.Image, str]:
    """The texture and the words of a caption about it (``on sand``), which may be empty."""
    pixels, words = TEXTURES[name](width, height, random)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB"), words


def smooth_noise(width: int, height: int, across: int, down: int, random: np.random.Generator) -> np.ndarray:
    """(H, W, 1) in 0-1: ``across`` x ``down`` random values, interpolated smoothly."""
    grid = Image.fromarray((random.random((down, across)) * 255).astype(np.uint8))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)[..., None] / 255


def _tone(random: np.random.Generator, *rgb: int, spread: int = 14) -> np.ndarray:
    return np.asarray(rgb, dtype=np.float32) + random.uniform(-spread, spread, 3).astype(np.float32)


def _mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    return low + (high - low) * share


def _down(height: int) -> np.ndarray:
    return np.linspace(0, 1, height, dtype=np.float32)[:, None, None]


def _grain(width: int, height: int, random: np.random.Generator) -> np.ndarray:
    return random.random((height, width, 1), dtype=np.float32) - 0.5


def _plain(width, height, random):
    name = str(random.choice(list(PLAIN)))
    shade = smooth_noise(width, height, 2, 2, random) - 0.5
    words = f"on {'an' if name == 'orange' else 'a'} {name} background"
    return _tone(random, *PLAIN[name], spread=10) + 16 * shade, words


def _gradient(width, height, random):
    first, second = random.uniform(60, 245, (2, 3)).astype(np.float32)
    return _mix(first, second, smooth_noise(width, height, 2, 2, random)), ""


def _noise(width, height, random):
    first, second, third = random.uniform(40, 240, (3, 3)).astype(np.float32)
    coarse, fine = (smooth_noise(width, height, cells, cells, random) for cells in random.integers(3, 24, 2))
    return _mix(_mix(first, second, coarse), third, 0.5 * fine) + 20 * _grain(width, height, random), ""


def _sky(width, height, random):
    air = _mix(_tone(random, 85, 145, 215), _tone(random, 170, 205, 240), _down(height))
    cells = int(random.integers(3, 6))
    large, small = smooth_noise(width, height, cells, cells * 2, random), smooth_noise(width, height, 14, 20, random)
    clouds = np.clip(2.1 * large + 0.9 * small - 1.4, 0, 1)
    return _mix(air, _tone(random, 245, 245, 248, spread=4), clouds), "against a blue sky"


def _sand(width, height, random):
    dunes = smooth_noise(width, height, 3, 7, random) * 40 - 20
    return _tone(random, 218, 190, 140) + dunes + 46 * _grain(width, height, random), "on sand"


def _wood(width, height, random):
    tone = _tone(random, *((168, 118, 72) if random.random() < 0.6 else (118, 78, 50)))
    fibres = smooth_noise(width, height, 4, height // 2, random) * 46 + smooth_noise(width, height, 3, 14, random) * 36
    plank = height // int(random.integers(3, 7))
    seams = (np.arange(height) % plank < 2)[:, None, None] * 50
    shades = random.uniform(-14, 14, height // plank + 1)[np.arange(height) // plank][:, None, None]
    return tone + fibres - 41 - seams + shades, "on wood"


def _water(width, height, random):
    waves = smooth_noise(width, height, 8, 40, random) * 0.6 + smooth_noise(width, height, 4, 12, random) * 0.4
    return _mix(_tone(random, 30, 90, 150), _tone(random, 140, 200, 225), np.clip(waves * 1.8 - 0.4, 0, 1)), "on water"


def _ground(words: str, *rgb: int) -> Callable:
    def texture(width, height, random):
        pixels = np.array(np.broadcast_to(_sky(width, height, random)[0], (height, width, 3)))
        horizon = int(height * random.uniform(0.3, 0.55))
        tufts = smooth_noise(width, height - horizon, 40, 50, random) * 40 - 20
        light = _down(height - horizon) * 30 - 15
        pixels[horizon:] = _tone(random, *rgb) + tufts + light + 30 * _grain(width, height - horizon, random)
        return pixels, words

    return texture


def _pattern(words: str, checks: bool) -> Callable:
    def texture(width, height, random):
        cell = int(random.integers(14, 40))
        across, down = np.arange(width) // cell, np.arange(height) // cell
        share = (across[None, :] + (down[:, None] if checks else 0 * down[:, None])) % 2
        first, second = random.uniform(90, 235, (2, 3)).astype(np.float32)
        return _mix(first, second, share[..., None].astype(np.float32)), words

    return texture


TEXTURES: dict[str, Callable] = {
    "plain": _plain,
    "gradient": _gradient,
    "noise": _noise,
    "sky": _sky,
    "sand": _sand,
    "wood": _wood,
    "water": _water,
    "field": _ground("in a field", 100, 150, 65),
    "beach": _ground("on a beach", 220, 195, 145),
    "checks": _pattern("on a checkered background", checks=True),
    "stripes": _pattern("on a striped background", checks=False),
}
"""name -> (width, height, generator) -> pixels (H, W, 3) 0-255 and the caption's words."""
