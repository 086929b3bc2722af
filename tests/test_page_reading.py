"""What becomes of the readings of a page's cells."""

from conftest import FakeEngine
from PIL import Image, ImageDraw, ImageFont
from test_reader import page

from varytoy.data.answer import Answer
from varytoy.inference.reader import Reader


def test_what_is_no_text_is_left_out(processor, monkeypatch):
    """Repetitions, but for the leaders of contents and round numbers, and lines that the model is not sure of."""
    said = iter(["12 " * 30, "Rows ........ 4", "of 10000000000", "zzz", "last last"])
    sure = {"zzz": 0.5}
    monkeypatch.setattr(processor.image_processor, "least_confidence", 0.6)
    engine = FakeEngine(processor, lambda request: Answer(text := next(said), confidence=sure.get(text, 1.0), tokens=1))
    answer = Reader(engine).ocr(page(5))
    assert answer.text == "12\nRows ........ 4\nof 10000000000\nlast last"
    assert (answer.skipped, len(answer.blocks[0].parts)) == (1, 4)


def test_headings_in_markdown_are_what_is_larger(processor):
    """Whatever the model makes of a lone line, also while it is read."""
    sheet = Image.new("RGB", (900, 420), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((30, 20), "A large title", "black", ImageFont.load_default(size=40))
    sheet.paste(page(6), (30, 110))
    said = iter(["**Title**", "# one", "two", "three", "four", "five", "six"])
    engine = FakeEngine(processor, lambda request: Answer(next(said), confidence=1.0, tokens=1))
    answer = Reader(engine).markdown(sheet)
    assert answer.markdown == "# Title\n\none\ntwo\nthree\nfour\nfive\nsix"
    said = iter(["Title", "# one", "two", "# three", "four", "five", "six"])  # comments of a listing
    assert Reader(engine).markdown(sheet).markdown == "# Title\n\n# one\ntwo\n# three\nfour\nfive\nsix"
    said = iter(["Title", "## one", "two", "## three", "four", "#### five", "six"])
    assert Reader(engine).markdown(sheet).markdown == "# Title\n\none\ntwo\nthree\nfour\nfive\nsix"
