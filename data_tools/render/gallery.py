"""Gallery: a sheet of images with the boxes, questions and answers of their samples."""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data_tools.writer import Pictures
from varytoy.data.boxes import SCALE
from varytoy.data.sample import IMAGE_PLACEHOLDER

_SIDE, _LINES, _LINE, _SPACE = 420, 14, 14, 10  # pixels and lines of a cell
_CHARACTERS = 66
_COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


def draw_gallery(
    images: Iterable[tuple[Image.Image | Pictures, list[dict]]],
    target: Path,
    columns: int = 4,
    words: bool = False,
    side: int = _SIDE,
) -> None:
    """Write a sheet of images with their rows: the boxes of all, and as many questions and answers as there is room.

    Args:
        words: draw the boxes of the printed words too.
        side: longest side of an image on the sheet, pixels.

    Raises:
        OSError, ValueError: the picture cannot be written there.
    """
    cells = [_cell(image, rows, words, side) for image, rows in images]
    lines = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in line) + _SPACE for line in lines]
    sheet = Image.new("RGB", (columns * (side + _SPACE) + _SPACE, sum(heights) + _SPACE), "white")
    for row, line in enumerate(lines):
        for column, cell in enumerate(line):
            sheet.paste(cell, (_SPACE + column * (side + _SPACE), _SPACE + sum(heights[:row])))
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)


def _cell(images: Image.Image | Pictures, rows: list[dict], words: bool, side: int) -> Image.Image:
    """Several images stand below each other."""
    several = images.values() if isinstance(images, Mapping) else [images]
    shown = [_with_boxes(image, rows, words, side) for image in several]
    lines = [line for row in rows for line in _written(row)][:_LINES]
    height = sum(image.height for image in shown)
    cell = Image.new("RGB", (side, height + _LINE * len(lines) + 6), "#f2f2f2")
    top = 0
    for image in shown:
        cell.paste(image, (0, top))
        top += image.height
    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(cell).multiline_text((2, height + 2), "\n".join(lines), font=font, fill="black", spacing=2)
    return cell


def _with_boxes(image: Image.Image, rows: list[dict], words: bool, side: int) -> Image.Image:
    shown = image.convert("RGB")
    scale = side / max(shown.size)
    shown = shown.resize((max(round(shown.width * scale), 1), max(round(shown.height * scale), 1)))
    pen = ImageDraw.Draw(shown)
    labels: dict[str, str] = {}
    for box in (box for row in rows for box in row.get("boxes", ())):
        colour = labels.setdefault(box["label"], _COLOURS[len(labels) % len(_COLOURS)])
        sides = [side * (shown.width, shown.height)[number % 2] / SCALE for number, side in enumerate(box["box"])]
        pen.rectangle(sides, outline=colour)
    if words:
        sides = rows[0].get("annotations", {}).get("word_boxes", [])
        for start in range(0, len(sides), 4):
            place = [
                edge * (shown.width, shown.height)[number % 2] / SCALE
                for number, edge in enumerate(sides[start : start + 4])
            ]
            pen.rectangle(place, outline=_COLOURS[0])
    return shown


def _written(row: dict) -> list[str]:
    """The lines of a sample's text: its task, its first question and answer, shortened."""
    question, answer = (message["content"].replace(IMAGE_PLACEHOLDER, "").strip() for message in row["messages"][:2])
    text = f"{row['task']}: {question} -> {answer}".replace("\n", " / ")
    return textwrap.wrap(text, _CHARACTERS)[:4]
