"""Contact sheets: pictures with a few lines of text below each."""

import textwrap
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, LINES, COLUMNS = 300, 7, 5
_CHARACTERS, _GAP = 44, 12


def draw(tiles: Iterable[tuple[Image.Image, Iterable[str]]], target: Path) -> None:
    """Write a sheet of (picture, paragraphs), five in a row; seven lines of text each."""
    tiles = list(tiles)
    font = ImageFont.load_default(size=12)
    width, height = SIDE + _GAP, SIDE + 16 * LINES + _GAP
    rows = max(-(-len(tiles) // COLUMNS), 1)
    sheet = Image.new("RGB", (COLUMNS * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (image, paragraphs) in enumerate(tiles):
        x, y = _GAP + number % COLUMNS * width, _GAP + number // COLUMNS * height
        small = image.copy()
        small.thumbnail((SIDE, SIDE))
        sheet.paste(small, (x, y))
        lines = [line for part in paragraphs for line in textwrap.wrap(part, _CHARACTERS)]
        pen.multiline_text((x, y + SIDE + 2), "\n".join(lines[:LINES]), font=font, fill="black", spacing=2)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
