"""Recipes: every one that is shipped loads, and every mistake is one sentence."""

import dataclasses
import itertools
import random
import re

import pytest
import yaml
from conftest import BASES, OVERLAID, RECIPES, ROOT

from train.experiments.study import RECIPES as STUDIES
from train.experiments.study import WAYS
from train.recipe import Recipe, RecipeError, load_recipe, to_yaml

SHIPPED = sorted([*BASES, *(ROOT / "train/experiments/recipes").glob("*.yaml")])
OVERLAYS = sorted((RECIPES / "overlays").glob("*.yaml"))
ZERO = RECIPES / "deepspeed"
FROZEN = ("stage: sft", "freeze: [vision_vocabulary, clip]")


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe of these lines below one source of data and gives its path."""

    def write(*lines: str):
        path = tmp_path / "recipe.yaml"
        path.write_text("\n".join(["data: [{path: data/blocks}]", *lines]), encoding="utf-8")
        return path

    return write


def refusal(path, *overrides: str, overlays=()) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, overlays)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def head(path) -> list[str]:
    """The comment that a file begins with."""
    return list(itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))


def test_recipes_are_shipped():
    assert BASES and {name for _, name in OVERLAID} == {path.stem for path in OVERLAYS}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipe_loads_and_begins_with_how_to_run_it(path):
    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe)
    assert recipe.data and recipe.output
    name = path.relative_to(ROOT)
    assert any(re.search(rf"train run {name}(?! --overlay)", line) for line in head(path))
    if path.parent.name.startswith("vary_"):
        assert any(line.startswith("#   hf download") for line in head(path))
        assert any(f"train memory {name} --overlay " in line for line in head(path))
        assert any(re.search(rf"train run {name} --overlay \S+ --smoke-test", line) for line in head(path))


@pytest.mark.parametrize(("path", "name"), OVERLAID, ids=lambda value: getattr(value, "stem", value))
def test_shipped_overlay_loads_and_says_what_it_costs(path, name):
    recipe = load_recipe(path, overlays=[name])
    assert recipe != load_recipe(path) and recipe.train.deepspeed != str(ZERO / "zero2.json")  # for one card
    comment = head(RECIPES / "overlays" / f"{name}.yaml")
    assert any(f"train run {path.relative_to(ROOT)} --overlay {name}" in line for line in comment)
    assert any("GiB and 0.8 GiB reserve" in line for line in comment)
    assert any(re.match(r"# Batch \d+", line) and "rate" in line for line in comment)


def test_the_two_stages_of_full_8bit_differ_in_the_rate_alone():
    one, two = (
        yaml.safe_load((RECIPES / "overlays" / f"{name}full-8bit.yaml").read_text()) for name in ("", "pretrain-")
    )
    assert one["train"].pop("learning_rate") != two["train"].pop("learning_rate") and one == two


def test_overlays_are_merged_one_over_another_and_below_overrides(recipe, tmp_path):
    path = recipe("model: {clip: false, preset: nano}", "train: {batch_size: 8, betas: [0.8, 0.9]}", "stage: sft")
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("train: {batch_size: 4, betas: [0.7, 0.8], seed: 3}\nmodel:\nfreeze: [clip]\n")
    second.write_text("data: [{path: a}, {path: b}]\ntrain: {batch_size: 2}\n")
    loaded = load_recipe(path, ["train.seed=5"], [first, second])
    assert (loaded.train.batch_size, loaded.train.betas, loaded.train.seed) == (2, [0.7, 0.8], 5)
    assert loaded.model.preset == "nano" and loaded.model.clip is False  # a section without anything changes nothing
    assert [source.path for source in loaded.data] == ["a", "b"] and loaded.freeze == ["clip"]
    assert load_recipe(path, overlays=[second, first]).train.batch_size == 4
    second.write_text("# nothing\n")
    assert load_recipe(path, overlays=[second]) == load_recipe(path)


def test_overlay_that_cannot_be_merged_is_one_sentence(recipe, tmp_path):
    there = ", ".join(path.stem for path in OVERLAYS)
    for name in ("lore", "", "x/y.yaml", "\0", "a" * 5000, str(tmp_path)):
        assert f"train/recipes/overlays has {there}; or name a YAML file" in refusal(recipe(), overlays=[name])
    mine = tmp_path / "mine.yaml"
    mine.write_text("- a list")
    assert f"{mine}: an overlay must be a mapping" in refusal(recipe(), overlays=[mine])
    mine.write_text("train: {batchsize: 4}")
    assert f"recipe.yaml --overlay {mine}: unknown key 'train.batchsize'" in refusal(recipe(), overlays=[mine])
    mine.write_text("train: 5")
    assert "train must be a mapping" in refusal(recipe("train: {seed: 1}"), overlays=[mine])
    no_recipe = tmp_path / "list.yaml"
    no_recipe.write_text("- a list")
    assert "the file must be a mapping" in refusal(no_recipe, overlays=["lora"])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_ways_of_the_study_load(way):
    load_recipe(STUDIES / way.recipe, way.overrides)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_recipe_written_into_the_run_says_the_same(path, tmp_path):
    recipe = load_recipe(path)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_overrides(recipe):
    path = recipe("train: {batch_size: 8, learning_rate: 1.0e-3}", "model: {clip: false}")
    loaded = load_recipe(
        path,
        [
            "train.batch_size=4",
            "train.learning_rate=2e-5",
            "data.0.share=0.5",
            "data.1.path=data/more",
            "model.clip=true",
            "freeze=[clip]",
            "output=runs/other",
            "model.init=",
            "train.betas=[0.9, 0.98]",
            "lora.alpha=1.5e1",
            "train.weight_decay='1e-2'",
            "model.decoder=",
        ],
    )
    assert loaded.train.batch_size == 4
    assert loaded.train.learning_rate == pytest.approx(2e-5)
    assert [(source.path, source.share) for source in loaded.data] == [("data/blocks", 0.5), ("data/more", 1.0)]
    assert loaded.model.clip is True
    assert loaded.model.init == []
    assert loaded.freeze == ["clip"]
    assert loaded.output == "runs/other"
    assert loaded.train.betas == [0.9, 0.98]
    assert (loaded.lora.alpha, loaded.train.weight_decay, loaded.model.decoder) == (15.0, 0.01, "")
    assert load_recipe(path, ["stage=sft", "freeze=clip", "output=1e5"]).freeze == ["clip"]
    assert load_recipe(path, ["freeze=[clip]", "freeze="]).freeze == []


def test_overrides_without_any_in_the_file(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    assert load_recipe(path, ["data.0.path=data/blocks"]).data[0].path == "data/blocks"


def test_unknown_key_names_the_file_and_the_known_ones(recipe):
    message = refusal(recipe("train: {batchsize: 4}"))
    assert "recipe.yaml: unknown key 'train.batchsize'; known are " in message and "batch_size" in message
    assert "unknown key 'trian'" in refusal(recipe(), "trian.batch_size=4")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=four", "train.batch_size .*integer.* 'four'"),
        ("train.batch_size=1.5", "train.batch_size .*integer.* 1.5"),
        ("train.batch_size=true", "train.batch_size .*integer.* True"),
        ("train.learning_rate=fast", "train.learning_rate .*number.* 'fast'"),
        ("train.learning_rate=true", "train.learning_rate .*number.* True"),
        ("model.clip=1", "model.clip .*boolean.* 1"),
        ("model.preset=[nano]", "model.preset .*string"),
        ("freeze=3", "freeze .*list"),
        ("train=5", "train must be a mapping"),
        ("data.0.tasks=[1]", "data.0.tasks.0 .*string"),
        ("data.0.pth=x", "'data.0.pth'.* path, share"),
        ("objectives.letters.frame=3", "'objectives.letters.frame'.* frames"),
        ("objectives.letters.frames=0", "objectives.letters.frames .* 1, not 0"),
        ("train.betas=[0.9]", "train.betas .*2 items"),
        ("train.betas=[0.9, 1]", "train.betas.1 .*less than 1"),
        ("train.seed=99999999999", "train.seed .*4294967295"),
        ("lora.dropout=1", "lora.dropout .*less than 1"),
    ],
)
def test_wrong_type(recipe, override, message):
    assert re.search(message, refusal(recipe(), override))


@pytest.mark.parametrize(
    "override",
    [
        "train.batch_size",
        "=4",
        "stage.deeper=4",
        "data.path=x",
        "data.7.path=x",
        "data.first.path=x",
        "model.preset={",
        "freeze.0=clip.",
        "output.0=x",
    ],
)
def test_override_that_cannot_be_applied_is_one_sentence(recipe, override):
    assert refusal(recipe("stage: vocabulary", "output: runs/x"), override)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["stage: training"], "stage should be 'vocabulary', 'pretrain' or 'sft', not 'training'"),
        (["train: {precision: int8}"], "train.precision should be 'fp32', 'bf16' or 'fp16', not 'int8'"),
        (["model: {decoder: gpt}"], "model.decoder should be '' or 'opt', not 'gpt'"),
        (["freeze: [vision]", "stage: sft"], "freeze.0 should be 'vision_vocabulary', 'clip'"),
        (["freeze: [vision_vocabulary]"], "the vocabulary stage trains the vision vocabulary: take it out of freeze"),
        (
            ["stage: sft", "freeze: [vision_vocabulary]", "objectives: {letters: {weight: 0.3}}"],
            "objectives.letters trains",
        ),
        (["train: {in_backward: true, accumulation: 4}"], "keeps no gradients to accumulate: set train.accumulation=1"),
        (["train: {in_backward: true}"], "set train.clip_norm=0"),
        (["train: {in_backward: true, clip_norm: 0, precision: fp16}"], "before a GradScaler could unscale"),
        (["train: {loss_scale: 128}"], "train.loss_scale is for train.in_backward"),
        (["train: {weights: fp16, precision: fp16}"], "a GradScaler refuses such weights: set train.precision=fp32"),
        (["train: {weights: bf16}"], "small steps would be lost: set train.optimizer=adamw_bnb_8bit"),
        (
            ["train: {deepspeed: nowhere.json}"],
            "train.deepspeed: no file 'nowhere.json'; train/recipes/deepspeed has zero2-",
        ),
        (["train: {weights: fp16, optimizer: adamw_bnb_8bit}"], "would be lost without a scale: set train.in_backward"),
        (["stage: sft", "lora: {quantize: nf4}"], "cannot be trained: set lora.rank"),
        (["stage: sft", "lora: {rank: 8}"], "write freeze: ['vision_vocabulary', 'clip']"),
        (["stage: sft", "lora: {rank: 8}", "freeze: [language_model]"], "take it out of freeze"),
        ([*FROZEN, "lora: {rank: 8}", "objectives: {guide: {weight: 1}}"], "lora does not go with objectives"),
        ([*FROZEN, "lora: {rank: 8}", "train: {weights: bf16}"], "set train.precision=bf16"),
        (["stage: sft", "features: x"], "features are of frozen towers"),
        ([*FROZEN, "features: x", "objectives: {objects: {weight: 1}}"], "which objects train"),
        ([*FROZEN, "features: x", "train: {predict_steps: 5}"], "has no towers with features: set it to 0"),
        (["train: {predict_steps: 5, deepspeed: zero2.json}"], "DeepSpeed may spread the model: set it to 0"),
        ([*FROZEN, "train: {lr_overrides: {clip: 1.0e-5}}"], "train.lr_overrides: clip is frozen"),
        (["train: {lr_overrides: {tower: 1.0e-5}}"], "train.lr_overrides.tower should be 'vision_vocabulary'"),
        (["train: {lr_overrides: 1.0e-5}"], "train.lr_overrides must be a mapping"),
        (["train: {batch_size: 0}"], "train.batch_size should be greater than 0, not 0"),
        (["train: {save_steps: -1}"], "train.save_steps should be greater than 0, not -1"),
        ([*FROZEN, "lora: {rank: 8, quantize: nf4}", f"train: {{deepspeed: {ZERO}/zero3.json}}"], "take zero2.json"),
        ([f"train: {{optimizer: adamw_bnb_8bit, deepspeed: {ZERO}/zero2-offload.json}}"], "its own 32-bit Adam"),
    ],
)
def test_settings_that_do_not_go_together(recipe, lines, message):
    assert message in refusal(recipe(*lines))


def test_recipe_without_data(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("stage: sft\n")
    assert "data: name at least one folder of samples" in refusal(path)


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 30)]
)
MERGES = "\n".join(["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)])
NO_RECIPES = {
    "unfinished": "stage: [",
    "list": "- a list",
    "words": "just words",
    "latin-1": "output: caf\xe9".encode("latin-1"),
    "zero byte": "output: a\0b",
    "tab": "train:\n\tepochs: 1",
    "digits": "train: {batch_size: " + "9" * 5000 + "}",
    "hexadecimal digits": "train: {batch_size: 0x" + "f" * 5000 + "}",
    "date": "output: 2024-13-45",
    "deep": "output: " + "[" * 3000,
    "deep and whole": "freeze: " + "[" * 50 + "]" * 50,
    "aliases": BOMB,
    "merges": MERGES,
    "a loop": "data: &a [*a]",
    "unhashable": "? [1, 2]\n: 3",
    "half an emoji": 'output: "\\ud83d"',
    "an object": "output: !!python/object/apply:os.getcwd []",
}


@pytest.mark.parametrize("text", NO_RECIPES.values(), ids=NO_RECIPES)
def test_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert "recipe.yaml" in refusal(path)


def test_a_folder_is_no_recipe(tmp_path):
    assert f"{tmp_path} is a folder" in refusal(tmp_path)


def test_any_mutation_of_a_recipe_is_taken_or_refused_in_one_sentence(recipe):
    """Bytes of the file and values of overrides, exchanged for odd ones; the seed makes it the same each time."""
    rng = random.Random(0)
    odd = [".nan", "-.inf", "-1", "0", "1e400", "9" * 5000, "0x" + "f" * 5000, "~", "true", "[]", "{}", "[[], {}]"]
    odd += [
        "{a: b}",
        "\t",
        "&a [*a]",
        "*a",
        "!!set {a}",
        "!!binary AA==",
        "2024-13-45",
        "²",
        "\0",
        '"\\ud83d"',
        "x" * 5000,
    ]
    odd += ["1:2", "? [x]", "[" * 500, "<<", "=", ".", "é"]
    keys = [
        "data.²",
        "data.0",
        "data.1",
        "data.-1",
        f"data.{'9' * 5000}",
        "train.betas.1",
        "train.lr_overrides.clip",
        "freeze.0",
    ]
    tree = dataclasses.asdict(Recipe())
    keys += [f"{part}.{key}" for part, keys in tree.items() if isinstance(keys, dict) for key in keys]
    keys += [*tree, "", ".", "train..x", "nothing", "data.0.path.deeper", "guide.layers.0"]
    text = "\n".join(SHIPPED[0].read_text(encoding="utf-8").splitlines()[3:])
    refused = 0
    for turn in range(200):
        overrides, changed = [], text
        if turn % 2:
            place = rng.randrange(len(text))
            changed = text[:place] + rng.choice(odd) + text[place + rng.randrange(4) :]
        else:
            overrides = [f"{rng.choice(keys)}={rng.choice(odd)}" for _ in range(rng.randrange(1, 3))]
        path = recipe()
        path.write_text(changed, encoding="utf-8")
        try:
            to_yaml(load_recipe(path, overrides))
        except RecipeError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 1500, (changed, overrides)
    assert 50 < refused < 200


def test_missing_recipe_says_where_they_are(tmp_path):
    assert "the recipes are in train/recipes" in refusal(tmp_path / "none.yaml")


def test_deepspeed_file_is_found_by_name_beside_the_recipe_or_the_overlay_and_among_ours(recipe, tmp_path):
    assert load_recipe(recipe("train: {deepspeed: zero3.json}")).train.deepspeed == str(ZERO / "zero3.json")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "over.yaml").write_text("train: {deepspeed: own.json}")
    (tmp_path / "own" / "own.json").write_text("{}")
    found = load_recipe(recipe(), overlays=[tmp_path / "own" / "over.yaml"]).train.deepspeed
    assert found == str(tmp_path / "own" / "own.json")
    (tmp_path / "zero.json").write_text("{}")
    assert load_recipe(recipe("train: {deepspeed: zero.json}")).train.deepspeed == str(tmp_path / "zero.json")
    (tmp_path / "zero.json").write_text("{")
    assert "zero.json has no DeepSpeed settings" in refusal(recipe("train: {deepspeed: zero.json}"))


def test_every_setting_has_a_default():
    assert dataclasses.asdict(Recipe())["train"]["batch_size"] > 0


def test_a_key_twice_and_an_alias_are_no_traps(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data: [&one {path: a}, *one]\n")
    assert [entry.path for entry in load_recipe(path, ["data.1.path=b"]).data] == ["a", "b"]
    path.write_text("data: [{path: a}]\ntrain: {batch_size: 3}\ntrain: {learning_rate: 1e-3}\n")
    with pytest.raises(RecipeError, match="train"):
        load_recipe(path)
