"""Which way up a page stands: found from its ink, read after a turn, with boxes of the file."""

import threading

import pytest
from conftest import FakeEngine
from PIL import Image, ImageDraw, ImageFont

from varytoy.data.answer import Answer
from varytoy.inference.reader import Reader
from varytoy.layout.orientation import Rotation
from varytoy.layout.page import PageLayout

TEXT = "The light of the lamp fell on the table, and all that Hilda had brought lay there: bread, a knife, an apple."


def page(text: str = TEXT, lines: int = 8) -> Image.Image:
    image = Image.new("RGB", (900, 60 + lines * 34), "white")
    for number in range(lines):
        words = text[number * 7 :] + text[: number * 7]
        ImageDraw.Draw(image).text((30, 30 + number * 34), words[:80], "black", ImageFont.load_default(size=20))
    return image


def turned_by(image: Image.Image, angle: float) -> Image.Image:
    return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white")


@pytest.mark.parametrize(
    ("turn", "skew"), [(0, 0.0), (0, 4.0), (0, -9.0), (90, -9.0), (180, 0.0), (180, 4.0), (270, 4.0)]
)
def test_turned_pages_are_known(turn, skew):
    upright, rotation, certain = PageLayout(turned_by(page(), -turn - skew)).upright()
    assert (rotation.turn, certain) == (turn, True)
    assert rotation.skew == pytest.approx(skew, abs=0.15) and abs(upright.skew) < 0.2


@pytest.mark.parametrize("text", [TEXT.upper(), "3190 2785 4466 " * 8])
def test_unsure_is_upright(text):
    """Capitals and figures, which reach nowhere."""
    for image in (page(text), page(text, lines=1), Image.new("RGB", (300, 200), "white")):
        analysed = PageLayout(image)
        upright, rotation, _ = analysed.upright()
        assert upright is analysed and (rotation.turn, rotation.skew) == (0, 0.0)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_boxes_of_a_turned_page_are_of_the_file(processor, turn):
    upright = page(lines=12)
    turned = upright.rotate(-turn, expand=True)
    answer = Reader(FakeEngine(processor, lambda request: Answer("x", confidence=1.0, tokens=1))).ocr(turned)
    assert (answer.turned, answer.size) == (turn, turned.size) and answer.blocks
    boxes = [block.box for block in answer.blocks]
    for box in boxes:
        assert turned.crop(box).convert("L").getextrema()[0] < 100  # letters are where it says
    left, top, right, bottom = (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )
    outside = turned.copy()
    outside.paste("white", (left, top, right, bottom))
    assert outside.convert("L").getextrema()[0] > 200


def test_stopped_is_stopped(processor):
    """Where the ink leaves open which way is up, the other one is not tried after a stop."""
    cancel = threading.Event()

    def stopped(request) -> Answer:
        cancel.set()
        return Answer("Hello wor", stop_reason="cancelled", confidence=0.7, tokens=3)

    engine = FakeEngine(processor, stopped)
    reader = Reader(engine)
    assert reader.ocr(page("3190", lines=1), cancel=cancel).text == "Hello wor"
    assert len(engine.requests) == 2  # to see whether this is the way up, and to read
    assert [answer.stop_reason for answer in reader.ocr([page(), page()], cancel=cancel)] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("skew", [0.0, 7.0])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_points_are_turned_back(turn, skew):
    picture = Image.new("L", (70, 50))
    picture.paste(255, (10, 20, 13, 23))
    rotation = Rotation(picture.size, turn, skew)
    upright = rotation.apply(picture)
    x0, y0, x1, y1 = upright.getbbox()
    x, y = rotation.back(((x0 + x1) / 2, (y0 + y1) / 2), upright.size)
    assert (x, y) == pytest.approx((11.5, 21.5), abs=1 if skew else 0)


def test_words_of_a_skewed_page_lie_on_their_ink(processor):
    skewed = turned_by(page(lines=12), -6)
    answer = Reader(FakeEngine(processor, lambda request: Answer("x", confidence=1.0, tokens=1))).ocr(skewed)
    lines = [line for block in answer.blocks for line in block.parts]
    assert len(lines) == 12 and answer.size == skewed.size and answer.turned == 0
    for line in lines:
        assert len(line.polygon) == 4
        (x0, y0), (x1, _), (x2, y2), _ = line.polygon
        assert (y2 - y0) / abs(x2 - x0) == pytest.approx(0.105, abs=0.05)
        middle = round((x0 + x2) / 2), round((y0 + y2) / 2)
        assert (
            skewed.crop((middle[0] - 15, middle[1] - 8, middle[0] + 15, middle[1] + 8)).convert("L").getextrema()[0]
            < 100
        )


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_few_words_are_read_whichever_way_they_stand(turn):
    """Two lines whose ink says little: the embedded model reads the right way up with more confidence."""
    image = Image.new("RGB", (420, 120), "white")
    for number, line in enumerate(("The quick brown fox", "jumps over the fence")):
        ImageDraw.Draw(image).text((14, 14 + number * 45), line, "black", ImageFont.load_default(size=28))
    answer = Reader.from_pretrained("nano").ocr(image.rotate(-turn, expand=True))
    assert (answer.turned, answer.text) == (turn, "The quick brown fox\njumps over the fence")
