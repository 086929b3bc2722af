"""Reading a part of an image: by its box, or by a coloured frame around it."""

import json

import pytest
from PIL import Image, ImageDraw, ImageFont

from varytoy.cli import main
from varytoy.inference.reader import Reader
from varytoy.layout.frames import colour_frame, find_place, parse_place
from varytoy.tasks.metrics import character_error_rate

LINES = ("The first line", "A second one", "Words at the end")


def page(frame: str = "", thick: int = 3) -> Image.Image:
    image = Image.new("RGB", (640, 360), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=26)
    for number, line in enumerate(LINES):
        pen.text((60, 40 + 110 * number), line, font=font, fill="black")
    if frame:
        pen.rectangle((40, 135, 420, 205), outline=frame, width=thick)
    return image


@pytest.fixture(scope="module")
def reader():
    return Reader.from_pretrained("nano", "cpu")


@pytest.mark.parametrize("place", [(40, 135, 420, 205), "red", "green", "blue"])
def test_only_that_part_is_read(reader, place):
    image = page({"red": "#e01010", "green": "#10b020", "blue": "#2030ff"}.get(str(place), ""))
    answer = reader.ocr(image, place=place)
    assert character_error_rate([answer.text], [LINES[1]]) <= 0.2, answer.text
    (block,) = answer.blocks
    left, top, right, bottom = block.box
    assert 55 < left < 70 and 145 < top < 165 and 200 < right < 260 and 170 < bottom < 190  # of the whole page
    assert answer.size == (640, 360)


def test_the_command_line(tmp_path, capsys):
    page().save(tmp_path / "page.png")
    assert main(["read", str(tmp_path / "page.png"), "--place", "40,135,420,205", "--task", "spot", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["text"].startswith("[09") and record["text"].count("\n") == 0
    assert main(["read", str(tmp_path / "page.png"), "--place", "red"]) == 2
    assert "there is no red frame in the image" in capsys.readouterr().err
    assert main(["read", str(tmp_path / "page.png"), "--place", "700,10,800,20"]) == 2
    assert "has no pixel of the image, which has 640 x 360" in capsys.readouterr().err
    assert main(["read", str(tmp_path / "page.png"), "--place", "pink"]) == 2
    assert "give x1,y1,x2,y2 in pixels, or the colour of a frame (red, green, blue)" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["10,20,30,40", "[10, 20, 30, 40]", " 10 20 30 40 "])
def test_boxes_are_written_in_many_ways(text):
    assert parse_place(text) == [10, 20, 30, 40]
    assert find_place(parse_place(text), page()) == (10, 20, 30, 40)


@pytest.mark.parametrize("thick", [1, 2, 6])
def test_the_inside_of_a_frame_is_found(thick, tmp_path):
    page("red", thick).save(tmp_path / "page.jpg", quality=85)
    left, top, right, bottom = colour_frame(Image.open(tmp_path / "page.jpg"), "red")
    assert 40 < left <= 46 and 135 < top <= 141 and 414 <= right <= 421 and 199 <= bottom <= 206
    assert colour_frame(page(), "red") is None and colour_frame(page("red"), "blue") is None
    filled = page()
    ImageDraw.Draw(filled).rectangle((40, 135, 420, 205), fill="red")
    ImageDraw.Draw(filled).line((10, 20, 600, 20), fill="red", width=3)
    assert colour_frame(filled, "red") is None
