"""Scenes of 3-8 cut-outs on a background, and the samples about them: detection, grounding, captions, questions.

A scene and its rows depend only on (seed, split, index) and on the images in the source folder. Kosmos-2 and Shikra
phrase grounding the same way: a phrase names its object by position or colour if there is another object of its class.
The rows are written in ``scene_rows``.
"""

import random
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from data_tools.render import textures
from data_tools.render.colours import PAINTS, colour_word
from data_tools.render.kind import Kind, register
from data_tools.render.pictures import (
    Library,
    alpha_box,
    library,
    load_background,
    load_cutout,
    origins,
    picture_classes,
)
from data_tools.render.scene_rows import Scene, Thing, scene_rows
from data_tools.writer import generator
from varytoy.data.boxes import iou
from varytoy.options import positive

SMALLEST, LARGEST = 0.18, 0.45
"""Longer side of a thing as a share of the image's shorter side."""
VISIBLE = 0.75
"""Minimum visible share of every thing."""
OVERLAP = 0.1
"""Largest intersection over union of two boxes."""
EMPTY_SHARE = 0.03
"""Share of scenes without any thing."""
_TRIES = 40
_CROWDED = {3: 0.45, 4: 0.45, 5: 0.42, 6: 0.38, 7: 0.35, 8: 0.33}
"""Largest size by number of things, so that all of them fit."""


@dataclass(frozen=True)
class SceneRenderer:
    """index -> (RGB image, rows). Picklable; decoded cut-outs are cached in each process.

    Args:
        source: folder that ``python -m data_tools fetch`` filled.
        seed: any integer.
        split: ``train`` never uses held-out images; ``test`` uses them beside the rest.
        size: longer side of the image, pixels. One in four images is up to a quarter less wide or high.

    Raises:
        SourceError: ``source`` holds no cut-outs; the message names the command that makes them.
    """

    source: Path
    seed: int
    split: str = "train"
    size: int = 224

    def __post_init__(self):
        _library(self.source, self.split)

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        image, scene = self.compose(index)
        names = tuple(_library(self.source, self.split).cutouts)
        name = f"scene-{self.split}-{self.seed}-{index}"
        return image, scene_rows(scene, names, name, generator(self.seed, "scene rows", self.split, index))

    def compose(self, index: int) -> tuple[Image.Image, Scene]:
        """The image and its scene."""
        pictures = _library(self.source, self.split)
        rng = generator(self.seed, "scene", self.split, index)
        width, height = _shape(self.size, rng)
        background = generator(self.seed, "background", self.split, index)
        canvas, words, unseen = _background(pictures, width, height, background, self.split)
        things: list[Thing] = []
        if rng.random() >= EMPTY_SHARE:
            things = _place_all(canvas, pictures, rng, self.split)
        things.sort(key=lambda thing: (thing.box[0], thing.box[1]))
        return canvas, Scene(width, height, tuple(things), words, unseen)


@lru_cache(maxsize=8)
def _library(source: Path, split: str) -> Library:
    return library(source, split)


def _shape(size: int, rng: random.Random) -> tuple[int, int]:
    if rng.random() < 0.75:
        return size, size
    short = round(size * rng.uniform(0.75, 1))
    return (size, short) if rng.random() < 0.5 else (short, size)


# ---- background ----


def _background(
    pictures: Library, width: int, height: int, rng: random.Random, split: str
) -> tuple[Image.Image, str, bool]:
    """The canvas, the caption's words about it, and whether it was held out of training."""
    if pictures.backgrounds and rng.random() < 0.5:
        chosen = list(pictures.backgrounds)
        if split == "test" and rng.random() < 0.5:
            chosen = [picture for picture in chosen if picture.held_out] or chosen
        folders = Counter(picture.folder for picture in chosen)
        words = rng.choices(list(folders), [count**0.5 for count in folders.values()])[0]
        picture = rng.choice([picture for picture in chosen if picture.folder == words])
        canvas = _crop(load_background(picture.path), width, height, rng)
        return canvas, "" if words == "_" else words, picture.held_out
    name = rng.choice(pictures.textures)
    canvas, words = textures.draw(name, width, height, np.random.default_rng(rng.getrandbits(64)))
    return canvas, words, name in textures.HELD_OUT


