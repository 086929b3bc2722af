"""Confidences as shares of right answers, and the baselines that scores on pictures are compared with."""

import json
import math
import random
import shutil

import pytest
from conftest import FakeEngine, noise, tiny_config, tiny_model

from train import baselines
from train.__main__ import main
from train.calibration import Scale, draw
from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer
from varytoy.data.boxes import Box
from varytoy.data.sample import Annotations, Sample
from varytoy.inference.calibration import FILE, bins, calibrated, expected_error, fit, read_calibration
from varytoy.inference.reader import Reader


def drawn(count: int = 4000) -> tuple[list[float], list[float]]:
    """Confidences that are too high: the share of right answers is the logistic of half the logit, minus one."""
    rng = random.Random(0)
    confidences = [rng.uniform(0.3, 0.999) for _ in range(count)]
    return confidences, [float(rng.random() < calibrated(each, (0.5, -1.0))) for each in confidences]


def test_a_scale_is_fitted():
    confidences, right = drawn()
    scale = fit(confidences, right)
    assert scale == pytest.approx((0.5, -1.0), abs=0.12)
    after = [calibrated(each, scale) for each in confidences]
    assert expected_error(after, right) < 0.03 < 0.2 < expected_error(confidences, right)
    assert calibrated(0.0, scale) < calibrated(1.0, scale) and not math.isnan(calibrated(1.0, scale))
    assert all(math.isfinite(number) for number in fit([0.9] * 5, [1.0] * 5))  # nothing is wrong
    with pytest.raises(ValueError, match="no answers"):
        fit([], [])


def test_the_expected_error_by_hand():
    assert bins([0.15, 0.1, 0.95], [0, 1, 1]) == [(0.125, 0.5, 2), (0.95, 1.0, 1)]
    assert expected_error([0.15, 0.1, 0.95], [0, 1, 1]) == pytest.approx((0.375 * 2 + 0.05) / 3)


def test_a_curve_is_drawn(tmp_path):
    confidences, right = drawn(200)
    draw([Scale("vqa", (0.5, -1.0), list(zip(confidences, right, strict=True)))], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5_000


def test_a_reader_shows_the_calibrated_confidence(processor, pictures, tmp_path):
    said = Answer("yes", confidence=0.9, tokens=2)
    reader = Reader(FakeEngine(processor, lambda request: said))
    reader.calibration = {"vqa": (0.5, -1.0)}
    assert reader.vqa(pictures[0], "Is it?").confidence == pytest.approx(calibrated(0.9, (0.5, -1.0)))
    assert reader.caption(pictures[0]).confidence == 0.9
    (tmp_path / FILE).write_text('{"ocr": [1, 2], "vqa": [0.5, -1]}')
    assert read_calibration(tmp_path) == {"ocr": (1.0, 2.0), "vqa": (0.5, -1.0)}
    for damaged in ("[1]", '{"vqa": 1}', '{"vqa": [1, NaN]}', "{"):
        (tmp_path / FILE).write_text(damaged)
        with pytest.raises(ValueError, match=FILE):
            read_calibration(tmp_path)


def test_a_part_for_pictures(processor, pictures, tmp_path):
    """A folder ``pictures`` within a checkpoint answers about pictures; the checkpoint itself reads."""
    for folder, seed in ((tmp_path / "both", 0), (tmp_path / "both" / "pictures", 1)):
        model = tiny_model(tiny_config())
        for parameter in model.parameters():
            parameter.data += seed * 0.1
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    reader, alone = (Reader.from_pretrained(str(tmp_path / name), "cpu") for name in ("both", "both/pictures"))
    options = {"max_new_tokens": 8}
    assert reader.caption(pictures[0], **options).text == alone.caption(pictures[0], **options).text
    assert reader.picture_engine is not reader.engine and alone.picture_engine is alone.engine
    shutil.rmtree(tmp_path / "both" / "pictures")
    plain = Reader.from_pretrained(str(tmp_path / "both"), "cpu")
    assert reader.ocr(pictures[0], **options).text == plain.ocr(pictures[0], **options).text
    assert reader.caption(pictures[0], **options).text != plain.caption(pictures[0], **options).text
    (tmp_path / "both" / FILE).write_text("[]")
    with pytest.raises(ModelError, match=FILE):
        Reader.from_pretrained(str(tmp_path / "both"), "cpu")


def question(prompt: str, answer: str, task: str = "vqa", kind: str | None = "presence", **rest) -> Sample:
    messages = [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}]
    return Sample(messages, ["a.png"], task=task, metadata={"kind": kind} if kind else {}, **rest)


def written(folder, samples: list[Sample]):
    (folder / "images").mkdir(parents=True)
    noise(64, 64).save(folder / "images" / "a.png")
    rows = [{**sample.to_json(), "images": ["images/a.png"], "id": str(n)} for n, sample in enumerate(samples)]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


ASK = "{} Answer using a single word or phrase."
SAMPLES = [
    question(ASK.format("Is there a dog?"), "yes"),
    question(ASK.format("Is there a cat?"), "no"),
    question(ASK.format("Is there a cow?"), "no"),
    question("Find a dog.", "[100, 100, 900, 900]", "ground", None, boxes=[Box("a dog", (100, 100, 900, 900))]),
]


def test_guesses_from_training_samples(tmp_path):
    dog = "Is there a dog? Give a short answer."
    training = [question(dog, "yes"), question(dog, "yes"), question(dog, "no"), *SAMPLES[1:]]
    guesses = baselines.Guesses(written(tmp_path / "train", training))
    assert guesses.question_only(SAMPLES[:3]) == ["yes", "no", "no"]
    assert guesses.fixed(SAMPLES[:3]) == pytest.approx(2 / 3)
    assert guesses.question_only(SAMPLES[3:]) == ["[100, 100, 900, 900]"]  # the mean box of the phrase
    assert guesses.fixed(SAMPLES[3:]) == 1.0
    captions = [question("Describe.", "A dog.", "caption", None, annotations=Annotations(references=["A dog."]))]
    assert guesses.question_only(captions) is None and guesses.fixed(captions) == 0.0
    things = [
        question("Detect.", "dog: [000, 000, 1000, 1000];", "detect", None, boxes=[Box("dog", (0, 0, 1000, 1000))])
    ]
    assert guesses.fixed(things) == 1.0


def test_the_table_of_a_model_beside_its_baselines(tmp_path, processor, capsys):
    folder = written(tmp_path / "samples", SAMPLES)
    tiny_model(tiny_config()).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--samples", str(folder), "--baselines", str(folder)]
    assert main(["evaluate", *words, "--max-new-tokens", "6", "--write", str(tmp_path / "table.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| | metric | samples | model | blank | off | question only | fixed |")
    assert any("| vqa: presence | exact match | 3 | 0.000 | 0.000 | 0.000 | 1.000 | 0.667 |" in line for line in lines)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["ground"]["fixed"] == 1.0 and table["ground"]["samples"] == 1
    own = ["--samples", str(folder)]
    for wrong, said in (
        (["--baselines", str(folder)], "--baselines is only used with --samples: add --samples"),
        ([*own, "--text-only"], "--text-only is not used with --samples: leave it out"),
        ([*own, "--count", "3"], "--count is not used with --samples"),
        ([*words[2:], "--worst", str(tmp_path / "worst")], "--worst does not go together with --baselines"),
    ):
        assert main(["evaluate", *wrong]) == 2
        assert said in capsys.readouterr().err
