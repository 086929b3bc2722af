"""Spotting: text lines with boxes, in samples, in model text and from pages."""

import json

import pytest
from PIL import Image, ImageDraw, ImageFont

from data_tools.__main__ import main as data_tools
from varytoy.cli import main
from varytoy.data.boxes import Box
from varytoy.data.sample import Sample
from varytoy.data.spots import format_spots, parse_spots
from varytoy.inference.reader import Reader
from varytoy.tasks import TASKS, find_prompt
from varytoy.tasks.metrics import character_error_rate

PRINTED = ((40, 30, "Delivery note"), (40, 100, "Coffee"), (480, 100, "12.50"), (40, 200, "Total"))
LINES = [Box("Invoice No. 17", (91, 40, 520, 63)), Box("[1, 2, 3, 4] <x_1> 9 ]", (0, 70, 1000, 99))]


@pytest.mark.parametrize("dialect", ["lines", "tokens"])
def test_lines_are_read_back(dialect):
    written = format_spots(LINES, dialect)
    spots = parse_spots(written)
    assert [line.label for line in spots.lines] == [line.label for line in LINES] and not spots.dropped
    for read, line in zip(spots.lines, LINES, strict=True):
        assert all(abs(a - b) <= 1 for a, b in zip(read.xyxy, line.xyxy, strict=True))
    if dialect == "tokens":
        assert written.startswith("<bbox><x_91><y_40><x_520><y_63></bbox>Invoice No. 17<bbox>")
        coarse = parse_spots(format_spots(LINES, dialect, bins=64), bins=64)
        assert all(abs(a - b) <= 1000 / 64 for a, b in zip(coarse.lines[0].xyxy, LINES[0].xyxy, strict=True))


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("[001, 002, 030, 040] one\nno box\n[001, 002, 030, 040]\n[1, 2, 3, 4] end", {"malformed": 2}),
        ("[001, 002, 1001, 040] one\n[001, 002, 030, 040] two", {"out_of_range": 1}),
        ("[030, 002, 030, 040] one\n[001, 050, 030, 040] two\n[1, 2, 3, 4] x", {"degenerate": 2}),
        ("[001, 002, 030, 040] one\n[001, 0", {"truncated": 1}),
        ("[001, 002, 030, 040] one\n[001, 002, 030, 040]", {"truncated": 1}),
        ("[001, 002, 030, 040] one\nwords", {"malformed": 1}),
        ("<bbox><x_1><y_2><x_30><y_40></bbox>one<bbox><x_1><y_2></bbox>two<bbox><x_1><y_2><x_3><y_4></bbox>x",
         {"malformed": 1}),
        ("before<bbox><x_1><y_2><x_30><y_40></bbox>one<bbox><x_1><y", {"malformed": 1, "truncated": 1}),
        ("<bbox><x_1><y_2><x_1000><y_40></bbox>one<bbox><x_5><y_2><x_5><y_40></bbox>two",
         {"out_of_range": 1, "degenerate": 1}),
        ("", {}),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted(text, dropped):
    spots = parse_spots(text)
    assert spots.dropped == dropped
    written = text.count("<bbox>") or len([line for line in text.splitlines() if line.strip()])
    extra = text.startswith("before")  # is beside the lines
    assert len(spots.lines) + sum(dropped.values()) == written + extra
    assert TASKS["spot"].parse(text, (100, 100)).dropped == dropped


def test_wrong_dialects_are_refused():
    with pytest.raises(ValueError, match="there are lines, tokens"):
        format_spots(LINES, "yaml")
    with pytest.raises(ValueError, match="use the dialect 'lines'"):
        format_spots([Box("a <bbox>", (1, 2, 3, 4))], "tokens")


def test_the_prompts_of_kosmos_are_understood():
    assert find_prompt("<ocr>")[0].name == "spot" and find_prompt("<md>")[0].name == "markdown"
    assert "<ocr>" not in TASKS["spot"].prompts  # nothing is trained on it


def test_a_line_counts_if_its_text_and_place_are_right():
    answer = TASKS["spot"].answer(LINES)
    turns = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": answer}]
    sample = Sample(turns, task="spot")
    assert TASKS["spot"].score([answer], [sample]) == 1
    moved = answer.replace("[091, 040, 520, 063]", "[091, 140, 520, 163]")
    assert TASKS["spot"].score([moved], [sample]) == TASKS["spot"].score([answer.replace("17", "18")], [sample]) == 0.5


def page() -> Image.Image:
    image = Image.new("RGB", (700, 300), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=26)
    for place, text in (
        ((40, 30), "Delivery note"),
        ((40, 100), "Coffee"),
        ((480, 100), "12.50"),
        ((40, 200), "Total"),
    ):
        pen.text(place, text, font=font, fill="black")
    return image


@pytest.mark.parametrize("turn", [0, 90])
def test_a_page_is_spotted(turn, tmp_path, capsys):
    """Cells that stand apart are lines of their own; boxes are of the file, however it lies."""
    file = tmp_path / "page.png"
    page().rotate(turn, expand=True).save(file)
    assert main(["read", str(file), "--task", "spot", "--format", "jsonl"]) == 0
    record = json.loads(capsys.readouterr().out)
    spots = parse_spots(record["text"])
    assert len(spots.lines) == len(PRINTED)
    assert character_error_rate([line.label for line in spots.lines], [text for *_, text in PRINTED]) < 0.1
    width, height = (700, 300) if not turn else (300, 700)
    assert (record["width"], record["height"]) == (width, height)
    x1, y1, x2, y2 = spots.lines[2].to_pixels(width, height)
    if turn:  # counter-clockwise: the page's right side is at the top
        x1, y1, x2, y2 = 700 - y2, x1, 700 - y1, x2
    assert abs(x1 - 481) < 8 and abs(y1 - 107) < 8 and 540 < x2 < 560 and 120 < y2 < 140
    drawn = TASKS["spot"].draw(Image.open(file), Reader.from_pretrained("nano", "cpu").ask(file, "spot"))
    colours = {colour: count for count, colour in drawn.getcolors(1 << 20)}
    assert colours[(209, 36, 47)] > 500


def test_a_long_line_is_one_and_cells_that_stand_apart_are_several():
    """A line of more than 125 x-heights is read in pieces."""
    image = Image.new("RGB", (1500, 110), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=14)
    pen.text((20, 20), "the quick brown fox jumps over the lazy dog and " * 4, font=font, fill="black")
    for left, word in ((20, "apples"), (500, "pears"), (1100, "plums")):
        pen.text((left, 70), word, font=font, fill="black")
    lines = Reader.from_pretrained("nano", "cpu").spot(image).lines
    assert len(lines) == 4 and len(lines[0].text) > 150 and lines[0].box[2] - lines[0].box[0] > 1000
    assert len(lines[0].parts) > 30 and max(len(line.text) for line in lines[1:]) < 12


def test_pages_are_rendered_and_measured(source, tmp_path, capsys):
    folder, run = tmp_path / "pages", tmp_path / "run"
    words = ["--out", str(folder), "--source", str(source), "--size", "700", "--lines", "12", "--count", "2"]
    assert data_tools(["render", "pages", *words, "--task", "spot", "--degrade", "0", "--workers", "1"]) == 0
    assert data_tools(["check", str(folder)]) == 0
    capsys.readouterr()
    assert main(["evaluate", "samples", str(folder), "--engine", "tesseract", "--out", str(run)]) == 0
    values = json.loads((run / "table.json").read_text())["rows"][0]["values"]
    assert values["spot: line F1 at IoU 0.5"]["value"] > 0.6 and values["spot: IoU of lines"]["value"] > 0.4
