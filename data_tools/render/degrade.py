"""Degradations of a scan or photocopy: skew, blur, noise, bleed-through, paper, uneven light, shadow, fold and JPEG;
and of a till's print: needles, faded heat, a scan in black and white, condensed letters.

Each takes an image, grey or RGB, an amount from 0 (nothing) to 1 and a random generator, and keeps the size. None of
them mirrors or crops the text.
"""

import io
import math
import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from data_tools.render.textures import smooth_noise

Colour = tuple[int, int, int]
_MOST_DEGREES = 2.5
_UNIT = 1024
"""Longer side, in pixels, of the pages that the amounts are made for; blur grows with larger ones."""


def degrade(
    image: Image.Image, boxes: np.ndarray, rng: random.Random, strength: float, paper: Colour = (255, 255, 255)
) -> tuple[Image.Image, np.ndarray]:
    """Some degradations, chosen at random, one after the other.

    Args:
        boxes: [N, 4] in pixels; they move with the skew.
        strength: 0: the image as it is; 1: many and strong ones, still readable.
        paper: what is around the page after a skew.
    """
    if strength <= 0:
        return image, boxes
    often = 0.2 + 0.4 * strength
    for name in ("bleed", "paper", "light", "shadow", "fold", "skew", "blur", "noise", "jpeg"):
        if rng.random() < often:
            amount = strength * rng.uniform(0.25, 1.0)
            if name == "skew":
                image, boxes = skew(image, boxes, amount, rng, paper)
            else:
                image = DEGRADATIONS[name](image, amount, rng)
    return image, boxes


def skew(
    image: Image.Image, boxes: np.ndarray, amount: float, rng: random.Random, paper: Colour = (255, 255, 255)
) -> tuple[Image.Image, np.ndarray]:
    """Turn a page by up to 2.5 degrees, by less where a box would leave it. Returns the turned boxes."""
    degrees = amount * _MOST_DEGREES * rng.choice((-1, 1))
    size = np.array([*image.size] * 2)
    for _ in range(8):
        turned = turned_boxes(boxes, degrees, image.size)
        if not len(boxes) or ((turned[:, :2] >= 0).all() and (turned <= size).all()):
            break
        degrees /= 2
    else:
        return image, boxes
    fill = paper if image.mode == "RGB" else round(sum(paper) / 3)
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill), turned


def turned_boxes(boxes: np.ndarray, degrees: float, size: tuple[int, int]) -> np.ndarray:
    """Upright boxes [N, 4] around boxes that turn about the middle of a page, anticlockwise as seen."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = boxes[:, [0, 2, 2, 0]] - size[0] / 2
    y = boxes[:, [1, 1, 3, 3]] - size[1] / 2
    across, down = x * cosine + y * sine + size[0] / 2, y * cosine - x * sine + size[1] / 2
    return np.stack([across.min(1), down.min(1), across.max(1), down.max(1)], 1)


def blur(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Out of focus by up to a pixel on a page of 1024."""
    radius = amount * max(image.size) / _UNIT
    return image.filter(ImageFilter.GaussianBlur(radius))


