"""Scores by generation during a run, replay by default, and what is said before the first step."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, launch, losses, tiny_recipe
from safetensors.torch import load_file

import train.answers
import train.memory.room
from train.loop import run
from train.machine import check_machine
from train.recipe import DataSettings, LoraSettings, RecipeError, read_recipe
from train.replay import with_replay


def logged(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "eval_samples" in row]


ASKED = {"evaluate_steps": 2, "evaluate_count": 3, "evaluate_tokens": 4, "evaluate_batch": 2}


def test_scores_are_logged_and_training_is_as_without_them(ten, tmp_path):
    run(tiny_recipe(ten, tmp_path / "plain", max_steps=4, held_out=0.3))
    said = []
    run(tiny_recipe(ten, tmp_path / "asked", max_steps=4, held_out=0.3, **ASKED), say=said.append)
    rows = logged(tmp_path / "asked")
    assert [row["step"] for row in rows] == [0, 2, 4]  # the first before training
    for row in rows:
        assert row["eval_samples"] == 3 and row["eval_failed"] == 0
        scores = {name for name in row if name.startswith(("eval_ocr_char", "eval_markdown_tree"))}
        assert scores and any(name[5:].replace("_", " ") in line for line in said for name in scores)
    assert any("3 samples are held out" in line for line in said)
    assert any(
        re.match(r"every 2 steps 3 of 3 samples of train.held_out=0.3 are asked, at most 4 tokens", s) for s in said
    )
    assert losses(tmp_path / "plain") == losses(tmp_path / "asked")
    plain, asked = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "asked"))
    assert all(torch.equal(plain[name], asked[name]) for name in plain)
    every = [json.loads(line) for line in (tmp_path / "asked" / "metrics.jsonl").read_text().splitlines()]
    assert all(("loss_text" in row) == ("loss" in row) for row in every if "train_runtime" not in row)
    assert list((tmp_path / "asked" / "runs").rglob("events*"))


def test_a_resumed_run_goes_on_asking_at_the_recipes_intervals(ten, tmp_path):
    settings = {"save_steps": 2, "evaluate_on": str(ten), "schedule": "constant", **ASKED}
    run(tiny_recipe(ten, tmp_path / "run", max_steps=2, **settings))
    run(tiny_recipe(ten, tmp_path / "run", max_steps=4, **{**settings, "evaluate_steps": 1}), resume=True)
    assert [row["step"] for row in logged(tmp_path / "run")] == [0, 2, 3, 4]


@pytest.mark.parametrize("quantize", ["", "nf4"])
def test_adapters_are_asked_too(ten, tmp_path, quantize):
    if quantize:
        pytest.importorskip("bitsandbytes")
    chosen = tiny_recipe(ten, tmp_path / "run", clip=True, max_steps=2, held_out=0.3, precision="bf16", **ASKED)
    chosen.freeze, chosen.lora = ["vision_vocabulary", "clip"], LoraSettings(rank=4, quantize=quantize)
    run(chosen)
    assert [row["eval_failed"] for row in logged(tmp_path / "run")] == [0, 0]


def test_an_evaluation_that_fails_does_not_end_the_run(ten, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    shutil.copytree(ten, folder)
    (folder / "images" / "000" / "000001.png").write_bytes(b"no picture")
    plain = train.answers.answer_all
    largest = []

    def small_card(reader, questions, *rest):
        largest.append(len(questions))
        if len(questions) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return plain(reader, questions, *rest)

    monkeypatch.setattr(train.answers, "answer_all", small_card)
    said = []
    settings = {**ASKED, "evaluate_on": str(folder), "evaluate_count": 10, "evaluate_batch": 4}
    run(tiny_recipe(ten, tmp_path / "run", max_steps=2, **settings), say=said.append)
    assert [(row["eval_samples"], row["eval_failed"]) for row in logged(tmp_path / "run")] == [(9, 1), (9, 1)]
    text = "\n".join(said)
    assert "step 0: the evaluation was out of memory, and answers 2 samples at a time from now on" in text
    assert re.search(r"step 2: 1 of 10 samples could not be asked.*000001\.png", text)
    assert len(losses(tmp_path / "run")) == 2

    def broken(*_, **__):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(train.answers, "answer_all", broken)
    said.clear()
    run(tiny_recipe(ten, tmp_path / "again", max_steps=2, **settings), say=said.append)
    assert len(losses(tmp_path / "again")) == 2 and any(
        "10 of 10 samples" in line and "kernel" in line for line in said
    )


def test_several_processes_of_zero3_are_refused(ten, tmp_path, monkeypatch):
    zero3 = str(ROOT / "train" / "recipes" / "deepspeed" / "zero3.json")
    chosen = tiny_recipe(ten, tmp_path / "run", deepspeed=zero3, evaluate_steps=1, held_out=0.1)
    check_machine(chosen)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="train.evaluate_steps: ZeRO-3 in several processes.*zero2.json"):
        check_machine(chosen)


def test_what_to_ask_must_be_named(ten, tmp_path):
    with pytest.raises(RecipeError, match="train.evaluate_on=FOLDER, or train.held_out"):
        tiny_recipe(ten, tmp_path, evaluate_steps=2).check()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "samples.jsonl").write_text("")
    chosen = tiny_recipe(ten, tmp_path / "run", max_steps=2, evaluate_steps=2, evaluate_on=str(tmp_path / "empty"))
    with pytest.raises(RecipeError, match="train.evaluate_on=.*has no samples"):
        run(chosen)


def test_no_room_is_said_before_the_first_step(ten, tmp_path, monkeypatch):
    monkeypatch.setattr(train.memory.room, "memory", lambda _: (2**20, "on the card"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(train.memory.room.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    said = []
    run(tiny_recipe(ten, tmp_path / "run", max_steps=2, held_out=0.3, **ASKED), say=said.append)
    (memory,) = [
        number for number, line in enumerate(said) if "the evaluation will not fit: answers of 4 tokens" in line
    ]
    (disk,) = [number for number, line in enumerate(said) if "GiB of disk" in line and "train.keep=1" in line]
    first = next(number for number, line in enumerate(said) if line.startswith("step 0"))
    assert max(memory, disk) < first and "train.evaluate_batch" in said[memory]


def test_an_image_that_max_length_would_cut_is_refused(ten, tmp_path):
    path = ten / "samples.jsonl"
    with pytest.raises(RecipeError) as caught:
        run(tiny_recipe(ten, tmp_path / "run", max_steps=2, max_length=40))
    found = re.search(
        rf"{re.escape(str(path))} line \d+, sample '.*': its images end at token (\d+), over train\.max_length=40, and "
        rf"would be cut.*raise train\.max_length to at least (\d+)",
        str(caught.value),
    )
    assert found and 40 < int(found[1]) <= int(found[2])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    said = []  # images that fit, with answers that do not, are bad samples
    run(tiny_recipe(ten, tmp_path / "run", max_steps=1, batch_size=10, max_length=int(found[2])), say=said.append)
    assert any("over train.max_length" in line for line in said)


def adapting(data, output, init, **settings):
    chosen = tiny_recipe(data, output, init=(str(init),), **settings)
    chosen.stage = "sft"
    return chosen


def test_old_data_are_replayed_by_default_and_named(ten, tmp_path):
    old, new = (Path(shutil.copytree(ten, tmp_path / name)) for name in ("old", "new"))
    run(tiny_recipe(old, tmp_path / "first", max_steps=1))
    said = []
    run(adapting(new, tmp_path / "second", tmp_path / "first", max_steps=2, save_steps=1), say=said.append)
    assert said[0] == (
        f"replayed: 10.0% of each epoch from {old}, which {tmp_path / 'first'} was trained on (replay=0 for none)"
    )
    assert any(line.strip() == f"1 samples from {old}, replayed" for line in said)
    stored = read_recipe(tmp_path / "second" / "recipe.yaml").data
    assert [(source.path, source.replay) for source in stored] == [(str(new), 0.0), (str(old), 0.1)]
    shutil.rmtree(tmp_path / "first" / "runs")
    (tmp_path / "first" / "recipe.yaml").unlink()  # a resumed run does not ask again
    run(adapting(new, tmp_path / "second", tmp_path / "first", max_steps=3, save_steps=1), resume=True)
    assert read_recipe(tmp_path / "second" / "recipe.yaml").data == stored


def test_a_run_that_replays_nothing_says_how_to(ten, tmp_path):
    old = Path(shutil.copytree(ten, tmp_path / "old"))
    run(tiny_recipe(old, tmp_path / "first", max_steps=1))
    shutil.rmtree(old)

    def first_lines(init: str = "first", **changes) -> list[str]:
        chosen, said = replace(adapting(ten, tmp_path / "run", tmp_path / init), **changes), []
        assert with_replay(chosen, report=said.append) == chosen
        return said

    (said,) = first_lines()
    assert said.startswith(f"nothing is replayed, so {tmp_path / 'first'} may forget") and str(old) in said
    assert "replay: 0.1" in said
    own = [DataSettings(str(ten)), DataSettings(str(ten), replay=0.2)]
    assert first_lines(data=own) == [f"replayed: 20% of each epoch from {ten}"]
    assert first_lines(replay=0.0) == first_lines(stage="pretrain") == []
    run(tiny_recipe(ten, tmp_path / "same", max_steps=1))  # the run's own data once more: nothing is missing
    assert first_lines("same") == []


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["zero2.json", "zero3.json"])
def test_deepspeed_is_asked_too(ten, tmp_path, deepspeed):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"stage: pretrain\noutput: {tmp_path / 'run'}\nmodel: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n"
    )
    zero = f"train.deepspeed={ROOT / 'train' / 'recipes' / 'deepspeed' / deepspeed}"
    settings = [f"train.{name}={value}" for name, value in {**ASKED, "held_out": 0.3, "max_steps": 4}.items()]
    said = launch(path, "train.batch_size=5", "train.log_steps=1", zero, *settings)
    assert [(row["step"], row["eval_failed"]) for row in logged(tmp_path / "run")] == [(0, 0), (2, 0), (4, 0)], said
