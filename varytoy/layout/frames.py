"""Frames in a colour that somebody drew around a part of an image, to have it read."""

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from varytoy.layout.components import label_components

COLOURS = ("red", "green", "blue")
Box = tuple[int, int, int, int]
Place = Sequence[float] | str
"""x1, y1, x2, y2 in pixels of the image, or the colour of a frame in it."""
_COLOUR, _BOX = "|".join(COLOURS), r"\s*\d{1,4}\s*(?:,\s*\d{1,4}\s*){3}"
_PLACE = re.compile(rf"\s*\[(?:(?P<colour>{_COLOUR})|(?P<box>{_BOX}))\]\s*(?=OCR\b)", re.IGNORECASE)
_STRONGER = 40
"""Levels, of 255, by which the colour's channel exceeds the others."""
_CLOSED = 0.8
"""Share of each side of a frame that must be drawn."""


def parse_place(text: str) -> Place:
    """``red``, or ``40,30,200,90``. Raises ValueError."""
    if text.strip().lower() in COLOURS:
        return text.strip().lower()
    numbers = re.fullmatch(r"\s*\[?" + r"[\s,]+".join([r"(\d{1,6}(?:\.\d+)?)"] * 4) + r"\]?\s*", text)
    if not numbers:
        known = ", ".join(COLOURS)
        raise ValueError(
            f"'{text}' is no part of an image: give x1,y1,x2,y2 in pixels, or the colour of a frame ({known})"
        )
    return [float(number) for number in numbers.groups()]


def place_in_prompt(prompt: str, size: tuple[int, int]) -> tuple[Place | None, str]:
    """The part of an image of ``size`` pixels that a prompt in GOT-OCR2's words names, and the rest of the prompt:
    ``[x1, y1, x2, y2] OCR: ``, in thousandths of the image, or ``[red] OCR: ``."""
    match = _PLACE.match(prompt)
    if match is None:
        return None, prompt
    rest = prompt[match.end() :]
    if match["colour"]:
        return match["colour"].lower(), rest
    return in_pixels([int(side) for side in match["box"].split(",")], size), rest


def in_pixels(thousandths: Sequence[float], size: tuple[int, int]) -> list[float]:
    """xyxy in thousandths of an image -> in pixels of its ``size`` (width, height)."""
    return [side * length / 1000 for side, length in zip(thousandths, size * 2, strict=True)]


def find_place(place: Place, image: Image.Image) -> Box:
    """The box xyxy, in pixels, of a part of an image.

    Raises:
        ValueError: the box lies outside the image or is empty, or there is no frame in that colour.
    """
    if isinstance(place, str):
        if place not in COLOURS:
            raise ValueError(f"no frames in '{place}'; there are {', '.join(COLOURS)}")
        found = colour_frame(image, place)
        if found is None:
            raise ValueError(f"there is no {place} frame in the image")
        return found
    x1, y1, x2, y2 = (round(side) for side in place)
    box = (max(x1, 0), max(y1, 0), min(x2, image.width), min(y2, image.height))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError(
            f"the box [{x1}, {y1}, {x2}, {y2}] has no pixel of the image, which has {image.width} x {image.height}: "
            "give x1,y1,x2,y2 with x1 < x2 and y1 < y2"
        )
    return box


def colour_frame(image: Image.Image, colour: str) -> Box | None:
    """The inside, xyxy, of the largest closed frame in a colour; None if there is none."""
    channel = COLOURS.index(colour)
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    others = np.delete(pixels, channel, axis=2).max(axis=2)
    mask = Image.fromarray((pixels[..., channel] - others > _STRONGER).astype(np.uint8) * 255)
    _, _, boxes, areas = label_components(np.asarray(mask.filter(ImageFilter.MaxFilter(3))) > 0)
    drawn = np.asarray(mask) > 0
    best: Box | None = None
    for x0, y0, x1, y1 in boxes[np.argsort(-areas)][:50]:
        inside = _inside(drawn[y0:y1, x0:x1])
        if inside is not None and (best is None or _area(inside) > _area(best)):
            left, top, right, bottom = inside
            best = (int(x0 + left), int(y0 + top), int(x0 + right), int(y0 + bottom))
    return best


def _inside(part: np.ndarray) -> Box | None:
    """The inside of a frame that fills ``part`` [h, w]; None if it is no frame."""
    height, width = part.shape
    thick = [_thickness(side) for side in (part, part.T, part[::-1], part[:, ::-1].T)]  # top, left, bottom, right
    if not all(thick):
        return None
    top, left, bottom, right = thick
    box = (left, top, width - right, height - bottom)
    return box if box[0] < box[2] - 4 and box[1] < box[3] - 4 else None


def _thickness(part: np.ndarray) -> int:
    """Rows up to the end of the frame's upper side; 0 if there is none."""
    full = part.mean(axis=1) >= _CLOSED
    near = max(len(full) // 4, 4)
    if not full[:near].any():
        return 0
    first = int(full.argmax())
    return first + int((~full[first:]).argmax()) if (~full[first:]).any() else 0


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
