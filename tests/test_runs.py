"""A run that is killed, starved of disk or fed with nonsense: nothing is lost, and what happened is said."""

import errno
import functools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY, launch, losses, start_of
from conftest import tiny_recipe as recipe
from safetensors.torch import load_file
from transformers import Trainer

from train.__main__ import main
from train.checkpointing import SEAL, damage, resume_point
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.loop import run
from train.machine import allow_old_cards, remove_stale_locks, report_slow_bf16
from train.model import VaryForTraining
from train.recipe import DataSettings, RecipeError
from varytoy.data.sample import SampleError
from varytoy.data.samples import read_samples


def by_step(folder: Path) -> dict[int, float]:
    """The last loss that was written of each step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        (),
        (
            "train.weights=fp16",
            "train.optimizer=adamw_bnb_8bit",
            "train.in_backward=true",
            "train.clip_norm=0",
            "train.loss_scale=0",
            "train.batch_size=1",  # in fp16, gradients of convolutions take seconds on a CPU
        ),
        ("train.deepspeed=train/recipes/deepspeed/zero3.json",),
    ],
    ids=["plain", "in-backward", "zero3"],
)
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(ten, tmp_path, way):
    """Killed without warning at some step, perhaps while a checkpoint is written; weights and losses are bit-equal."""
    settings = ["train.max_steps=24", "train.batch_size=5", "train.save_steps=4", "train.log_steps=1", *way]
    path = tmp_path / "recipe.yaml"
    path.write_text(f"stage: pretrain\nmodel: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n")
    launch(path, f"output={tmp_path / 'whole'}", *settings)
    broken = tmp_path / "broken"
    wanted = random.randrange(5, 20)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(**start_of(path, f"output={broken}", *settings), **quiet)
    while not (broken / "metrics.jsonl").is_file() or len(losses(broken)) < wanted:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    launch(path, f"output={broken}", *settings, "--resume")
    found = by_step(broken)
    assert found == by_step(tmp_path / "whole"), f"killed at {wanted}"
    whole, after = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], after[name]) for name in whole), f"killed at {wanted}"


def test_a_damaged_checkpoint_is_said_and_an_older_one_taken(ten, tmp_path):
    output = tmp_path / "run"
    run(recipe(ten, output, max_steps=4, save_steps=2))
    newest = output / "checkpoint-4"
    for name in sorted(path.name for path in newest.iterdir()):
        kept = (newest / name).read_bytes()
        middle = len(kept) // 2
        for spoilt in (kept[:middle], kept[:middle] + bytes([kept[middle] ^ 1]) + kept[middle + 1 :], None):
            (newest / name).write_bytes(spoilt) if spoilt is not None else (newest / name).unlink()
            said = []
            assert resume_point(output, said.append) == str(output / "checkpoint-2")
            assert re.search(rf"checkpoint-4 .*\({'' if name == SEAL else re.escape(name)}", said[0])
        (newest / name).write_bytes(kept)
    assert not damage(newest) and resume_point(output, print) == str(newest)
    for folder in (newest, output / "checkpoint-2"):
        (folder / "trainer_state.json").unlink()
    with pytest.raises(RecipeError, match=rf"--resume: {re.escape(str(output))} "):
        resume_point(output, print)


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint(ten, tmp_path, monkeypatch):
    output = tmp_path / "run"
    plain = Trainer._save_optimizer_and_scheduler

    def full(self, folder):
        if self.state.global_step > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, folder)

    monkeypatch.setattr(Trainer, "_save_optimizer_and_scheduler", full)
    with pytest.raises(RecipeError, match=r"\bstep 4\b.*No space left.*checkpoint-2 .*--resume"):
        run(recipe(ten, output, max_steps=4, save_steps=2))
    assert sorted(path.name for path in output.glob("*checkpoint*")) == ["checkpoint-2"]
    assert not (output / "unfinished").exists()


def test_a_loss_that_is_not_finite_is_skipped_counted_and_in_the_end_too_much(ten, tmp_path, monkeypatch):
    plain = VaryForTraining.forward
    calls = []

    def sometimes(self, *arguments, **options):
        found = plain(self, *arguments, **options)
        calls.append(1)
        if len(calls) in (2, 3):
            found.loss = found.loss * float("nan")
        return found

    monkeypatch.setattr(VaryForTraining, "forward", functools.wraps(plain)(sometimes))
    said = []
    run(recipe(ten, tmp_path / "run", max_steps=5), say=said.append)
    names = [sample.id for sample in read_samples(ten)]
    skipped = [line for line in said if any(name in line for name in names)]
    assert len(skipped) == 2 and skipped[0].startswith("step 2") and re.match(r"2\b", said[-2])
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    calls.clear()
    with pytest.raises(RecipeError, match=r"\b2\b.*\btrain\.max_nonfinite_batches\b"):
        run(recipe(ten, tmp_path / "again", max_steps=5, max_nonfinite_batches=1))


def test_parts_have_their_own_rates_and_the_run_says_how_it_was_made(ten, tmp_path):
    run(recipe(ten, tmp_path / "one", max_steps=1))
    chosen = recipe(ten, tmp_path / "two", init=(str(tmp_path / "one"),), max_steps=3, schedule="constant")
    chosen.train.lr_overrides = {"vision_vocabulary": 0.0}
    run(chosen)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    learnt = [name for name in before if "running" not in name and "num_batches" not in name]
    moved = {name.split(".")[0] for name in learnt if not torch.equal(before[name], after[name])}
    assert moved == {"connector", "language_model"}
    row = json.loads((tmp_path / "two" / "runs.jsonl").read_text())
    assert row["versions"]["torch"] == torch.__version__ and row["data"][0]["samples"] == 10
    assert len(row["data"][0]["sha256"]) == 64 and row["command"]


def test_replayed_samples_are_a_part_of_the_epoch(ten, tmp_path):
    sources = [DataSettings(str(ten)), DataSettings(str(ten), replay=0.2)]
    found = SampleDataset(sources, 0, BadSamples())
    assert found.counts == [10, 2]  # rounded from 2.5
    with pytest.raises(SampleError, match=rf"{re.escape(str(ten))}: of its 10 samples an epoch has 0"):
        SampleDataset([DataSettings(str(ten), replay=0.2)], 0, BadSamples())


def test_answers_are_drawn_while_training_and_change_nothing(ten, tmp_path):
    run(recipe(ten, tmp_path / "plain", max_steps=3))
    run(recipe(ten, tmp_path / "drawn", max_steps=3, predict_steps=2))
    (written,) = (tmp_path / "drawn" / "predictions").iterdir()
    assert written.name == "step-000002"
    found = [json.loads(line) for line in (written / "predictions.jsonl").read_text().splitlines()]
    assert len(found) == 4 and all((written / row["picture"]).is_file() and row["wanted"] for row in found)
    plain, drawn = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "drawn"))
    assert all(torch.equal(plain[name], drawn[name]) for name in plain)


def test_inspect_marks_what_is_taught(ten, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"model: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n")
    assert main(["inspect", str(path), "--count", "2"]) == 0
    said = capsys.readouterr().out
    for sample in list(read_samples(ten))[:2]:
        part = said[said.index(f"--- {sample.id} ") :]
        taught = re.search("⟦(.*?)⟧", part, re.DOTALL)[1]
        assert re.sub(r"<[xy]_\d+>", "", taught).startswith(sample.answer)
        assert "<imgpad>x" in part[: part.index("⟦")]


@pytest.mark.parametrize(("capability", "expected"), [((6, 1), "1"), ((7, 5), None)])
def test_deepspeed_is_told_to_take_fp16_on_old_cards(capability, expected, monkeypatch):
    monkeypatch.delenv("DS_ALLOW_DEPRECATED_FP16", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "the card")
    said = []
    allow_old_cards(said.append)
    assert os.environ.pop("DS_ALLOW_DEPRECATED_FP16", None) == expected
    assert bool(said) == bool(expected)


@pytest.mark.parametrize("native", [False, True])
def test_bf16_on_a_cpu_without_it_is_reported(ten, tmp_path, monkeypatch, native):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: native, raising=False)
    reports = []
    report_slow_bf16(recipe(ten, tmp_path, precision="bf16"), reports.append)
    report_slow_bf16(recipe(ten, tmp_path), reports.append)
    assert len(reports) == (not native) and all("train.precision=bf16" in line for line in reports)


def test_the_lock_of_a_killed_compilation_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock, said = tmp_path / "py311_cpu" / "cpu_adam" / "lock", []
    lock.parent.mkdir(parents=True)
    lock.touch()
    remove_stale_locks(said.append)
    os.utime(lock, (time.time() - 600, time.time() - 600))
    with subprocess.Popen([sys.executable, "-c", "input()"], cwd=lock.parent, stdin=subprocess.PIPE) as compiling:
        remove_stale_locks(said.append)
        assert lock.exists() and not said  # a fresh one, and one whose compilation runs
        compiling.communicate(b"\n")
    remove_stale_locks(said.append)
    assert not lock.exists() and str(lock) in said[0]