def _crop(image: Image.Image, width: int, height: int, rng: random.Random) -> Image.Image:
    """A random crop of ``image`` of the given shape and size, possibly mirrored, slightly lighter or darker."""
    whole = min(image.width / width, image.height / height)
    scale = whole * rng.uniform(0.5, 1)
    across, down = scale * width, scale * height
    left, top = rng.uniform(0, image.width - across), rng.uniform(0, image.height - down)
    box = (left, top, left + across, top + down)
    part = image.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    if rng.random() < 0.5:
        part = ImageOps.mirror(part)
    return ImageEnhance.Brightness(part).enhance(rng.uniform(0.8, 1.15))


# ---- things ----


def _place_all(canvas: Image.Image, pictures: Library, rng: random.Random, split: str) -> list[Thing]:
    """Paste 3-8 cut-outs onto ``canvas``. One that does not fit is left out; fewer than 3 are very rare."""
    names = _choose_names(sorted(pictures.cutouts), rng)
    largest = _CROWDED[len(names)]
    things: list[Thing] = []
    visible: list[np.ndarray] = []  # one (H, W) mask per thing: its visible pixels
    totals: list[int] = []
    previous: dict[str, str] = {}
    for name in names:
        path, held_out = _choose_cutout(pictures, name, previous, rng, split)
        cutout, colour = _coloured(path, name, rng, 0.9 if names.count(name) > 1 else 0.5)
        cutout, colour = _vary(cutout, colour, rng)
        side = min(canvas.size) * rng.uniform(SMALLEST + 0.02, largest)
        placement = _find_position(canvas, cutout, side, things, visible, totals, rng)
        if placement:
            small, (x, y) = placement
            canvas.paste(small, (x, y), small)
            _cover(canvas.size, small, (x, y), visible, totals)
            things.append(Thing(name, colour, (x, y, x + small.width, y + small.height), held_out))
    return things


def _choose_names(classes: list[str], rng: random.Random) -> list[str]:
    """3-8 class names in a random order, often with one of them several times."""
    count = rng.randint(3, 8)
    names = [rng.choice(classes)]
    if rng.random() < 0.5:
        paintable = [name for name in classes if _colour_mode(name) == "paint"]
        names = [rng.choice(paintable or classes if rng.random() < 0.4 else classes)] * rng.choice((2, 2, 3))
    while len(names) < count:
        repeated = rng.random() < 0.2
        name = rng.choice(names) if repeated else rng.choice(classes)
        if names.count(name) < 4:
            names.append(name)
    rng.shuffle(names)
    return names


def _choose_cutout(
    pictures: Library, name: str, previous: dict[str, str], rng: random.Random, split: str
) -> tuple[str, bool]:
    """Path and whether it is held out; the second thing of a class is often the same cut-out as the first."""
    choice = list(pictures.cutouts[name])
    if name in previous and rng.random() < 0.5:
        choice = [picture for picture in choice if picture.path == previous[name]]
    elif split == "test" and rng.random() < 0.6:
        choice = [picture for picture in choice if picture.held_out] or choice
    picture = rng.choice(choice)
    previous[name] = picture.path
    return picture.path, picture.held_out


def _coloured(path: str, name: str, rng: random.Random, painted_share: float) -> tuple[Image.Image, str | None]:
    """The cut-out, possibly painted if its class comes in any colour, and its colour word if it is informative."""
    mode = _colour_mode(name)
    if mode == "paint" and rng.random() < painted_share:
        painted = load_cutout(path, rng.choice(list(PAINTS)))
        if painted:
            return painted
    cutout, colour = load_cutout(path)
    return cutout, None if mode == "none" else colour


