"""The rendered kinds: their samples are valid, and their answers are what the pictures show."""

import html.parser
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import picture_source
from PIL import Image
from test_document_pages import CODE, ENGLISH, FONTS, font_copy

from data_tools.__main__ import main
from data_tools.render.charts import FORMS, random_chart
from data_tools.render.mathematics import FONTS as MATHEMATICAL
from data_tools.render.mathematics import LATEX, formula_picture, random_formula
from data_tools.render.truth import KINDS, UNANSWERABLE, Truth, questions
from data_tools.writer import generator
from varytoy.data.samples import read_samples
from varytoy.evaluation.suites.samples import case_of
from varytoy.layout.frames import find_place
from varytoy.tasks import find_prompt

TASKS = {
    "pages": {"ocr", "markdown"},
    "tables": {"markdown"},
    "formulas": {"markdown"},
    "numbers": {"ocr"},
    "code": {"ocr", "markdown"},
    "forms": {"ocr", "vqa"},
    "charts": {"markdown", "vqa"},
    "scene-text": {"ocr"},
    "music": {"music"},
    "geometry": {"geometry"},
    "molecules": {"molecule"},
}
NEEDS = {"music": "verovio", "molecules": "rdkit", "geometry": "matplotlib"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = picture_source(tmp_path_factory.mktemp("source"))
    for name in ("fonts", "texts", "code/python"):
        (folder / name).mkdir(parents=True)
    for name in ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "Serif"):
        shutil.copyfile(FONTS / f"DejaVu{name}.ttf", folder / "fonts" / f"DejaVu{name}.ttf")
    font_copy(folder / "fonts/caladea.ttf", "DejaVuSerif.ttf", "Caladea")
    (folder / "texts/python3.11-doc.txt").write_text(ENGLISH, encoding="utf-8")
    (folder / "texts/postgresql-doc-15.txt").write_text("Nobody trains on vacuumed tables.\n", encoding="utf-8")
    for number in range(9):
        (folder / f"code/python/{number}.py").write_text("".join(CODE))
    return folder


@pytest.fixture(scope="module")
def rendered(source, tmp_path_factory):
    """kind -> its samples; each kind is rendered once."""
    folder, made = tmp_path_factory.mktemp("out"), {}

    def samples(kind: str, *options: str) -> list:
        if (kind, options) not in made:
            out = folder / str(len(made))
            command = ["render", kind, "--count", "6", "--seed", "3", "--workers", "1", "--source", str(source)]
            assert main([*command, "--out", str(out), *options]) == 0
            made[kind, options] = list(read_samples(out))
        return made[kind, options]

    return samples


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_a_kind_makes_the_same_valid_samples_again(source, rendered, tmp_path, kind):
    pytest.importorskip(NEEDS.get(kind, "PIL"), reason="needs pip install -e '.[render]'")
    samples = rendered(kind)
    command = ["render", kind, "--count", "6", "--seed", "3", "--workers", "2", "--source", str(source)]
    assert main([*command, "--out", str(tmp_path)]) == 0 and main(["check", str(tmp_path)]) == 0
    again = list(read_samples(tmp_path))
    assert [sample.to_json() for sample in samples] == [sample.to_json() for sample in again]
    for one, other in zip(samples, again, strict=True):
        assert (one.folder / one.images[0]).read_bytes() == (other.folder / other.images[0]).read_bytes()
    assert {sample.task for sample in samples} == TASKS[kind]
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        found = find_prompt(sample.prompt)
        assert found and found[0].name == sample.task and sample.answer.strip()
        assert sample.task != "vqa" or sample.answer in sample.annotations.references
        assert len(np.unique(np.asarray(sample.open_images()[0]))) > 1
        if sample.task == "ocr":
            assert "".join(sample.annotations.words) == "".join(sample.answer.split())


@pytest.mark.parametrize("kind", sorted(TASKS.keys() - {"formulas", "charts", "music", "geometry", "molecules"}))
def test_words_stand_in_their_boxes(rendered, kind):
    """Each box holds what differs from its surroundings, and lines hold their words."""
    for sample in rendered(kind, "--degrade", "0"):
        pixels = np.asarray(sample.open_images()[0].convert("L"), np.float32)
        for box in sample.annotations.text_words:
            x1, y1, x2, y2 = box.to_pixels(pixels.shape[1], pixels.shape[0])
            assert np.ptp(pixels[y1 : y2 + 1, x1 : x2 + 1]) > 25, box
        joined = "".join(sample.annotations.lines).replace(" ", "")
        assert joined == "".join(sample.annotations.words)


