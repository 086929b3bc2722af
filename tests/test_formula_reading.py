"""Formulas of a page: found, asked about, and put into its markdown."""

import json
import shutil

import pytest
import torch
from conftest import FakeEngine, tiny_config, tiny_model
from PIL import Image
from safetensors.torch import load_file
from test_reader import page

from data_tools.render.mathematics import formula_picture
from train.__main__ import main as train
from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer
from varytoy.inference.parts import Parts
from varytoy.inference.reader import Reader
from varytoy.layout.formulas import LETTER, find_formulas, formula_view
from varytoy.layout.page import PageLayout

FRACTION, SUM = r"y = \frac{a + b}{x^{2} - 1}", r"\sum_{i=1}^{n} x_{i} = 0"


def sheet(*formulas: str, size: float = 24) -> tuple[Image.Image, list[tuple[int, int, int, int]]]:
    """Three lines of text, the formulas, and three lines; and the formulas' boxes."""
    whole = Image.new("RGB", (900, 1000), "white")
    text = page(3)
    whole.paste(text, (20, 20))
    y, boxes = 190, []
    for formula in formulas:
        picture = formula_picture(formula, size, (0, 0, 0))
        ink = picture.getchannel("A").getbbox()
        whole.paste(picture.convert("RGB"), (300, y), picture.getchannel("A"))
        boxes.append((300 + ink[0], y + ink[1], 300 + ink[2], y + ink[3]))
        y += picture.height + 30
    whole.paste(page(3), (20, y + 30))
    return whole, boxes


def test_formulas_are_found_whole():
    """Their rows are blocks of text of their own otherwise; paragraphs stay what they are."""
    image, boxes = sheet(FRACTION, SUM)
    layout = PageLayout(image)
    places = find_formulas(layout, layout.blocks)
    found = [place for place in places if place.stacked]
    assert len(found) == 2
    for place, box in zip(found, boxes, strict=True):
        assert all(abs(side - own) <= 3 for side, own in zip(place.cell.box, box, strict=True))


@pytest.mark.parametrize("size", [14, 40])
def test_a_formula_is_shown_at_one_size(size):
    picture = formula_picture(r"a + b = c", size, (0, 0, 0))
    image = Image.new("RGB", (picture.width + 80, picture.height + 80), "white")
    image.paste(picture.convert("RGB"), (40, 40), picture.getchannel("A"))
    view = formula_view(PageLayout(image))
    assert LETTER < view.height < 3 * LETTER
    assert formula_view(PageLayout(Image.new("RGB", (80, 80), "white"))) is None


def test_formulas_in_the_markdown_of_a_page(processor):
    """What the part for formulas says nothing about, or is not sure of, stays text; plain text has no formulas."""
    image, _ = sheet(FRACTION, SUM)
    text = FakeEngine(processor, lambda request: Answer("word", confidence=0.95, tokens=1))
    for said, expected in (
        ((FRACTION, SUM), f"$$\n{FRACTION}\n$$\n\n$$\n{SUM}\n$$"),
        ((FRACTION, ""), f"$$\n{FRACTION}\n$$"),
        (("", ""), None),
    ):
        answers = iter(said)
        engine = FakeEngine(processor, lambda request, answers=answers: Answer(next(answers), confidence=0.9, tokens=1))
        reader = Reader(text, parts=Parts({"formula": lambda engine=engine: engine}))
        answer = reader.markdown(image)
        assert len(engine.requests) == 2 and reader.ocr(image).text.count("$$") == 0
        assert (expected or "$$") in answer.markdown if expected else "$$" not in answer.markdown
        assert answer.markdown.startswith("word\nword\nword\n\n") and answer.markdown.endswith("word\nword\nword")
    unsure = FakeEngine(processor, lambda request: Answer(SUM, confidence=0.3, tokens=1))
    assert "$$" not in Reader(text, parts=Parts({"formula": lambda: unsure})).markdown(image).markdown


def test_rows_of_formulas_are_no_table(processor):
    """What looks like a table becomes one again where the part for formulas says nothing."""
    image = Image.new("RGB", (900, 260), "white")
    for number in range(2):
        for column, latex in enumerate((r"\frac{a}{b}", r"\frac{x + y}{z}", r"\frac{n}{m + 1}")):
            picture = formula_picture(latex, 26, (0, 0, 0))
            image.paste(picture.convert("RGB"), (40 + 60 * column, 30 + 110 * number), picture.getchannel("A"))
    text = FakeEngine(processor, lambda request: Answer("w", confidence=0.95, tokens=1))
    plain = Reader(text).markdown(image).markdown
    assert "| --- |" in plain or "<table>" in plain
    for said in (FRACTION, ""):
        engine = FakeEngine(processor, lambda request, said=said: Answer(said, confidence=0.9, tokens=1))
        found = Reader(text, parts=Parts({"formula": lambda engine=engine: engine})).markdown(image).markdown
        assert engine.requests and found == ("\n\n".join([f"$$\n{said}\n$$"] * len(engine.requests)) if said else plain)


def test_a_part_takes_from_the_checkpoint_above_it_what_they_share(processor, tmp_path):
    """As ``nano`` has it: a decoder for formulas on the vision vocabulary that reads text."""
    text, part = tiny_model(tiny_config()), tiny_model(tiny_config())
    part.load_state_dict(text.state_dict())
    for parameter in part.language_model.parameters():
        parameter.data += 0.1
    for model, name in ((text, "whole"), (part, "run")):
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    out = tmp_path / "whole" / "formulas"
    assert train(["export", str(tmp_path / "run"), str(out), "--within", str(tmp_path / "whole")]) == 0
    held = {name.partition(".")[0] for name in load_file(out / "model.safetensors")}
    assert held == {"language_model"}
    assert "vision_vocabulary" in json.loads((out / "config.json").read_text())["shared"]
    image = formula_picture("x", 30, (0, 0, 0)).convert("RGB")
    reader = Reader.from_pretrained(str(tmp_path / "whole"), "cpu")
    alone = Reader.from_pretrained(str(tmp_path / "run"), "cpu")
    assert "formula" in reader.tasks and reader.engine_for("formula") is not reader.engine
    own, theirs = (each.engine_for("formula").model for each in (reader, alone))
    for name, tensor in theirs.state_dict().items():
        assert torch.allclose(tensor, own.state_dict()[name], atol=2e-3), name
    assert reader.ask(image, "formula", max_new_tokens=4).stop_reason in ("end", "length")
    shutil.move(out, tmp_path / "formulas")
    with pytest.raises(ModelError, match="vision_vocabulary"):
        Reader.from_pretrained(str(tmp_path / "formulas"), "cpu")
