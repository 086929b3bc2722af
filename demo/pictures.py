"""The examples below the image: drawn at start, or those of ``demo/examples`` if it holds ``examples.json``."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

OWN = Path(__file__).with_name("examples")


@dataclass(frozen=True)
class Example:
    title: str
    path: str
    task: str
    prompt: str = ""


def examples(folder: Path, own: Path = OWN) -> list[Example]:
    """Those of ``own`` (a list of {"title", "file", "task", "prompt"}), else drawn into ``folder``."""
    index = own / "examples.json"
    if index.is_file():
        rows = json.loads(index.read_text(encoding="utf-8"))
        return [Example(row["title"], str(own / row["file"]), row["task"], row.get("prompt", "")) for row in rows]
    for name, image in (("sentence", _sentence()), ("note", _note()), ("scene", _scene())):
        image.save(folder / f"{name}.png")
    pages = [_page("Chapter one", 0), _page("Chapter two", 1)]
    pages[0].save(folder / "pages.pdf", save_all=True, append_images=pages[1:], resolution=100)
    pages[0].crop((0, 0, 800, 480)).save(folder / "pages.png")
    return [
        Example("Read a sentence", str(folder / "sentence.png"), "ocr"),
        Example("A note as markdown", str(folder / "note.png"), "markdown"),
        Example("Find things", str(folder / "scene.png"), "detect"),
        Example("Read a PDF", str(folder / "pages.pdf"), "ocr"),
    ]


def thumbnail(example: Example) -> str:
    """The image for the example's button; for a PDF, the image of the same name beside it."""
    path = Path(example.path)
    return str(path.with_suffix(".png") if path.suffix == ".pdf" else path)


def _paper(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image)


def _sentence() -> Image.Image:
    image, pen = _paper(640, 150)
    font = ImageFont.load_default(size=26)
    pen.text((30, 36), "The harbour lights went out one by one,", font=font, fill="#202020")
    pen.text((30, 78), "and only the ferry kept its lamp burning.", font=font, fill="#202020")
    return image


def _note() -> Image.Image:
    image, pen = _paper(520, 360)
    pen.text((36, 30), "Before the trip", font=ImageFont.load_default(size=34), fill="#151515")
    font = ImageFont.load_default(size=22)
    pen.text((36, 100), "Three things that must not be forgotten:", font=font, fill="#202020")
    for number, line in enumerate(("pack the blue tent", "water the plants", "leave a key next door")):
        y = 154 + number * 52
        pen.ellipse((44, y + 10, 52, y + 18), fill="#202020")
        pen.text((70, y), line, font=font, fill="#202020")
    return image


def _scene() -> Image.Image:
    """A heart, a star, a tree and a balloon."""
    image, pen = _paper(480, 360)
    pen.rectangle((0, 0, 480, 360), fill="#e8f1f8")
    pen.ellipse((50, 50, 110, 110), fill="#d1242f")
    pen.ellipse((104, 50, 164, 110), fill="#d1242f")
    pen.polygon([(55, 96), (107, 70), (159, 96), (107, 165)], fill="#d1242f")
    pen.polygon([_around(330, 100, 62 if corner % 2 == 0 else 25, corner / 10) for corner in range(10)], fill="#f2b705")
    pen.rectangle((100, 285, 118, 335), fill="#7a4a21")
    for top, half in ((190, 32), (220, 44), (250, 56)):
        pen.polygon([(109, top), (109 - half, top + 45), (109 + half, top + 45)], fill="#1a7f37")
    pen.ellipse((290, 195, 370, 290), fill="#0969da")
    pen.polygon([(330, 287), (322, 300), (338, 300)], fill="#0969da")
    pen.line((330, 300, 326, 345), fill="#555555", width=3)
    return image


def _around(x: float, y: float, radius: float, turn: float) -> tuple[float, float]:
    angle = 2 * math.pi * turn
    return x + radius * math.sin(angle), y - radius * math.cos(angle)


def _page(title: str, number: int) -> Image.Image:
    image, pen = _paper(800, 1000)
    font = ImageFont.load_default(size=28)
    pen.text((70, 80), title, font=ImageFont.load_default(size=44), fill="#151515")
    for row, line in enumerate(_STORY[number]):
        pen.text((70, 180 + row * 52), line, font=font, fill="#202020")
    return image


_STORY = (
    (
        "The baker opened the shop at five, as on every",
        "morning, and found a letter under the door.",
        "It held no name and only one line.",
    ),
    (
        "By noon the whole street had read the letter,",
        "and nobody would say who had written it.",
    ),
)