def test_a_part_of_a_page_holds_its_answer(source, tmp_path):
    """Named by a box or by a frame that is found again; the evaluation asks for that part alone."""
    command = ["render", "pages", "--task", "region", "--no-formulas", "--degrade", "0", "--inverted", "0"]
    command += ["--count", "10", "--seed", "4", "--workers", "1", "--source", str(source), "--out", str(tmp_path)]
    assert main(command) == 0
    kinds = set()
    for sample in read_samples(tmp_path):
        kinds.add(sample.metadata["kind"])
        case = case_of(sample)
        image = case.open()
        x1, y1, x2, y2 = find_place(case.place_in(image), image)
        inside = [
            word.label
            for word in sample.annotations.text_words
            if x1 <= sum(word.to_pixels(*image.size)[::2]) / 2 <= x2
            and y1 <= sum(word.to_pixels(*image.size)[1::2]) / 2 <= y2
        ]
        assert "".join(inside) == "".join(sample.answer.split()) and inside
        assert case.task == "ocr" and case.group == f"ocr {sample.metadata['kind']}"
        assert case.part(image).size == (x2 - x1, y2 - y1)
    assert kinds == {"box", "colour"}


def test_a_table_in_html_has_the_printed_words(rendered):
    class Cells(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.texts, self.spans = [], []

        def handle_starttag(self, tag, attributes):
            self.spans += [int(value) for name, value in attributes if name.endswith("span")]

        def handle_data(self, data):
            self.texts += data.split()

    spans = []
    for sample in rendered("tables", "--merged", "1", "--columns", "4-6"):
        parser = Cells()
        parser.feed(sample.answer)
        assert parser.texts == sample.annotations.words == sample.annotations.plain_text.split()
        spans += parser.spans
    assert len(spans) > 6 and min(spans) >= 2


def test_a_form_shows_the_answers(rendered):
    text, asked = "", 0
    for sample in rendered("forms"):
        if sample.task == "ocr":
            text = sample.answer
        elif sample.metadata["kind"] in ("field", "cell", "order"):
            assert sample.answer in text
            asked += 1
        elif sample.metadata["kind"] == "unanswerable":
            assert sample.answer == UNANSWERABLE
    assert asked > 6


def test_a_listing_is_what_is_printed(rendered):
    for sample in rendered("code"):
        printed = sample.annotations.plain_text if sample.task == "markdown" else sample.answer
        assert printed.split() == sample.annotations.words
        if sample.task == "markdown":
            lines = sample.answer.splitlines()
            assert lines[0] == "```python" and lines[-1] == "```"
            assert [line for line in lines[1:-1] if line] == printed.splitlines()


def test_answers_about_a_chart_follow_from_its_table():
    seen = set()
    for index in range(120):
        rng = generator(1, index)
        chart = random_chart(rng, FORMS[index % len(FORMS)])
        table = [[cell.text for cell in row] for row in chart.table().rows]
        assert [row[0] for row in table[1:]] == chart.categories and table[0][1:] == chart.series
        truth = Truth.from_json(json.loads(json.dumps(chart.truth().to_json())))
        for question in questions(truth, rng, 6):
            seen.add(question.kind)
            text, answers = question.text.rstrip("?."), question.answers
            column = next((place for place, name in enumerate(table[0]) if place and f" {name}" in text), 1)
            values = {row[0]: float(row[column]) for row in table[1:]}
            shown = [name for name in values if re.search(rf"\b{name}\b", text.replace(table[0][column], ""))]
            if question.kind == "cell":
                assert all(float(answer.strip("%")) == values[shown[-1]] for answer in answers)
            elif question.kind == "difference":
                first, second = re.search(r"(?:between|for) (\w+) and (\w+)$", text).groups()
                assert float(answers[0]) == pytest.approx(abs(values[first] - values[second]))
            elif question.kind == "order":
                ordered = sorted(values, key=values.get)
                assert answers == (ordered[-1 if "highest" in text else 0],) and answers[0] in question.reason
            elif question.kind == "count":
                assert answers == (str(len(table) - 1),)
            elif question.kind == "unanswerable":
                assert answers == (UNANSWERABLE,) and not shown
    assert seen == set(KINDS)


def test_questions_about_a_table_are_made_if_they_are_asked_for(rendered):
    samples = rendered("tables", "--questions", "3", "--merged", "0")
    assert [sample.task for sample in samples] == ["markdown", "vqa", "vqa", "vqa"] * 6
    for table, *asked in (samples[place : place + 4] for place in range(0, 24, 4)):
        truth = Truth.from_json(table.metadata["truth"])
        for sample in asked:
            assert sample.metadata["kind"] in KINDS and sample.images == table.images
            values = {cell for row in truth.grid.rows for cell in row}
            assert sample.metadata["kind"] not in ("cell", "order") or sample.answer in values


def test_formulas_can_all_be_drawn():
    for index in range(60):
        rng = generator(2, index)
        picture = formula_picture(random_formula(rng), 20, (0, 0, 0), MATHEMATICAL[index % len(MATHEMATICAL)])
        assert picture.mode == "LA" and np.asarray(picture)[..., 1].max() > 128


@pytest.mark.skipif(shutil.which(LATEX) is None, reason="LaTeX is not installed")
def test_formulas_by_latex(tmp_path):
    rng = generator(2, 0)
    pictures = [np.asarray(formula_picture(random_formula(rng), 20, (0, 0, 0), LATEX))[..., 1] for _ in range(3)]
    assert all(picture.max() > 128 and picture.any(1)[[0, -1]].all() for picture in pictures)
    with pytest.raises(ValueError, match="LaTeX cannot draw"):
        formula_picture(r"\nonsense{", 20, (0, 0, 0), LATEX)
    assert main(["render", "formulas", "--out", str(tmp_path), "--count", "1", "--latex", "--workers", "1"]) == 0
    assert next(read_samples(tmp_path)).metadata["font"] == LATEX


def test_latex_that_is_missing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["render", "formulas", "--out", str(tmp_path / "out"), "--latex"]) == 2
    assert "--latex needs pdflatex (Debian: texlive-latex-base)" in capsys.readouterr().err


