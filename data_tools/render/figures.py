"""Figures on a page: textures with shapes on them, without text."""

import random

import numpy as np
from PIL import Image, ImageDraw

from data_tools.render import textures


def figure_picture(seed: int, width: int, pitch: float) -> Image.Image:
    """A picture of at most ``width`` pixels and about five to twelve lines of text in height; half of them are grey."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    across = max(round(width * rng.choice((0.5, 0.7, 0.85, 1.0))), 8)
    down = max(min(round(pitch * rng.uniform(5, 12)), round(1.2 * across)), 8)
    small = (max(across // 2, 8), max(down // 2, 8))  # half the resolution is enough for a background
    image = textures.draw(rng.choice(sorted(textures.TEXTURES)), *small, noise)[0].resize((across, down))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 5)):
        x, y = rng.uniform(0.05, 0.7) * across, rng.uniform(0.05, 0.7) * down
        box = (x, y, x + rng.uniform(0.08, 0.25) * across, y + rng.uniform(0.08, 0.25) * down)
        colour = tuple(rng.randint(20, 240) for _ in range(3))
        draw = rng.choice((pen.ellipse, pen.rectangle))
        draw(box, fill=colour, outline=(30, 30, 30))
    return image.convert("L") if seed % 2 else image
