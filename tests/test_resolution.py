"""Squares of other sides than the model's own: DeepSeek-OCR's modes, in reading and in training."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import TINY, noise, tiny_model, tiny_recipe
from originals import got_transformers
from test_serial import sam_state
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import DeepseekOcr2SamVisionConfig
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2SamVisionEncoder

from train.loop import run
from train.memory.plan import plan
from train.model import processor_of
from train.recipe import ModelSettings, RecipeError
from varytoy.checkpoints import export_got
from varytoy.checkpoints.maps import WeightsError
from varytoy.cli import main
from varytoy.data.samples import read_samples
from varytoy.inference.across_pages import read_across
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.models.config import OpenClipConfig, VaryConfig, VisionVocabularyConfig
from varytoy.models.vision import OpenClipBranch, VisionVocabulary
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.tiling import Tiling

MODES = {512: 64, 640: 100, 1024: 256, 1280: 400}
"""DeepSeek-OCR's sides, and their tokens."""


@pytest.mark.parametrize("side", MODES)
def test_modes_have_deepseeks_tokens(side):
    images = VaryImageProcessor(clip_size=0)
    asked = images.plan((2480, 3508), "text", Tiling(side=side))
    assert asked.tokens == MODES[side] and asked.scaled == (side, side)
    if side == 1024:
        assert asked == images.plan((2480, 3508), "text")


