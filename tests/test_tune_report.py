"""``python -m train report``: intervals, the comparison by generation, the proof of the merge, and the decision."""

import json
import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from PIL import Image
from safetensors.torch import load_file, save_file

import train.merge_check
from train.__main__ import main
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.intervals import Interval, paired, sums_of
from train.loop import run
from train.merge_check import check_merge
from train.recipe import DataSettings, LoraSettings
from train.report import Report, TaskResult, decide
from varytoy.data.boxes import Box, format_boxes
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.tasks import TASKS


def of_task(name: str, answers: list[str], boxes: list[list[Box]] | None = None) -> list[Sample]:
    boxes = boxes or [[] for _ in answers]
    turns = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}] for answer in answers]
    return [
        Sample(messages, ["a.png"], str(n), name, own)
        for n, (messages, own) in enumerate(zip(turns, boxes, strict=True))
    ]


def some_answers(name: str) -> tuple[list[str], list[Sample]]:
    rng = random.Random(1)
    if name != "detect":
        words = ["one", "two two", "# three", "a four", ""]
        return [rng.choice(words) for _ in range(30)], of_task(name, [rng.choice(words[:4]) for _ in range(30)])

    def boxes() -> list[Box]:
        corners = [(rng.choice((0, 40)), rng.choice((0, 60))) for _ in range(rng.randrange(4))]
        return [Box(rng.choice("ab"), (x, y, x + 100, y + 100)) for x, y in corners]

    truths = [boxes() for _ in range(30)]
    return [format_boxes(boxes()) for _ in range(30)], of_task(name, [format_boxes(each) for each in truths], truths)


@pytest.mark.parametrize("name", ["ocr", "markdown", "detect", "vqa"])
def test_sums_over_samples_give_the_score_of_the_task(name):
    texts, samples = some_answers(name)
    rows, combine = sums_of(TASKS[name], texts, samples)
    assert rows.shape[0] == 30
    assert float(combine(rows.sum(0))) == pytest.approx(TASKS[name].score(texts, samples))
    part = slice(3, 17)
    assert float(combine(rows[part].sum(0))) == pytest.approx(TASKS[name].score(texts[part], samples[part]))


def test_intervals_are_those_of_theory_and_paired():
    rng = np.random.default_rng(3)
    easy = rng.normal(0, 1, 400)  # what both models have in common
    rows = [np.stack([easy + shift + rng.normal(0, 0.1, 400), np.ones(400)], 1) for shift in (5.0, 5.05)]

    def combine(sums):
        return sums[..., 0] / sums[..., 1]

    first, second, difference = paired(*rows, combine, range(400))
    assert first.high - first.low == pytest.approx(2 * 1.96 * np.std(rows[0][:, 0]) / 20, rel=0.1)
    assert difference.value == pytest.approx(second.value - first.value)
    assert 0 < difference.low < 0.05 < difference.high < 0.1  # far below what the single intervals could show
    again = paired(*rows, combine, range(400))
    assert again == (first, second, difference)
    doubled = [np.repeat(each, 2, axis=0) for each in rows]  # each sample twice is no new knowledge
    grouped, *_ = paired(*doubled, combine, np.repeat(np.arange(400), 2))
    loose, *_ = paired(*doubled, combine, range(800))
    assert grouped.high - grouped.low == pytest.approx(first.high - first.low, rel=0.1)
    assert loose.high - loose.low < 0.8 * (grouped.high - grouped.low)