def _colour_mode(name: str) -> str:
    kind = picture_classes().get(name)
    return kind.colour if kind else "measure"


def _vary(cutout: Image.Image, colour: str | None, rng: random.Random) -> tuple[Image.Image, str | None]:
    """Mirrored, rotated up to 12 degrees, with changed brightness and hue unless that changes the colour word."""
    if rng.random() < 0.5:
        cutout = ImageOps.mirror(cutout)
    if rng.random() < 0.5:
        cutout = cutout.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR, expand=True)
    other = _relight(cutout, rng.uniform(0.85, 1.15), rng.randint(-4, 4))
    return (other if colour is None or colour_word(other) == colour else cutout), colour


def _relight(cutout: Image.Image, light: float, hue: int) -> Image.Image:
    """Brightness times ``light`` and hue plus ``hue`` / 256 of the circle."""
    hues, saturation, value = cutout.convert("RGB").convert("HSV").split()
    hues = hues.point([(level + hue) % 256 for level in range(256)])
    value = value.point([min(255, round(level * light)) for level in range(256)])
    changed = Image.merge("HSV", (hues, saturation, value)).convert("RGB")
    changed.putalpha(cutout.getchannel("A"))
    return changed


def _resized(cutout: Image.Image, side: float) -> Image.Image:
    """Cropped to the visible pixels and resized to ``side`` pixels, so that its box is its size."""
    cutout = cutout.crop(alpha_box(cutout))
    scale = side / max(cutout.size)
    small = cutout.resize((max(1, round(cutout.width * scale)), max(1, round(cutout.height * scale))))
    return small.crop(alpha_box(small))


def _find_position(
    canvas: Image.Image,
    cutout: Image.Image,
    side: float,
    things: list[Thing],
    seen: list[np.ndarray],
    totals: list[int],
    rng: random.Random,
) -> tuple[Image.Image, tuple[int, int]] | None:
    """The resized cut-out and its top left corner; smaller every ten tries. None if nothing fits."""
    small = _resized(cutout, side)
    for attempt in range(1, _TRIES + 1):
        x, y = rng.randint(0, canvas.width - small.width), rng.randint(0, canvas.height - small.height)
        box = (x, y, x + small.width, y + small.height)
        if all(iou(box, thing.box) < OVERLAP for thing in things) and _leaves_visible(small, box, seen, totals):
            return small, (x, y)
        if attempt % 10 == 0:
            side = max(SMALLEST * min(canvas.size), side * 0.8)
            small = _resized(cutout, side)
    return None


def _leaves_visible(small: Image.Image, box: tuple, seen: list[np.ndarray], totals: list[int]) -> bool:
    left, top, right, bottom = box
    mask = _mask(small)
    return all(
        visible.sum() - (visible[top:bottom, left:right] & mask).sum() >= VISIBLE * total
        for visible, total in zip(seen, totals, strict=True)
    )


def _cover(size: tuple[int, int], small: Image.Image, at: tuple[int, int], seen: list, totals: list) -> None:
    """Remove the new thing's pixels from the masks of the others, and add its own mask."""
    (x, y), mask = at, _mask(small)
    for visible in seen:
        visible[y : y + small.height, x : x + small.width] &= ~mask
    own = np.zeros(size[::-1], dtype=bool)
    own[y : y + small.height, x : x + small.width] = mask
    seen.append(own)
    totals.append(int(mask.sum()))


def _mask(small: Image.Image) -> np.ndarray:
    return np.asarray(small.getchannel("A")) > 128


@register
class Scenes(Kind):
    name = "scenes"
    help = "scenes of cut-outs (detection, grounding, captions, questions)"

    def options(self, parser):
        parser.add_argument("--size", type=positive, default=224, help="longer side in pixels")

    def renderer(self, options):
        return SceneRenderer(options.source, options.seed, options.split, options.size)

    def sources(self, options):
        return origins()
