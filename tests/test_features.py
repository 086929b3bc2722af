"""Features of frozen towers: the same losses without the towers, and a refusal where anything has changed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, losses, tiny_recipe
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from train.__main__ import main
from train.data.feature_cache import FeatureStore
from train.features import write
from train.loop import run
from train.recipe import LoraSettings, ModelSettings, Recipe, RecipeError, to_yaml
from varytoy.inference.reader import Reader


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> str:
    """The tiny model, with pictures of one size as in the published ones."""
    tree = json.loads(Path(TINY).read_text())
    tree["processor"]["image_processor"] |= {"mode": "squash", "size": [64, 128]}
    path = tmp_path_factory.mktemp("shape") / "squash.json"
    path.write_text(json.dumps(tree))
    return str(path)


@pytest.fixture
def data(ten, tmp_path) -> Path:
    return Path(shutil.copytree(ten, tmp_path / "data"))


@pytest.fixture
def base(shape, data, tmp_path) -> str:
    first = tiny_recipe(data, tmp_path / "base", clip=True, max_steps=1)
    first.model = ModelSettings(preset=shape)
    run(first)
    return str(tmp_path / "base")


def frozen(shape: str, data: Path, base: str, output: Path, features: Path | str = "", **train) -> Recipe:
    chosen = tiny_recipe(data, output, clip=True, **{"max_steps": 4, "schedule": "constant", **train})
    chosen.model = ModelSettings(preset=shape, init=[base])
    chosen.freeze = ["vision_vocabulary", "clip"]
    chosen.features = str(features)
    chosen.check()
    return chosen


def test_losses_are_the_same_and_the_result_is_a_whole_model(shape, data, base, tmp_path, capsys):
    plain = frozen(shape, data, base, tmp_path / "plain")
    cached = frozen(shape, data, base, tmp_path / "cached", tmp_path / "features")
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(cached))
    assert main(["features", str(path)]) == 0
    assert re.search(rf"\b10\b.*{re.escape(str(tmp_path / 'features'))}", capsys.readouterr().out)
    run(plain)
    run(cached)
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
    whole, after = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "cached"))
    assert whole.keys() == after.keys()
    assert all(torch.equal(whole[name], after[name]) for name in whole if name.startswith(("vision", "clip.")))
    Reader.from_pretrained(str(tmp_path / "cached")).ocr(Image.new("RGB", (40, 20), "white"), max_new_tokens=2)


def test_resume_and_adapters_go_with_features(shape, data, base, tmp_path):
    write(frozen(shape, data, base, tmp_path / "unused", tmp_path / "features"))
    whole = frozen(shape, data, base, tmp_path / "whole", tmp_path / "features")
    run(whole)
    run(frozen(shape, data, base, tmp_path / "broken", tmp_path / "features", max_steps=2, save_steps=2))
    run(frozen(shape, data, base, tmp_path / "broken", tmp_path / "features"), resume=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    adapted = frozen(shape, data, base, tmp_path / "adapted", tmp_path / "features")
    adapted.lora = LoraSettings(rank=4)
    run(adapted)
    Reader.from_pretrained(str(tmp_path / "adapted"))


def test_what_has_changed_is_refused(shape, data, base, tmp_path):
    folder = tmp_path / "features"
    recipe = frozen(shape, data, base, tmp_path / "run", folder)
    with pytest.raises(RecipeError, match=rf"{re.escape(str(folder))} (?!.*towers).*`python -m train features`"):
        run(recipe)
    assert write(recipe) == 10
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert write(recipe) == 10  # nothing to do
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    picture = next((data / "images").rglob("*.png"))
    with Image.open(picture) as image:
        image.load()
        ImageDraw.Draw(image).line((0, 0, 9, 9), "red")
        image.save(picture)
    with pytest.raises(RecipeError, match=rf"{re.escape(str(picture))}.*`python -m train features`"):
        run(recipe)
    write(recipe)
    store = FeatureStore(folder, json.loads((folder / "index.json").read_text())["towers"])
    assert len(store.shards) == 11  # the other ten were not computed again
    run(frozen(shape, data, base, tmp_path / "again", folder))
    other = tiny_recipe(data, tmp_path / "other", clip=True, max_steps=1, seed=5)
    other.model = ModelSettings(preset=shape)
    run(other)
    with pytest.raises(RecipeError, match=rf"{re.escape(str(folder))} .*\btowers\b"):
        run(frozen(shape, data, str(tmp_path / "other"), tmp_path / "third", folder))


@pytest.mark.parametrize("text", ["{", "[]", '{"towers": "x", "shards": {}}'])
def test_a_damaged_index_is_made_anew(shape, data, base, tmp_path, text):
    recipe = frozen(shape, data, base, tmp_path / "run", tmp_path / "features")
    assert write(recipe) == 10
    (tmp_path / "features" / "index.json").write_text(text)
    with pytest.raises(RecipeError, match=r"features/index\.json .*`python -m train features`"):
        run(recipe)
    assert write(recipe) == 10


def test_pictures_of_many_sizes_have_none(data, tmp_path):
    run(tiny_recipe(data, tmp_path / "base", clip=True, max_steps=1))
    with pytest.raises(RecipeError, match=r"^features: .*\bsizes\b"):
        write(frozen(TINY, data, str(tmp_path / "base"), tmp_path / "run", tmp_path / "features"))
