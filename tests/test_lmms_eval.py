"""varytoy as a model of lmms-eval: with the real nano, and with lmms-eval itself where it is installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image, ImageDraw, ImageFont

from varytoy.evaluation.lmms_eval import Answering, Question, device_of_rank
from varytoy.inference.reader import Reader

HERE = ROOT / "tests" / "lmms_tasks"
HAT = [125, 20, 317, 157]
"""Of the hat in hopper.jpg, in pixels, as marked by hand."""
GROUNDING = "Locate every object that matches the description {} in the image. Report bbox coordinates in JSON format."
FRACTIONS = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the "
    "region this sentence describes: {}"
)


@pytest.fixture(scope="module")
def nano():
    return Reader.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def hopper():
    return Image.open(ROOT / "demo" / "photos" / "hopper.jpg").convert("RGB")


def lines(*texts: str) -> Image.Image:
    """Lines of text, far from each other."""
    image = Image.new("RGB", (420, 160 * len(texts)), "white")
    for number, text in enumerate(texts):
        ImageDraw.Draw(image).text((20, 160 * number + 20), text, "black", font=ImageFont.load_default(size=24))
    return image


def question(prompt: str, *images: Image.Image, **settings) -> Question:
    """As lmms-eval writes it."""
    parts = [{"type": "image", "url": image} for image in images]
    return Question([{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}], settings, "document 1")


def asked(reader: Reader, *questions: Question, **options) -> list[str]:
    return [answer.text for answer in Answering(reader, **options).answers(questions)]


def overlap(a, b) -> float:
    def area(box):
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    both = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return both / (area(a) + area(b) - both)


def test_answers_come_in_order_whatever_they_ask_for(nano, hopper):
    questions = [
        question("what is written in the image?", lines("Reading is quick"), until=["\n\n"]),
        question("Is the woman wearing a hat?\nAnswer the question using a single word or phrase.", hopper),
        question("what is written in the image?", lines("Total 18 EUR")),
    ]
    assert asked(nano, *questions, together=3) == ["Reading is quick", "yes", "Total 18 EUR"]


def test_boxes_are_written_as_the_prompt_asks(nano, hopper):
    texts = asked(
        nano,
        question(GROUNDING.format('"hat", "black hat on her head"'), hopper),
        question(FRACTIONS.format("hat"), hopper),
        question("Locate hat.", hopper),
        together=1,
    )
    ((found,), fractions) = json.loads(texts[0]), json.loads(texts[1])
    assert found["label"] == "hat" and overlap(found["bbox_2d"], HAT) > 0.5
    assert fractions == pytest.approx(
        [side / 437 if k % 2 == 0 else side / 512 for k, side in enumerate(found["bbox_2d"])], abs=1e-3
    )
    (raw,) = asked(nano, question(GROUNDING.format('"hat"'), hopper), boxes="text")
    assert [int(side) / 1000 for side in raw.strip("[]").split(",")] == pytest.approx(fractions, abs=2e-3)


def test_a_named_task_is_that_of_all_questions(nano, hopper):
    texts = asked(nano, question("hat", hopper), task="ground", boxes="pixels")
    assert overlap(json.loads(texts[0])[0]["bbox_2d"], HAT) > 0.5
    (read,) = asked(nano, question("Is this a page?", lines("Reading is quick")), task="ocr")
    assert read == "Reading is quick"


def test_answers_end_where_the_settings_say(nano):
    page = lines("Reading is quick", "Writing is slow")
    until, whole, short = asked(
        nano,
        question("", page, until=["is", "\n\n"]),
        question("", page, until=["\n\n"]),  # which lmms-eval adds of itself
        question("", page, max_new_tokens=6),
    )
    assert whole.split() == ["Reading", "is", "quick", "Writing", "is", "slow"]
    assert until == "Reading "
    tokens = nano.processor.tokenizer(short, add_special_tokens=False)["input_ids"]
    assert short.strip() and whole.startswith(short.strip()) and len(tokens) <= 6


def test_what_is_not_used_is_said_once(nano):
    said: list[str] = []
    image = lines("Reading is quick")
    questions = [question("", image, temperature=0.7, top_p=0.9, image_aspect_ratio="pad")] * 2
    asked(nano, *questions, question("", image, temperature=0, do_sample=False, num_beams=1), warn=said.append)
    assert said == [
        "the setting 'image_aspect_ratio' is not used",
        "temperature=0.7 is not used: varytoy decodes greedily",
    ]


def test_a_question_that_cannot_be_asked_is_an_empty_answer_with_an_error(nano, hopper):
    first, second = Answering(nano).answers([question("Why? " * 9000, hopper), question("", lines("Reading is quick"))])
    assert first.text == "" and first.error.startswith("document 1: the prompt has")
    assert second.text == "Reading is quick" and not second.error
    film = Question([{"role": "user", "content": [{"type": "video", "url": "film.mp4"}]}], {})
    with pytest.raises(ValueError, match="videos and sounds are not read"):
        asked(nano, film)


def test_several_images_and_none_are_asked_in_one_prompt(nano, hopper):
    two, none = Answering(nano).answers([question("Compare them.", hopper, hopper), question("Say hello.")])
    assert two.prompt_tokens > none.prompt_tokens > 0 and not two.error and not none.error


def test_wrong_options_are_named(nano):
    with pytest.raises(ValueError, match="no boxes 'metres'; there are text, pixels, fractions"):
        Answering(nano, boxes="metres")
    with pytest.raises(ValueError, match="no task 'read'"):
        Answering(nano, task="read")


def test_each_process_takes_a_card_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert device_of_rank(None) == "auto" and device_of_rank("cpu") == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_rank(None) == device_of_rank("cuda") == "cuda:1" and device_of_rank("cpu") == "cpu"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("lmms_eval"), reason="lmms-eval is not installed")
def test_lmms_eval_runs_it(tmp_path):
    shutil.copytree(HERE, tmp_path / "tasks")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "cache")}
    run = {"cwd": tmp_path, "env": environment, "check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, HERE / "make.py", "data/lmms"], **run)
    tasks = "local_reading,local_docvqa,local_grounding"
    options = ["--device", "cpu", "--batch_size", "4", "--include_path", "tasks", "--output_path", "out"]
    subprocess.run(
        [sys.executable, "-m", "lmms_eval", "--model", "varytoy", "--model_args", "pretrained=nano", "--tasks", tasks]
        + options,
        **run,
    )
    (file,) = tmp_path.glob("out/*/*_results.json")
    results = json.loads(file.read_text())["results"]
    assert results["local_reading"]["ocrbench_accuracy,none"] >= 0.5
    assert results["local_docvqa"]["anls,none"] > 0.3
    assert results["local_grounding"]["refcoco_grounding_ACC@0.5,none"] == 1.0