def test_held_out_fonts_are_for_tests_alone(source, rendered):
    alone = rendered("formulas", "--task", "formula")
    assert {sample.task for sample in alone} == {"formula"} and not any("$" in sample.answer for sample in alone)
    fonts = {sample.metadata["font"] for sample in rendered("formulas", "--split", "test")}
    assert fonts <= set(MATHEMATICAL[-2:]) and not fonts & {sample.metadata["font"] for sample in rendered("formulas")}
    assert {sample.metadata["font"] for sample in rendered("numbers", "--split", "test")} == {"Caladea"}
    assert "Caladea" not in {sample.metadata["font"] for sample in rendered("numbers")}


def test_scene_text_lies_in_perspective_inside_the_picture(rendered):
    for sample in rendered("scene-text", "--texts", "4"):
        sides = np.array(sample.annotations.word_boxes).reshape(-1, 4)
        assert sides.min() >= 0 and sides.max() <= 1000 and (sides[:, 2:] > sides[:, :2]).all()
        assert len(sample.annotations.lines) >= 4


def test_what_a_kind_lacks_is_named(source, tmp_path, capsys):
    command = ["render", "code", "--out", str(tmp_path / "out"), "--source", str(tmp_path)]
    shutil.copytree(source / "fonts", tmp_path / "fonts")
    shutil.copytree(source / "texts", tmp_path / "texts")
    assert main(command) == 2
    assert "no train code in" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_galleries_and_speeds_of_kinds(source, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    command = ["gallery", "numbers", "--count", "2", "--source", str(source), "--side", "300", "--out", str(sheet)]
    assert main(command) == 0
    with Image.open(sheet) as image:
        plain = np.asarray(image)
    assert main([*command, "--words"]) == 0
    with Image.open(sheet) as image:
        assert (np.asarray(image) != plain).any()
    assert main(["bench", "render", "--kind", "numbers", "formulas", "--count", "2", "--source", str(source)]) == 0
    table = capsys.readouterr().out
    rows = re.findall(r"(?m)^(numbers|formulas) +([\d.]+) +([\d.]+) +([\d.]+) ", table)
    assert len(rows) == 2 and all(float(value) > 0 for row in rows for value in row[1:])