@pytest.mark.parametrize("side", MODES)
def test_sam_takes_all_of_them(side):
    """Its grid of 64 x 64 positions, relative ones, and windows of 14, of which no grid is made: the same numbers as
    transformers' DeepSeek-OCR2, whose tower has this shape."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1, "global_attn_indexes": [1]}
    theirs = DeepseekOcr2SamVisionEncoder(
        DeepseekOcr2SamVisionConfig(**sizes, output_channels=4, downsample_channels=[4, 6])
    ).eval()
    ours = VisionVocabulary(
        VisionVocabularyConfig(
            hidden_size=8, num_layers=2, num_heads=1, global_layers=[1], neck_size=4, compressor_sizes=[4, 6]
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        ours.load_state_dict(sam_state(theirs))
        pixels = torch.randn(1, 3, side, side)
        expected = theirs(pixels).last_hidden_state.permute(0, 2, 3, 1)
        found = ours(pixels)
    assert found.shape == (1, side // 64, side // 64, 6)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """A saved model with SAM's parts, for squares of 64 pixels, and a CLIP branch of its own pixels."""
    folder = tmp_path_factory.mktemp("squares")
    config = VaryConfig.preset(TINY)
    vision = {"image_size": 64, "patch_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "window_size": 3}
    vision |= {"global_layers": [1], "neck_size": 16, "compressor_sizes": [24, 32]}
    config = VaryConfig(**config.to_dict() | {"vocabulary_config": vision})
    tiny_model(config).save_pretrained(folder)
    processor = processor_of(ModelSettings(preset=TINY))
    images = {"mode": "squash", "size": (64, 64), "stride": (32, 32), "clip_size": 32}
    for name, value in images.items():
        setattr(processor.image_processor, name, value)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reader(squares) -> Reader:
    return Reader.from_pretrained(str(squares), "cpu")


def test_a_page_is_read_at_the_side_that_is_asked_for(reader):
    page = noise(150, 90)

    def tokens(task: str = "ocr", **options) -> int:
        return reader.ask(page, task, max_new_tokens=2, **options).prompt_tokens

    whole = tokens()
    assert tokens(resolution=64) == whole
    assert [tokens(resolution=side) - whole for side in (32, 96, 160)] == [1 - 4, 9 - 4, 25 - 4]
    assert tokens("vqa", argument="What?", resolution=96) - tokens("vqa", argument="What?") == 9 - 4
    words = tokens(tiles=3) - 3 * 4  # two tiles and the page
    assert tokens(tiles=3, resolution=96) == words + 3 * 9
    assert read_across(reader, [page, page], max_new_tokens=2, resolution=96).prompt_tokens > 2 * 9
    turns = [{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": "This."}]
    longer = tokens("vqa", argument="And?", history=turns, resolution=96)
    assert longer - tokens("vqa", argument="And?", history=turns) == 9 - 4


def test_what_is_seen_is_the_page_at_that_side(reader):
    """Pages at several sides are asked at once, as by several callers, and give what each gives alone."""
    page, shared = noise(150, 90), reader.shared()
    try:
        sides = (0, 32, 96)
        alone = [reader.ask(page, max_new_tokens=8, resolution=side) for side in sides]
        with ThreadPoolExecutor(3) as callers:
            together = list(callers.map(lambda side: shared.ask(page, max_new_tokens=8, resolution=side), sides))
    finally:
        shared.close()
    assert [each.text for each in together] == [each.text for each in alone]
    images = reader.processor.image_processor
    small = images([page], [images.plan(page.size, "text", Tiling(side=96))])
    wanted = VaryImageProcessor(size=(96, 96), stride=(32, 32), clip_size=32, mean=images.mean, std=images.std)
    assert torch.equal(small["pixel_values"], wanted([page])["pixel_values"])


@pytest.mark.parametrize("side", [100, 33, 8192])
def test_a_side_that_is_not_made_of_tokens_is_refused(reader, side):
    with pytest.raises(ValueError, match=rf"a resolution of {side} pixels: it must be a multiple of 32, at most 4096"):
        reader.ask(noise(60, 40), resolution=side)


def test_on_the_command_line(squares, tmp_path, capsys):
    noise(150, 90).save(tmp_path / "page.png")
    asked = ["read", str(tmp_path / "page.png"), "--task", "ocr", "--max-new-tokens", "2", "--resolution", "96"]
    assert main([*asked, "--model", str(squares), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "error" not in said
    assert main(asked) == 2 and "line by line: leave the resolution out" in capsys.readouterr().err


def test_a_backbone_of_one_size_says_so():
    branch = OpenClipBranch(OpenClipConfig())
    with pytest.raises(ValueError, match="ViT-B-32 takes images of 224 x 224, not 256 x 256"):
        branch(torch.zeros(1, 3, 256, 256))


def recipe_of(data: Path, folder: Path, **settings):
    tree = json.loads(Path(TINY).read_text())
    tree["processor"]["image_processor"] |= {"mode": "squash", "size": [64, 64], "clip_size": 0}
    preset = folder / "preset.json"
    preset.write_text(json.dumps(tree))
    recipe = tiny_recipe(data, folder / "run", batch_size=2, **settings)
    recipe.model.preset = str(preset)
    return recipe


def test_pages_are_learned_by_heart_at_another_side(two, tmp_path):
    """The finished model reads at the side it was trained at, and at another one without an error."""
    recipe = recipe_of(two, tmp_path, max_steps=90, learning_rate=3e-3, warmup=10)
    recipe.model.resolution = 128
    run(recipe)
    samples = list(read_samples(two))
    reader = Reader.from_pretrained(str(tmp_path / "run"), "cpu")
    assert reader.processor.image_processor.size == (128, 128)
    requests = [Request(sample.messages[:-1], sample.open_images(), max_new_tokens=64) for sample in samples]
    answers = reader.engine.generate(requests)
    texts = [answer.text for answer in answers]
    assert texts == [sample.answer for sample in samples] and texts[0] != texts[1]
    page = samples[0].open_images()[0]
    own, small = (reader.ask(page, resolution=side, max_new_tokens=4) for side in (0, 64))
    assert own.prompt_tokens - small.prompt_tokens == 8 * 16 - 4 * 8


def test_a_recipe_with_a_side_that_the_model_does_not_take(tmp_path):
    with pytest.raises(RecipeError, match="model.resolution: this model keeps the shape .* leave the resolution out"):
        processor_of(ModelSettings(preset=TINY, resolution=64))
    recipe = recipe_of(tmp_path, tmp_path)
    with pytest.raises(RecipeError, match="model.resolution: a resolution of 72 pixels: .* multiple of 8 and 16"):
        recipe.model.resolution = 72
        processor_of(recipe.model)


def test_memory_is_counted_at_that_side(two, tmp_path):
    recipe = recipe_of(two, tmp_path)
    small = plan(recipe, 300)
    recipe.model.resolution = 128
    large = plan(recipe, 300)
    assert large.phases["forward: vision vocabulary"] > small.phases["forward: vision vocabulary"]
    with pytest.raises(RecipeError, match="1 images have 128 tokens"):
        plan(recipe, 100)


def test_another_side_than_the_positions_is_no_got(tmp_path):
    """Transformers' class does not interpolate them."""
    got_transformers(tmp_path / "got")
    assert main(["convert", str(tmp_path / "got"), str(tmp_path / "ours")]) == 0
    file = tmp_path / "ours" / "processor_config.json"
    settings = json.loads(file.read_text())
    side = settings["image_processor"]["size"][0] // 2
    settings["image_processor"]["size"] = [side, side]
    file.write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=f"reads images of {side} pixels"):
        export_got(tmp_path / "ours", tmp_path / "again")