def noise(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Grain, the same in all channels."""
    width, height = image.size
    random_bits = np.random.default_rng(rng.getrandbits(63)).integers(0, 1 << 16, (height, width), np.uint16)
    grain = (_normal() * (22 * amount)).astype(np.int16)[random_bits]
    pixels = np.asarray(image).astype(np.int16)
    pixels += grain if pixels.ndim == 2 else grain[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))


@lru_cache(maxsize=1)
def _normal() -> np.ndarray:
    """Values of the normal distribution, to be picked from by 16 random bits."""
    return np.random.default_rng(0).standard_normal(1 << 16, dtype=np.float32)


def bleed(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """The other side of the sheet shines through: mirrored, blurred and faint text. Dark paper shows none."""
    if np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX)).mean() < 128:
        return image
    back = ImageOps.mirror(image.convert("L")).filter(ImageFilter.BoxBlur(1.2 * max(image.size) / _UNIT))
    back = ImageChops.offset(back, rng.randint(-40, 40), rng.randint(-60, 60))
    share = 0.05 + 0.2 * amount
    return _times(image, back.point([round(255 - share * max(235 - value, 0)) for value in range(256)]))


def paper(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Unevenness of the paper: stains and fibres."""
    width, height = image.size
    generator = np.random.default_rng(rng.getrandbits(63))
    coarse = smooth_noise(width, height, 5, 7, generator)[..., 0]
    fine = smooth_noise(width, height, width // 3, height // 5, generator)[..., 0]
    return _times(image, _map(1 - amount * (0.1 * coarse + 0.09 * fine)))


def light(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Light that falls off to one side or corner."""
    angle, (width, height) = rng.uniform(0, 2 * math.pi), image.size
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    slope = (x[None, :] * math.cos(angle) + y[:, None] * math.sin(angle)) / 2.83 + 0.5
    return _times(image, _map(1 - 0.5 * amount * slope))


def shadow(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """The soft shadow of a hand or of a book's middle over an edge of the page."""
    width, height = image.size
    x, y = np.linspace(0, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32)
    angle = rng.choice((0, 0.5, 1, 1.5)) * math.pi + rng.uniform(-0.5, 0.5)
    along = (x[None, :] - 0.5) * math.cos(angle) + (y[:, None] - 0.5) * math.sin(angle)
    edge, soft = rng.uniform(0.15, 0.35), rng.uniform(0.03, 0.15)
    dark = np.clip((along - edge) / soft, 0, 1)
    return _times(image, _map(1 - 0.5 * amount * dark))


def fold(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """One or two creases, straight across the page: a dark line, and a darker side."""
    width, height = image.size
    lines = {"x": np.ones(width, np.float32), "y": np.ones(height, np.float32)}
    for side in rng.choice(("x", "y", "xy")):
        line = lines[side]
        place = rng.uniform(0.3, 0.7) * len(line)
        far = np.arange(len(line), dtype=np.float32) - place
        wide = rng.uniform(20, 90)
        line -= amount * 0.25 * np.exp(-np.abs(far) / wide) * (far > 0)
        line -= amount * 0.3 * np.exp(-((far / rng.uniform(0.8, 1.8)) ** 2))
    return _times(image, _map(lines["y"][:, None] * lines["x"][None, :]))


def jpeg(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Compressed, at a quality from 90 down to 25."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=round(90 - 65 * amount))
    return Image.open(data).convert(image.mode)


def needles(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Printed by needles: letters are made of dots, two to three pixels apart. Only dark letters on light paper."""
    ink, paper = _ink(image)
    height, width = ink.shape
    step = rng.uniform(1.6, 3.2)
    rows, columns = max(round(height / step), 1), max(round(width / step), 1)
    cells = Image.fromarray(ink).resize((columns, rows), Image.Resampling.BOX).resize((width, height), Image.NEAREST)
    y, x = np.arange(height) * rows / height % 1 - 0.5, np.arange(width) * columns / width % 1 - 0.5
    round_dot = np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / (2 * rng.uniform(0.26, 0.45) ** 2))
    dots = np.clip(np.asarray(cells, np.float32) * rng.uniform(1.4, 2.2), 0, 1) * round_dot.astype(np.float32)
    return _inked(image, paper, amount * dots + (1 - amount) * ink, ink)


def faded(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Ink that is pale in places, as on old thermal paper, with streaks where the head did not heat."""
    ink, paper = _ink(image)
    height, width = ink.shape
    generator = np.random.default_rng(rng.getrandbits(63))
    across, down = max(width // rng.randint(20, 150), 2), max(height // rng.randint(6, 150), 2)
    left = 1 - amount * (0.35 + 0.5 * smooth_noise(width, height, across, down, generator)[..., 0])
    for _ in range(rng.choice((0, 0, 1, 3))):
        x = rng.randrange(width)
        left[:, x : x + rng.randint(1, 2)] *= 0.3
    return _inked(image, paper, ink * np.clip(left, 0.12, 1), ink)


def two_levels(image: Image.Image, amount: float, rng: random.Random) -> Image.Image:
    """Scanned in black and white: strokes with ragged edges, thicker or thinner than they were."""
    ink, paper = _ink(image)
    generator = np.random.default_rng(rng.getrandbits(63))
    ragged = ink + generator.normal(0, 0.05 + 0.12 * amount, ink.shape).astype(np.float32) * (ink > 0.02)
    level = 0.5 + amount * rng.uniform(-0.25, 0.12)
    return _inked(image, paper, (ragged > level).astype(np.float32), ink)


def till_print(
    image: Image.Image, boxes: np.ndarray, rng: random.Random, strength: float
) -> tuple[Image.Image, np.ndarray]:
    """The print of a till: condensed at times; of needles or two levels, and faded, the more often the stronger.

    Args:
        boxes: [N, 4] in pixels; they move with the letters.
        strength: 0: the image as it is.
    """
    if strength <= 0:
        return image, boxes
    if rng.random() < 0.4:
        width = round(image.width * rng.uniform(0.62, 0.95))
        boxes = boxes * [width / image.width, 1, width / image.width, 1]
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    often = min(0.3 + strength, 1.0)
    if rng.random() < 0.7 * often:
        image = DEGRADATIONS[rng.choice(("needles", "two_levels"))](image, rng.uniform(0.4, 1.0), rng)
    if rng.random() < 0.4 * often:
        image = faded(image, rng.uniform(0.4, 1.0), rng)
    return image, boxes


def _ink(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel is ink, 0-1 [H, W], and the colour of the paper, [] or [3]."""
    pixels = np.asarray(image, np.float32)
    paper = np.percentile(pixels.reshape(len(pixels) * pixels.shape[1], -1), 90, axis=0)
    far = np.abs(pixels.reshape(*pixels.shape[:2], -1) - paper).max(2)
    return far / max(float(far.max()), 1.0), paper.squeeze()


def _inked(image: Image.Image, paper: np.ndarray, ink: np.ndarray, before: np.ndarray) -> Image.Image:
    """The image with another share of ink in each pixel, in the colour of its darkest one."""
    pixels = np.asarray(image, np.float32)
    colour = pixels[np.unravel_index(before.argmax(), before.shape)]
    share = np.clip(ink, 0, 1)
    mixed = paper + (colour - paper) * (share if pixels.ndim == 2 else share[..., None])
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def _map(shares: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * np.clip(shares, 0, 1)).astype(np.uint8))


def _times(image: Image.Image, shares: Image.Image) -> Image.Image:
    """The image, darker where ``shares`` is below 255."""
    return ImageChops.multiply(image, shares if image.mode == "L" else Image.merge("RGB", [shares] * 3))


DEGRADATIONS: dict[str, Callable[[Image.Image, float, random.Random], Image.Image]] = {
    "bleed": bleed,
    "paper": paper,
    "light": light,
    "shadow": shadow,
    "fold": fold,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "needles": needles,
    "faded": faded,
    "two_levels": two_levels,
}
"""All but the skew, which moves boxes too; the last three are of tills."""
