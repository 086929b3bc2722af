"""Parts of a page, named by a box or by a frame in a colour, as GOT-OCR2 is asked to read them."""

import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from varytoy.data.boxes import SCALE, Box, around
from varytoy.layout.frames import COLOURS, in_pixels

_MOST = 6
"""Lines of a part."""
_ROOM = 3
"""Thousandths of the page between the lines and the edge of the part."""
_EDGE = 6
"""Least thousandths between a part and the edge of the page, where its frame stands."""
_SHADES = {"red": (220, 20, 30), "green": (10, 150, 40), "blue": (20, 60, 220)}


def part_of(lines: Sequence[Box], rng: random.Random) -> tuple[tuple[int, int, int, int], str] | None:
    """xyxy in thousandths around some lines that stand below each other, without others in it, and their text; None
    if there is no such part. ``lines``: with their text as labels, in the order of reading."""
    starts = list(range(len(lines)))
    rng.shuffle(starts)
    for start in starts:
        for count in range(rng.randint(1, _MOST), 0, -1):
            own = lines[start : start + count]
            box = _around(own)
            others = [line for number, line in enumerate(lines) if not start <= number < start + count]
            if min(box) >= _EDGE and max(box) <= SCALE - _EDGE and not any(_meet(box, line.xyxy) for line in others):
                return box, "\n".join(line.label for line in own)
    return None


def _around(lines: Sequence[Box]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = around([line.xyxy for line in lines])
    return x0 - _ROOM, y0 - _ROOM, x1 + _ROOM, y1 + _ROOM


def _meet(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def asked_for(box: Sequence[int], image: Image.Image, rng: random.Random) -> tuple[str, str, Image.Image]:
    """How the part is named, by its box or a frame in a colour, the prompt, and the image with the frame."""
    if rng.random() < 0.5:
        return "box", f"[{', '.join(map(str, box))}] OCR: ", image
    colour = rng.choice(COLOURS)
    width = rng.randint(2, 3)
    corners = in_pixels(box, image.size)
    outside = [corners[0] - width, corners[1] - width, corners[2] + width, corners[3] + width]
    image = image.convert("RGB")
    ImageDraw.Draw(image).rectangle([round(side) for side in outside], outline=_SHADES[colour], width=width)
    return "colour", f"[{colour}] OCR: ", image