def test_a_part_is_held_out_by_picture_and_not_trained_on(ten, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(ten, folder)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    (folder / "samples.jsonl").write_text("\n".join(lines + lines) + "\n")  # two questions about each picture
    found = SampleDataset([DataSettings(str(folder))], 0, BadSamples(), 0.2)
    taught, asked = ({sample.images[0] for sample in part} for part in (found.samples, found.held_out[0]))
    assert len(taught) == 8 and len(asked) == 2 and not taught & asked
    assert found.counts == [16] and len(found.held_out[0]) == 4
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert {s.images[0] for s in SampleDataset([DataSettings(str(moved))], 7, BadSamples(), 0.2).held_out[0]} == asked


def adapted(data, output, init, quantize: str = "", **settings):
    chosen = tiny_recipe(data, output, init=(str(init),), clip=True, **{"learning_rate": 1e-2, **settings})
    chosen.freeze, chosen.replay = ["vision_vocabulary", "clip"], 0.0
    chosen.lora = LoraSettings(rank=4, quantize=quantize)
    return chosen


@pytest.fixture(scope="module")
def base(ten, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "first"
    run(tiny_recipe(ten, folder, clip=True, max_steps=2))
    return folder


@pytest.fixture(scope="module")
def tuned(ten, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "run"
    chosen = adapted(ten, folder, base, max_steps=10, held_out=0.3)
    chosen.data.append(DataSettings(str(ten), replay=0.2))
    run(chosen)
    return folder


def test_adapters_are_compared_with_their_base_and_proved(tuned, base, ten, capsys):
    assert main(["report", str(tuned), "--max-new-tokens", "12", "--count", "3"]) == 0
    said = capsys.readouterr().out
    assert f"new: 3 samples of {ten}, held out of training" in said and "old: 3 samples" in said
    assert "equals base + adapters" in said and "No adapter is all zero" in said
    found = json.loads((tuned / "report" / "report.json").read_text())
    assert found["base"] == str(base) and found["merge"]["equal"] and not found["merge"]["nothing"]
    assert found["merge"]["layers"] == 14 and 0 < found["merge"]["change"] and found["merge"]["weights"] < 1e-5
    assert found["sentence"] in said and found["decision"] in ("keep", "do not keep", "undecided")
    held = {sample.id for sample in SampleDataset([DataSettings(str(ten))], 0, BadSamples(), 0.3).held_out[0]}
    results = [result for result in found["results"] if result["set"] == "new"]
    assert {answer["id"] for result in results for answer in result["answers"]} == held
    for result in results:
        answers = result["answers"]
        samples = [replace(next(s for s in read_samples(ten) if s.id == answer["id"])) for answer in answers]
        for side in ("base", "tuned"):
            texts = [answer[side] for answer in answers]
            assert result[side]["value"] == pytest.approx(TASKS[result["task"]].score(texts, samples))
            assert result[side]["low"] <= result[side]["value"] <= result[side]["high"]
    page = (tuned / "report" / "report.md").read_text()
    assert found["sentence"] in page and "## Won" in page or "## Lost" in page
    for name in re.findall(r"!\[\]?.*?\]\((.*?)\)", page):
        with Image.open(tuned / "report" / name) as sheet:
            assert sheet.width > 300


def test_adapters_that_were_merged_to_nothing_are_named(tuned, ten, tmp_path, capsys):
    empty = tmp_path / "empty"
    shutil.copytree(tuned, empty, ignore=shutil.ignore_patterns("checkpoint-*", "report"))
    weights = load_file(empty / "adapter_model.safetensors")
    zeroed = {name: value * 0 if "lora_B" in name else value for name, value in weights.items()}
    save_file(zeroed, empty / "adapter_model.safetensors", {"format": "pt"})
    found = check_merge(empty, list(read_samples(ten))[:1], tmp_path)
    assert len(found.zero) == found.layers == 14 and found.is_nothing and found.is_equal
    assert any("ALL ADAPTERS ARE ZERO" in line for line in found.sentences())
    assert main(["report", str(empty), "--new", str(ten), "--max-new-tokens", "4", "--count", "2"]) == 0
    assert "Do not keep it: its adapters change nothing." in capsys.readouterr().out
    first = next(name for name in weights if "lora_B" in name)
    save_file(weights | {first: weights[first] * 0}, empty / "adapter_model.safetensors", {"format": "pt"})
    found = check_merge(empty, list(read_samples(ten))[:1], tmp_path / "one")
    assert len(found.zero) == 1 and not found.is_nothing and "1 of 14 adapters" in "\n".join(found.sentences())


def test_a_merge_that_loses_the_adapters_does_not_pass(tuned, base, ten, tmp_path, monkeypatch):
    monkeypatch.setattr(train.merge_check.adapters, "merge", lambda _, out: shutil.copytree(base, out))
    found = check_merge(tuned, list(read_samples(ten))[:1], tmp_path)
    assert not found.is_equal and found.weights > 1e-3 and "DOES NOT EQUAL" in found.sentences()[0]


def test_adapters_of_four_bits_are_held_against_what_they_were_trained_on(ten, base, tmp_path):
    pytest.importorskip("bitsandbytes")
    run(adapted(ten, tmp_path / "run", base, quantize="nf4", max_steps=3))
    found = check_merge(tmp_path / "run", list(read_samples(ten))[:1], tmp_path, "nf4")
    assert found.is_equal and found.four_bits > 10 * found.scores


def test_a_full_tune_on_its_own_training_data(ten, base, tmp_path, capsys):
    run(tiny_recipe(ten, tmp_path / "run", init=(str(base),), clip=True, max_steps=2))
    out = tmp_path / "out"
    start = ["report", str(tmp_path / "run"), "--count", "2", "--max-new-tokens", "4", "--out", str(out)]
    assert main([*start, "--old", str(ten)]) == 0
    said = capsys.readouterr().out
    assert "TRAINED ON" in said and "train.held_out" in said
    found = json.loads((out / "report.json").read_text())
    assert found["merge"] is None and {result["set"] for result in found["results"]} == {"new", "old"}
    assert main(start) == 0
    assert "old: none" in (out / "report.md").read_text()


def test_what_cannot_be_compared_is_one_sentence(ten, base, tmp_path, capsys):
    for arguments, words in (
        ([str(base)], "random weights.*--base MODEL"),
        ([str(tmp_path)], "no finished model"),
        ([str(base), "--base", str(base), "--new", str(tmp_path / "none")], "none"),
    ):
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(words, error), error


def result(name: str, difference: tuple[float, float, float], is_error: bool = True) -> TaskResult:
    spread = Interval(0.5, 0.4, 0.6)
    return TaskResult(name, "ocr" if is_error else "vqa", "metric", is_error, spread, spread, Interval(*difference), [])


BETTER, SAME, WORSE = (-0.1, -0.15, -0.05), (-0.01, -0.05, 0.03), (0.1, 0.05, 0.15)


@pytest.mark.parametrize(
    ("new", "old", "decision"),
    [
        (BETTER, SAME, "keep"),
        (BETTER, WORSE, "do not keep"),
        (BETTER, (0.05, -0.02, 0.12), "undecided"),  # worse by more than allowed, but perhaps by chance
        (BETTER, (0.01, 0.005, 0.015), "keep"),  # surely worse, by less than allowed
        (SAME, SAME, "undecided"),
        (WORSE, BETTER, "do not keep"),
        (BETTER, None, "keep"),
    ],
)
@pytest.mark.parametrize("is_error", [True, False])
def test_the_decision_follows_the_rule(new, old, decision, is_error):
    def turned(values):
        value, low, high = values
        return values if is_error else (-value, -high, -low)

    results = [result("new", turned(new), is_error)] + ([result("old", turned(old), is_error)] if old else [])
    found, sentence = decide(Report("run", "base", [], results, None, 0.02, 0))
    assert found == decision and sentence.lower().startswith(decision.split(",")[0])
    assert ("--old" in sentence) == (old is None)


def test_no_score_of_a_prompt_but_the_last_is_kept_in_generation(ten, tmp_path):
    """Else a batch of long prompts alone would fill a card at the first evaluation."""
    from train.model import build
    from varytoy.inference.engine import Request, TransformersEngine

    model, processor, _ = build(tiny_recipe(ten, tmp_path))
    seen = []
    model.language_model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[1]))
    sample = next(read_samples(ten))
    request = Request.of(TASKS["ocr"], sample.messages[:-1], sample.open_images(), 3)
    with torch.no_grad():
        TransformersEngine(model.eval(), processor).generate([request])
    assert seen and set(seen) == {1}
