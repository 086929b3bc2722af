"""Spotting: text lines with boxes, in samples, in model text and from pages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TINY, tiny_recipe
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoTokenizer

import varytoy
from data_tools.__main__ import main as data_tools
from train.loop import run
from varytoy.cli import main
from varytoy.data.boxes import Box, text_on_grid
from varytoy.data.sample import Sample
from varytoy.data.spots import format_spots, parse_spots
from varytoy.inference.reader import Reader
from varytoy.processing.tokenizer import add_locations
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


def test_location_tokens_are_learned(tmp_path):
    """From the tokenizer over training to the regions of an answer."""
    folder, places = tmp_path / "data", [[(10, 8), (70, 40)], [(60, 10), (14, 44)], [(30, 24), (90, 50)]]
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, pair in enumerate(places):
        image = Image.new("L", (128, 64), "white")
        lines = []
        for word, place in zip(("ab", "xyz"), pair, strict=True):
            ImageDraw.Draw(image).text(place, word, "black", ImageFont.load_default(size=12))
            lines.append(Box.from_pixels(word, (*place, place[0] + 24, place[1] + 12), 128, 64))
        image.save(folder / "images" / f"{number}.png")
        turns = [{"role": "user", "content": f"<image>\n{TASKS['spot'].prompt()}"}]
        turns.append({"role": "assistant", "content": format_spots(lines)})
        rows.append({"id": str(number), "task": "spot", "messages": turns, "images": [f"images/{number}.png"]})
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pieces = tmp_path / "pieces"
    words = ["tokenizer", "--out", str(pieces), str(folder), "--size", "560", "--locations", "64"]
    assert data_tools(words) == 0
    tokenizer = AutoTokenizer.from_pretrained(pieces)
    written = format_spots(parse_spots(text_on_grid(rows[0]["messages"][1]["content"], 64)).lines, "tokens")
    assert len(tokenizer(written).input_ids) <= 2 * 6 + 5 and tokenizer.decode(tokenizer(written).input_ids) == written
    preset = json.loads(Path(TINY).read_text())
    preset["processor"] |= {"places": 0}
    preset["processor"]["image_processor"] |= {"mode": "squash", "size": [64, 128]}
    (tmp_path / "preset.json").write_text(json.dumps(preset))
    recipe = tiny_recipe(folder, tmp_path / "run", batch_size=3, max_steps=120, learning_rate=3e-3, warmup=10)
    recipe.model = replace(recipe.model, preset=str(tmp_path / "preset.json"), tokenizer=str(pieces))
    recipe.data[0] = replace(recipe.data[0], dialect="tokens", bins=64)
    run(recipe)
    reader = Reader.from_pretrained(str(tmp_path / "run"), "cpu")
    for row in rows:
        answer = reader.spot(folder / row["images"][0])
        expected = parse_spots(text_on_grid(row["messages"][1]["content"], 64)).lines
        found = parse_spots(answer.text).lines
        assert [line.label for line in found] == [line.label for line in expected] and answer.tokens < 20
        pairs = zip(found, expected, strict=True)  # a pixel of the picture is 16 of 1,000
        assert all(abs(a - b) <= 16 for one, other in pairs for a, b in zip(one.xyxy, other.xyxy, strict=True))
    with pytest.raises(ValueError, match="place tokens or"):
        add_locations(AutoTokenizer.from_pretrained(varytoy.NANO), 64)
