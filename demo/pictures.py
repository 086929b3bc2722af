"""The examples below the image: photographs and images drawn at start, or those of ``demo/examples`` if it holds
``examples.json``."""

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

OWN = Path(__file__).with_name("examples")
PHOTOS = Path(__file__).with_name("photos")


@dataclass(frozen=True)
class Example:
    title: str
    path: str
    task: str
    prompt: str = ""


def examples(folder: Path, own: Path = OWN) -> list[Example]:
    """Those of ``own`` (a list of {"title", "file", "task", "prompt"}), else photographs, and text drawn into
    ``folder``."""
    index = own / "examples.json"
    if index.is_file():
        rows = json.loads(index.read_text(encoding="utf-8"))
        return [Example(row["title"], str(own / row["file"]), row["task"], row.get("prompt", "")) for row in rows]
    for name, image in (("sentence", _sentence()), ("note", _note())):
        image.save(folder / f"{name}.png")
    pages = [_page("Chapter one", 0), _page("Chapter two", 1)]
    pages[0].save(folder / "pages.pdf", save_all=True, append_images=pages[1:], resolution=100)
    pages[0].crop((0, 0, 800, 480)).save(folder / "pages.png")
    return [
        Example("Read a sentence", str(folder / "sentence.png"), "ocr"),
        Example("A note as markdown", str(folder / "note.png"), "markdown"),
        Example("Read a PDF", str(folder / "pages.pdf"), "ocr"),
        Example("Describe a photograph", str(PHOTOS / "eagle.jpg"), "caption"),
        Example("Find the hat", str(PHOTOS / "hopper.jpg"), "ground", "the hat"),
        Example("Ask about it", str(PHOTOS / "hopper.jpg"), "vqa", "How many people are there?"),
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
