"""Damaged files of the suites: a SuiteError with a sentence, or cases that can be scored; never another exception."""

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import FUZZ, mutated_bytes, mutated_tree
from test_suite_folders import HOCR
from test_suites import cases_of, docvqa, omnidocbench, options_of, picture, ref, refcoco

from varytoy.data.boxes import Box
from varytoy.evaluation.case import Prediction
from varytoy.evaluation.suite import SuiteError
from varytoy.evaluation.suites import SUITES

TURNS = [{"from": "human", "value": "<image>\nOCR the line."}, {"from": "gpt", "value": "Words."}]
ENTITY = {"id": 0, "box": [1, 2, 3, 4], "text": "a", "label": "other", "linking": [],
          "words": [{"text": "a", "box": [1, 2, 30, 40]}, {"text": "b", "box": [40, 2, 60, 40]}]}  # fmt: skip
JSON = {
    "docvqa": ("val_v1.0.json", {"data": [docvqa(1, "documents/a_1.png", "Who?", ["x", "y"])]}, "documents/a_1.png"),
    "chartqa": ("test_human.json", [{"imgname": "a.png", "query": "How many?", "label": "14"}], "png/a.png"),
    "ocrbench": (
        "OCRBench.json",
        [{"dataset_name": "HME100k", "type": "Doc-oriented VQA", "image_path": "a.png", "question": "What?",
          "answers": ["x"]}],
        "OCRBench_Images/a.png",
    ),
    "fox": ("en_page_ocr.json", [{"image": "a.png", "conversations": TURNS}], "en_pdf_png/a.png"),
    "funsd": ("annotations/a.json", {"form": [ENTITY]}, "images/a.png"),
    "omnidocbench": ("OmniDocBench.json", omnidocbench(), "images/paper.pdf_12.jpg"),
    "receipts": ("a.json", {"lines": [{"quad": [1, 2, 30, 2, 30, 9, 1, 9], "text": "TOTAL"}]}, "a.png"),
    "refcoco": ("instances.json", None, "train2014/COCO_train2014_000000581857.jpg"),
}  # fmt: skip
LINES = {
    "pope": ("coco_pope_random.json", {"question_id": 1, "image": "a.png", "text": "Is it?", "label": "no"}, "a.png"),
    "olmocr-bench": (
        "a.jsonl",
        {"pdf": "a.pdf", "page": 1, "id": "x", "type": "table", "max_diffs": 1, "cell": "a", "up": "b", "text": "c",
         "before": "d", "after": "e", "math": "f", "first_n": 3, "case_sensitive": False},
        "pdfs/a.pdf",
    ),
}  # fmt: skip
TEXTS = {
    "sroie": ("box/a.txt", "1,2,30,2,30,9,1,9,TOTAL, 8\n1,12,30,12,30,19,1,19,8.70\n", "img/a.jpg"),
    "scans": ("a.hocr", HOCR, "a.png"),
    "docbank": ("a.txt", "FIG.\t90\t905\t113\t917\t0\t0\t0\tN\tcaption\n", "a_ori.jpg"),
    "blocks": ("a.txt", "Words.", "a.png"),
}
ANSWERS = [
    Prediction(),
    Prediction("yes | no |\n|---|---|\n| a | $x$ |", (Box("a", (0, 0, 500, 500)), Box("", (0, 0, 0, 0)))),
]


def try_it(name: str, folder, *words: str) -> None:
    try:
        cases = cases_of(name, folder, *words)
    except SuiteError as error:
        assert str(error)
        return
    for answer in ANSWERS:
        for metric in SUITES[name].metrics(options_of(name, *words)):
            value = metric.measure([answer] * len(cases), cases) if cases else 0.0
            assert value != math.inf, (name, metric.name)


@pytest.mark.parametrize("name", JSON)
@settings(max_examples=40, **FUZZ)
@given(seed=st.integers(0, 2**32))
def test_json(tmp_path_factory, name, seed):
    rng, folder = random.Random(seed), tmp_path_factory.getbasetemp() / f"json-{name}"
    file, tree, image = JSON[name]
    picture(folder / image)
    if name == "refcoco":
        refcoco(folder, mutated_tree([ref(1, "val", 17, "left"), ref(2, "testA", 18, "b", "c")], rng, rng.randrange(2)))
        tree = json.loads((folder / file).read_text())
    if name == "chartqa":
        (folder / "test_augmented.json").write_text("[]")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(mutated_tree(tree, rng, rng.choice((1, 1, 2, 4)))))
    try_it(name, folder)


@pytest.mark.parametrize("name", LINES)
@settings(max_examples=60, **FUZZ)
@given(seed=st.integers(0, 2**32))
def test_json_lines(tmp_path_factory, name, seed):
    rng, folder = random.Random(seed), tmp_path_factory.getbasetemp() / f"lines-{name}"
    file, row, image = LINES[name]
    picture(folder / image)
    kind = rng.choice(("present", "absent", "order", "table", "math", "baseline"))
    row = {**row, "type": kind} if "type" in row else row
    lines = (json.dumps(mutated_tree(row, rng, rng.choice((1, 1, 2)))) for _ in range(2))
    (folder / file).write_text("\n".join(lines))
    try_it(name, folder)


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=40, **FUZZ)
@given(seed=st.integers(0, 2**32))
def test_texts(tmp_path_factory, name, seed):
    rng, folder = random.Random(seed), tmp_path_factory.getbasetemp() / f"texts-{name}"
    file, text, image = TEXTS[name]
    picture(folder / image)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(mutated_bytes(text.encode(), rng))
    try_it(name, folder)
