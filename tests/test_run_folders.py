"""The folder of a run: a run goes on with what it was started with, alone, and a model is not overwritten unasked."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import TINY, forked, heed_interrupts, losses, start_of

from train.__main__ import main
from train.recipe import Recipe, RecipeError, TrainSettings, to_yaml
from train.run_folder import alone, compare


def write(folder: Path, data: Path, **train) -> Path:
    """A recipe of two steps with a checkpoint after each, for the folder ``run`` beside it."""
    settings = {"max_steps": 2, "batch_size": 5, "save_steps": 1, "log_steps": 1, **train}
    text = ", ".join(f"{key}: {value}" for key, value in settings.items())
    path = folder / "recipe.yaml"
    path.write_text(
        f"stage: pretrain\noutput: {folder / 'run'}\nmodel: {{preset: {TINY}, clip: false}}\n"
        f"data: [{{path: {data}}}]\ntrain: {{{text}}}\n"
    )
    return path


@pytest.fixture
def done(ten, tmp_path) -> Path:
    """The recipe of a finished run on samples of its own."""
    path = write(tmp_path, shutil.copytree(ten, tmp_path / "data"))
    assert main(["run", str(path)]) == 0
    return path


def test_what_may_not_change_is_refused_before_anything_is_written(done, tmp_path, capsys):
    stored = tmp_path / "run" / "recipe.yaml"
    before = stored.read_bytes()
    for override, named in {
        "train.learning_rate=0.5": r"train\.learning_rate=0\.5 \(\w+ 5e-05\)",
        "train.optimizer=adafactor": r"train\.optimizer=adafactor \(\w+ adamw_torch\)",
        "model.clip=true": r"model\.clip=True \(\w+ False\)",
        "data.1.path=elsewhere": r"data\.1\.path=elsewhere \(\w+ None\)",
    }.items():
        assert main(["run", str(done), "--resume", override]) == 2
        error = capsys.readouterr().err
        assert re.search(named, error) and error.count("\n") == 1
        assert f"model.init={tmp_path / 'run' / 'checkpoint-2'}" in error
    with (tmp_path / "data" / "samples.jsonl").open("a") as lines:
        lines.write("\n")
    assert main(["run", str(done), "--resume"]) == 2
    error = capsys.readouterr().err
    assert f"data.0.path={tmp_path / 'data'}" in error and "runs.jsonl" in error
    assert stored.read_bytes() == before


def test_a_deepspeed_file_may_have_moved(tmp_path):
    said = []
    for name, text in (("old", "{}"), ("new", "{}"), ("other", '{"x": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "zero.json").write_text(text)
    started, moved, other = (
        Recipe(train=TrainSettings(deepspeed=f"{tmp_path / name}/zero.json")) for name in "old new other".split()
    )
    (tmp_path / "recipe.yaml").write_text(to_yaml(started))
    compare(moved, tmp_path, "checkpoint-1", said.append)
    assert "train.deepspeed=" in said[-1]
    stored = re.escape(str(tmp_path / "recipe.yaml"))
    with pytest.raises(RecipeError, match=rf"train\.deepspeed=\S*other/zero\.json .*{stored}"):
        compare(other, tmp_path, "checkpoint-1", said.append)
    (tmp_path / "old" / "zero.json").unlink()
    compare(moved, tmp_path, "checkpoint-1", said.append)
    with pytest.raises(RecipeError, match=rf"train\.deepspeed= .*{stored}"):
        compare(Recipe(), tmp_path, "checkpoint-1", said.append)


def test_what_may_change_is_said_and_applied(done, tmp_path, capsys):
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    asked = ["train.max_steps=5", "train.save_steps=50", f"data.0.path={moved}"]
    assert main(["run", str(done), *asked, "--resume"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"train\.max_steps=5 \(\w+ 2\)", said) and f"data.0.path={moved} (" in said
    assert len(losses(tmp_path / "run")) == 5
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-5"}
    assert main(["run", str(done), *asked, "train.max_steps=1", "--resume"]) == 2
    assert re.search(r"train\.max_steps=1\b.*checkpoint-5\b", capsys.readouterr().err)


def test_a_finished_model_is_overwritten_only_on_demand(done, tmp_path, capsys):
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        shutil.rmtree(folder)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert main(["run", str(done)]) == 2
    assert "model.safetensors" in (error := capsys.readouterr().err) and "--overwrite" in error
    assert main(["run", str(done), "--overwrite", f"model.init={tmp_path / 'run'}"]) == 2
    assert "model.init" in capsys.readouterr().err and (tmp_path / "run" / "model.safetensors").is_file()
    assert main(["run", str(done), "--overwrite", "train.max_steps=1"]) == 0
    assert len(losses(tmp_path / "run")) == 1 and (tmp_path / "run" / "notes.txt").is_file()


def test_overwrite_deletes_a_run_and_only_when_the_next_can_start(done, tmp_path, capsys):
    run = tmp_path / "run"
    wrong = ["lora.rank=2", "lora.targets=[typo]", "freeze=[vision_vocabulary]"]
    assert main(["run", str(done), "--overwrite", *wrong]) == 2
    assert re.search(r"lora\.targets\b.*\btypo\b", capsys.readouterr().err)
    assert (run / "model.safetensors").is_file() and (run / "runs.jsonl").is_file()
    other = tmp_path / "other"
    (other / "runs").mkdir(parents=True)
    assert main(["run", str(done), "--overwrite", f"output={other}"]) == 2
    assert "recipe.yaml" in capsys.readouterr().err and (other / "runs").is_dir()
    assert main(["export", str(run), str(run)]) == 2


def test_one_run_at_a_time_until_its_process_ends(ten, tmp_path, capsys):
    path = write(tmp_path, ten)
    held = multiprocessing.Event()

    def hold() -> None:
        with alone(tmp_path / "run"):
            held.set()
            time.sleep(60)

    other = forked(hold)
    try:
        assert held.wait(30)
        for more in ((), ("--overwrite",)):
            assert main(["run", str(path), *more]) == 2
            named = rf"{re.escape(str(tmp_path / 'run'))} .*\b{other.pid}\b"
            assert re.search(named, capsys.readouterr().err)
    finally:
        other.kill()
        other.join()
    assert main(["run", str(path), "train.max_steps=1"]) == 0
    assert not (tmp_path / "run" / "run.lock").exists()


@pytest.mark.parametrize("name", ["recipe.yaml.part", "runs.jsonl", "metrics.jsonl", "runs", "predictions"])
def test_a_file_that_cannot_be_written_is_named(ten, tmp_path, capsys, name):
    """A full disk, as /dev/full plays it; a file in a folder's place, for folders."""
    path = write(tmp_path, ten, predict_steps=int(name == "predictions"))
    (tmp_path / "run").mkdir()
    if name in ("runs", "predictions"):
        (tmp_path / "run" / name).touch()
    else:
        (tmp_path / "run" / name).symlink_to("/dev/full")
    assert main(["run", str(path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert name.removesuffix(".part") in error and re.search(r"\d MiB\b", error)


@pytest.mark.slow
def test_ctrl_c_says_where_to_go_on(ten, tmp_path):
    path = write(tmp_path, ten, max_steps=5000, workers=1)
    process = subprocess.Popen(
        **start_of(path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    end = time.time() + 100
    while not any((tmp_path / "run").glob("checkpoint-*")):
        assert process.poll() is None and time.time() < end
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in error
    assert str(tmp_path / "run" / "checkpoint-") in error.splitlines()[-1]
