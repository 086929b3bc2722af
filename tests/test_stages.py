"""Stages of one run: each from the weights of the one before, at its own resolution, resumed inside any of them."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY, noise
from safetensors.torch import load_file
from torch.nn import functional as F

from train.__main__ import main
from train.loop import run
from train.memory.plan import plan
from train.recipe import RecipeError, load_recipe, smoke_test
from train.replay import with_replay
from train.report import _recipe_of
from train.stages import shape_recipes, stage_recipes
from train.trainer import VaryTrainer
from varytoy.inference.reader import Reader

STAGES = [
    {"resolution": 64, "learning_rate": 2e-3},
    {"resolution": 96, "train": ["vision_vocabulary"], "rates": {"vision_vocabulary": 1e-2}, "max_steps": 4},
    {"learning_rate": 5e-4},
]
PARTS = {"vision_vocabulary", "connector", "language_model"}


def write(folder: Path, data: Path, **changes) -> Path:
    """A recipe of three stages of a tiny SAM, whose positions are those of 64 pixels."""
    tree = json.loads(Path(TINY).read_text())
    tree["vocabulary_config"] = {
        **{"image_size": 64, "patch_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "window_size": 3},
        **{"global_layers": [1], "neck_size": 16, "compressor_sizes": [24, 32]},
    }
    tree["processor"]["image_processor"] |= {"mode": "squash", "size": [64, 64], "stride": [32, 32], "clip_size": 0}
    (folder / "preset.json").write_text(json.dumps(tree))
    recipe = {
        "stage": "sft",
        "output": str(folder / "run"),
        "model": {"preset": str(folder / "preset.json"), "clip": False},
        "data": [{"path": str(data)}],
        "train": {"max_steps": 3, "batch_size": 5, "save_steps": 2, "log_steps": 1},
        "stages": STAGES,
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def done(ten, tmp_path_factory) -> Path:
    """The recipe of a finished run, which no test changes."""
    path = write(tmp_path_factory.mktemp("stages"), ten)
    assert main(["run", str(path)]) == 0
    return path


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of it to go on with."""
    shutil.copytree(done.parent / "run", tmp_path / "run")
    recipe = yaml.safe_load(done.read_text()) | {"output": str(tmp_path / "run")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "recipe.yaml"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def moved(before: Path, after: Path) -> set[str]:
    """Parts with a weight that differs."""
    old, new = weights(before), weights(after)
    assert old.keys() == new.keys()
    return {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}


def test_each_stage_trains_its_parts_and_begins_from_the_one_before(done, tmp_path):
    output = done.parent / "run"
    one, two, three = (output / f"stage-{number}" for number in (1, 2, 3))
    assert moved(one, two) == {"vision_vocabulary"}
    assert moved(two, three) == PARTS
    assert not moved(three, output)
    settings = torch.load(two / "checkpoint-4" / "optimizer.pt", weights_only=True)
    assert {int(state["step"]) for state in settings["state"].values()} == {4}
    alone = replace(stage_recipes(load_recipe(done))[2], output=str(tmp_path / "alone"))
    run(alone)  # an ordinary run from the second stage's model
    assert not moved(tmp_path / "alone", three)


def test_positions_are_interpolated_to_the_resolution_of_the_stage(done):
    output = done.parent / "run"
    tables = [weights(output / f"stage-{number}")["vision_vocabulary.pos_embed"] for number in (1, 2)]
    assert tables[0].shape == tables[1].shape == (1, 8, 8, 32)
    page, counts = noise(100, 60), []
    for name in ("stage-1", "stage-2", "stage-3", ""):
        reader = Reader.from_pretrained(str(output / name), "cpu")
        counts.append(reader.ask(page, "ocr", max_new_tokens=1).prompt_tokens)
    assert [count - counts[0] for count in counts] == [0, 9 - 4, 9 - 4, 9 - 4]
    model, seen = reader.engine.model, []
    model.vision_vocabulary.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.zeros(1, 3, 96, 96)
    with torch.no_grad():
        model.vision_vocabulary(pixels)
        patches = model.vision_vocabulary.patch_embed(pixels, None).permute(0, 2, 3, 1)
    table = weights(output)["vision_vocabulary.pos_embed"].permute(0, 3, 1, 2)
    wide = F.interpolate(table, (12, 12), mode="bicubic", align_corners=False, antialias=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(seen[0], patches + wide)


@pytest.mark.parametrize("step", [1, 3], ids=["before a checkpoint", "after one"])
def test_a_run_that_is_stopped_in_its_second_stage_goes_on_there(step, done, ten, tmp_path, monkeypatch, capsys):
    path = write(tmp_path, ten, stages=STAGES[:2])
    plain = VaryTrainer.training_step

    def stopping(self, *arguments, **options):
        if "stage-2" in self.args.output_dir and self.state.global_step == step:
            raise KeyboardInterrupt
        return plain(self, *arguments, **options)

    monkeypatch.setattr(VaryTrainer, "training_step", stopping)
    assert main(["run", str(path)]) == 130
    last = tmp_path / "run" / ("stage-2/checkpoint-2" if step > 2 else "stage-1/checkpoint-3")
    assert f"the last checkpoint is {last}: go on with --resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["run", str(path)]) == 2 and "holds a run: continue it with --resume" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "run" / "recipe.yaml"), "--resume"]) == 0
    starts = [(tmp_path / "run" / f"stage-{number}" / "runs.jsonl").read_text() for number in (1, 2)]
    assert [text.count("\n") for text in starts] == [1, 2]
    for name in ("stage-2", ""):
        assert not moved(tmp_path / "run" / name, done.parent / "run" / "stage-2")


def test_finished_stages_stay_as_they_are(copy, capsys):
    output = copy.parent / "run"
    before = weights(output)

    def refused(*overrides: str) -> str:
        assert main(["run", str(copy), "--resume", *overrides]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    error = refused("stages.1.max_steps=9")
    assert re.search(r"stage 2 is finished, .*train.max_steps=9 \(was 4\): change .*--overwrite", error)
    assert "freeze=" in refused("stages.1.train=[connector]", "stages.1.rates=")
    assert "stage-3 is finished, but the recipe has 2 stages" in refused(f"stages={STAGES[:2]}")
    (output / "stage-2" / "finished").unlink()
    assert "stage-3 began from" in (error := refused()) and "stage-2, which is not finished: delete stage-3" in error
    (output / "stage-2" / "finished").touch()
    assert main(["run", str(copy), "--resume", "train.save_steps=1", "stages.3.max_steps=2"]) == 0  # one more
    assert not (output / "stage-3" / "checkpoint-1").exists() and (output / "stage-4" / "checkpoint-1").exists()
    assert moved(output / "stage-3", output) == PARTS and not moved(output / "stage-4", output)
    after = weights(output / "stage-3")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_overwrite_deletes_all_stages(copy, capsys):
    output = copy.parent / "run"
    assert main(["run", str(copy), "--overwrite", f"model.init={output / 'stage-1'}", "model.preset="]) == 2
    assert "which --overwrite deletes" in capsys.readouterr().err and (output / "stage-3").is_dir()
    assert main(["run", str(copy), "--overwrite", "stages=[{max_steps: 1}]"]) == 0
    assert sorted(path.name for path in output.glob("stage-*")) == ["stage-1"]
    assert not moved(output / "stage-1", output)
    assert main(["run", str(copy), "--overwrite", "stages=[]", "train.max_steps=1"]) == 0
    assert not list(output.glob("stage-*")) and (output / "checkpoint-1").is_dir()
    assert main(["run", str(copy), "--resume"]) == 2 and "holds no run of stages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.1.rate=1", "unknown key 'stages.1.rate'; known are resolution, train, data"),
        ("stages.1.train=[decoder]", "stages.1.train.0 should be 'vision_vocabulary', 'clip'"),
        ("stages.1.train=[]", "stages.1.train: it names no part, so nothing is trained"),
        ("stages.0.train=clip", "stages.0.train: this model has no clip: take it out; it has vision_vocabulary, conn"),
        ("freeze=[vision_vocabulary]", "stages.1.train: vision_vocabulary is in freeze: take it out of one"),
        ("stages.1.rates={connector: 1e-3}", "stages.1.rates: connector is not trained here"),
        ("stages.1.rates={connector: -1}", "stages.1.rates.connector should be greater than or equal to 0"),
        ("stages.2.resolution=100", "stages.2.resolution: a resolution of 100 pixels: .*such as 96 or 128"),
        ("stages.2.data=[{path: nowhere}]", "nowhere"),
        ("stages.2.data=[{path: a, weight: 1}, {path: b}]", "stages.2: data.weight: give one to every source"),
        ("stages.2.max_length=8", "stages.2: .*over train.max_length=8"),
        ("stages.2.max_steps=0", "stages.2: train.max_steps"),
        ("freeze=[vision_vocabulary, connector, language_model]", "stages.0 trains nothing"),
        ("lora.rank=2", "stages: no stage begins from adapters"),
        ("features=x", "features are"),
        ("train.end_rate=0.1 train.schedule=linear", "train.end_rate is for the schedule cosine"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(override, message, ten, tmp_path, capsys):
    overrides = override.split(" ") if override.startswith("train.") else [override]
    if override.startswith("freeze=[vision_vocabulary, c"):
        overrides.append("stages.1.train=")
        overrides.append("stages.1.rates=")
    assert main(["run", str(write(tmp_path, ten)), *overrides]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_a_stage_does_not_name_is_the_recipes(ten, tmp_path):
    path = write(tmp_path, ten, freeze=["connector"])
    overrides = ["model.clip=true", "train.lr_overrides={clip: 1e-6}", "stages.0.epochs=2", "stages.0.resolution=0"]
    stages = stage_recipes(load_recipe(path, overrides))
    assert [each.freeze[:2] for each in stages] == [["connector"], ["clip", "connector"], ["connector"]]
    assert [each.model.resolution for each in stages] == [0, 96, 96]
    assert [(each.train.max_steps, each.train.epochs) for each in stages] == [(-1, 2), (4, 1), (3, 1)]
    assert [each.train.lr_overrides for each in stages] == [{"clip": 1e-6}, {"vision_vocabulary": 1e-2}, {"clip": 1e-6}]
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("data: [{path: mine, cap: 3}]\n")
    (source,) = stage_recipes(load_recipe(path, [f"stages.1.data={mixture}"]))[1].data
    assert (source.path, source.cap) == ("mine", 3)
    with pytest.raises(RecipeError, match="stages.0: data: name at least one folder"):
        load_recipe(path, ["data=[]"])


def test_the_rate_ends_at_its_share(ten, tmp_path):
    path = write(tmp_path, ten, stages=[])
    assert main(["run", str(path), "train.end_rate=0.25", "train.warmup=0", "train.learning_rate=1e-3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
    assert rates[0] == pytest.approx(1e-3) and 2.5e-4 < rates[-1] < rates[1] < rates[0]


def test_other_programs_know_of_stages(done, capsys):
    recipe, output = load_recipe(done), done.parent / "run"
    assert main(["memory", str(done), "--tokens", "200"]) in (0, 1)
    said = capsys.readouterr().out
    peaks = [float(peak) for peak in re.findall(r"^peak (\S+) GiB", said, re.MULTILINE)]
    assert len(peaks) == 3 and "stage 2 of 3: 96 pixels, trained: vision_vocabulary" in said
    assert "the most memory is that of stage" in said and "all stages together on the disk" in said
    assert main(["inspect", str(done), "--count", "1"]) == 0
    tokens = [int(count) for count in re.findall(r"; (\d+) tokens", capsys.readouterr().out)]
    assert [count - tokens[0] for count in tokens] == [0, 5, 5]
    assert [each.model.preset for each in shape_recipes(recipe)] == [recipe.model.preset] * 3
    later = replace(recipe, stages=[], model=replace(recipe.model, init=[str(output)]), output=str(output / "later"))
    later.data = [replace(recipe.data[0], path="elsewhere")]
    assert [source.path for source in with_replay(later).data] == ["elsewhere", recipe.data[0].path]
    assert _recipe_of(output).data == recipe.data


def test_a_frozen_decoder_is_checkpointed_for_the_encoder_before_it(done):
    """Else all its activations would be kept in the stage that trains the encoder alone."""
    recipe = shape_recipes(load_recipe(done))[1]
    saving = replace(recipe, train=replace(recipe.train, gradient_checkpointing=True))
    assert plan(saving, 1000).phases["forward: decoder"] < 0.8 * plan(recipe, 1000).phases["forward: decoder"]


def test_a_smoke_test_has_three_steps_of_each_stage(ten, tmp_path):
    stages = stage_recipes(smoke_test(load_recipe(write(tmp_path, ten)), str(ten), on_card=False))
    assert [(each.train.max_steps, each.model.resolution) for each in stages] == [(3, 0)] * 3
    assert "vision_vocabulary" not in stages[1].freeze and "connector" in stages[1].freeze
    assert stages[0].model.preset == "nano" and stages[2].model.init == [str(tmp_path / "run-smoke-test" / "stage-2")]
