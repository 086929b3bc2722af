"""Text is told from photographs, on pictures drawn here and a photograph that Matplotlib brings."""

import time

import numpy as np
import pytest
from conftest import drawn_photograph, photograph
from PIL import Image, ImageDraw, ImageFont, ImageOps

from varytoy.layout import is_text

SENTENCE = "the committee met on Tuesday and agreed on seven proposals of twenty"


def page(paper="white", ink="black", size: int = 20, width: int = 900, height: int = 1200) -> Image.Image:
    image, font = Image.new("RGB", (width, height), paper), ImageFont.load_default(size=size)
    for line in range(3, height // (2 * size) - 2):
        ImageDraw.Draw(image).text((3 * size, 2 * line * size), f"{line} {SENTENCE}", ink, font)
    return image


def word(text: str = "window", size: int = 26, paper="white", ink="black", margin: int = 5) -> Image.Image:
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = map(round, font.getbbox(text))
    image = Image.new("RGB", (right - left + 2 * margin, bottom - top + 2 * margin), paper)
    ImageDraw.Draw(image).text((margin - left, margin - top), text, ink, font)
    return image


def lit(image: Image.Image) -> Image.Image:
    """As a camera sees it: darker to one corner, yellowish, noisy."""
    values = np.asarray(image, np.float32)
    rows, columns = np.mgrid[: image.height, : image.width]
    light = 0.9 - 0.25 * rows / image.height - 0.25 * columns / image.width
    noise = np.random.default_rng(3).normal(0, 5, values.shape)
    return Image.fromarray(np.clip(values * light[..., None] * (1, 0.96, 0.85) + noise, 0, 255).astype(np.uint8))


def with_photograph() -> Image.Image:
    image = page()
    image.paste(photograph().resize((400, 470)), (250, 300))
    return image


def slide() -> Image.Image:
    """Large letters on paper of changing colour."""
    image = Image.linear_gradient("L").resize((1280, 720))
    image = ImageOps.colorize(image, "#003355", "#447799")
    for line, text in enumerate(("Three things", "that you must", "not forget")):
        ImageDraw.Draw(image).text((100, 80 + 180 * line), text, "white", ImageFont.load_default(size=100))
    return image


TEXT = {
    "page": page,
    "small": lambda: page(size=11, width=450, height=600),
    "inverted": lambda: ImageOps.invert(page()),
    "sideways": lambda: page(size=40).rotate(90, expand=True),
    "camera": lambda: lit(page()),
    "camera, sideways": lambda: lit(page()).rotate(90, expand=True),
    "with a photograph": with_photograph,
    "slide": slide,
    "word": word,
    "large word": lambda: word(size=120, margin=40),
    "light word": lambda: word("Press", 18, "#224488", "white"),
    "grey": lambda: page().convert("L"),
    "blank": lambda: Image.new("RGB", (800, 1000), "white"),
    "blank, camera": lambda: lit(Image.new("RGB", (800, 1000), "white")),
    "dot": lambda: Image.new("RGB", (1, 1), "white"),
}
PHOTOGRAPHS = {
    "photograph": photograph,
    "small": lambda: photograph().resize((96, 112)),
    "grey": lambda: photograph().convert("L"),
    "sideways": lambda: photograph().rotate(90, expand=True),
    "two megapixels": lambda: photograph().resize((1300, 1520)),
    "clouds": drawn_photograph,
    "with a border": lambda: ImageOps.expand(photograph(), 40, "white"),
    "few colours": lambda: photograph().quantize(32).convert("RGB"),
}


@pytest.mark.parametrize("name", TEXT)
def test_text(name):
    assert is_text(TEXT[name]())


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photograph(name):
    assert not is_text(PHOTOGRAPHS[name]())


def test_thing_on_plain_paper_is_no_text():
    """Snow, a night or a studio: one colour all around, but the mark on it is wide."""
    image = Image.new("RGB", (640, 480), "#f4f4f6")
    image.paste(photograph().resize((170, 200)), (230, 140))
    assert not is_text(image)


def test_quick():
    for image in (photograph().resize((1300, 1520)), lit(page(width=1300, height=1520))):
        start = time.process_time()
        is_text(image)
        assert time.process_time() - start < 0.5  # 0.03 s on an idle core
