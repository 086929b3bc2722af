"""Contact sheets: pictures with a few lines of text below each."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE, LINES, COLUMNS = 300, 7, 5
_CHARACTERS, _GAP = 44, 12


def draw(tiles: Iterable[tuple[Image.Image, Sequence[str]]], target: Path, lines: int = LINES) -> None:
    """Write a sheet of (picture, paragraphs), five in a row. ``lines``: of text below each; paragraphs that need more
    share them evenly."""
    tiles = list(tiles)
    font = ImageFont.load_default(size=12)
    width, height = SIDE + _GAP, SIDE + 16 * lines + _GAP
    rows = max(-(-len(tiles) // COLUMNS), 1)
    sheet = Image.new("RGB", (COLUMNS * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (image, paragraphs) in enumerate(tiles):
        x, y = _GAP + number % COLUMNS * width, _GAP + number // COLUMNS * height
        small = image.copy()
        small.thumbnail((SIDE, SIDE))
        sheet.paste(small, (x, y))
        wrapped = [textwrap.wrap(part, _CHARACTERS) for part in paragraphs]
        if sum(map(len, wrapped)) > lines:
            wrapped = [part[: lines // len(wrapped)] for part in wrapped]
        written = "\n".join(line for part in wrapped for line in part)
        pen.multiline_text((x, y + SIDE + 2), written, font=font, fill="black", spacing=2)
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
