"""CLIP behind the vision vocabulary, as in DeepSeek-OCR: parity of both halves with transformers, padding, training."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, noise, tiny_config, tiny_model, tiny_recipe
from test_clip import open_clip_state
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import DeepseekOcr2SamVisionConfig
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2SamVisionEncoder

from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.writer import write_samples
from train.features import write
from train.loop import run
from train.memory.plan import plan
from train.recipe import Recipe
from train.run import Run
from varytoy.checkpoints import export_onnx
from varytoy.checkpoints.loading import ModelError
from varytoy.data.samples import read_samples
from varytoy.devices.precision import DeviceError
from varytoy.inference.engine import Request
from varytoy.inference.onnx_branches import run_in_onnx
from varytoy.inference.reader import Reader
from varytoy.models.config import SerialClipConfig, VaryConfig, VisionVocabularyConfig
from varytoy.models.vary import VaryForConditionalGeneration, count_parameters
from varytoy.models.vision import SerialClip, VisionVocabulary

SERIAL = {"model_type": "vary_serial_clip", "image_size": 32, "patch_size": 8, "layers": 2, "head_width": 16}
SQUARES = {"image_size": 64, "patch_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "window_size": 3}
SQUARES |= {"global_layers": [1], "neck_size": 16, "compressor_sizes": [24, 32]}
"""A vision vocabulary for squares: SAM with windows and a compressor."""


def serial(connector: str = "concatenation", squares: bool = False) -> VaryForConditionalGeneration:
    """The tiny model for images of any size, or for squares, with random weights of a size that matters."""
    config = tiny_config()
    tree = config.to_dict() | {"connector": connector, "clip_config": {**SERIAL, "width": 32}}
    tree |= {"vocabulary_config": SQUARES} if squares else {}
    tree |= {"connector_options": {"latents": 6, "heads": 4}} if connector == "resampler" else {}
    model = tiny_model(VaryConfig(**tree))
    with torch.no_grad():
        for parameter in (*model.clip.parameters(), *model.vision_vocabulary.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def reads(processor):
    """The tiny processor, without pixels for CLIP."""
    processor.image_processor.clip_size = 0
    return processor


def test_deep_encoder_has_the_published_size():
    """SAM-base with its compressor has 95,569,152 parameters, CLIP-L 303,179,776, of which the patch convolution
    (3 x 14 x 14 x 1024) and the last norm are not used; then one layer of 2,048 x 2,048, and Vary-toy's decoder."""
    clip = 303_179_776 - 3 * 14 * 14 * 1024 - 2 * 1024
    projection = 2048 * 2048 + 2048
    config = VaryConfig.preset("vary-toy-serial")
    assert count_parameters(config) == 95_569_152 + clip + projection + 1_836_517_376 == 2_238_858_496


@pytest.mark.parametrize("side", [64, 96, 160])  # grids of 8, the positions' own, of 12 and of 20
def test_sam_equals_that_of_transformers_deepseek_ocr2(side):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "image_size": 64, "patch_size": 8, "window_size": 3}
    theirs = DeepseekOcr2SamVisionEncoder(
        DeepseekOcr2SamVisionConfig(
            **sizes, num_hidden_layers=3, global_attn_indexes=[1], output_channels=16, downsample_channels=[24, 32]
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours = VisionVocabulary(VisionVocabularyConfig(**SQUARES | {"num_layers": 3})).eval()
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in {
            "patch_embed.projection": "patch_embed.proj",
            "layers.": "blocks.",
            "neck.conv1": "neck.0",
            "neck.layer_norm1": "neck.1",
            "neck.conv2": "neck.2",
            "neck.layer_norm2": "neck.3",
            "proj.conv1": "net_2",
            "proj.conv2": "net_3",
            "layer_norm": "norm",
        }.items():
            name = name.replace(old, new) if not name.startswith("blocks.") or old == "layer_norm" else name
        state[name] = value
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = theirs(pixels).last_hidden_state.permute(0, 2, 3, 1)
        torch.testing.assert_close(ours(pixels), expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def clips() -> tuple[SerialClip, CLIPVisionModel]:
    """Ours and transformers' ``CLIPVisionModel`` with the same weights, and positions for 4 x 4 tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    theirs = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=8, hidden_act="quick_gelu")).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    ours = SerialClip(SerialClipConfig(width=64, layers=3, head_width=16, image_size=32, patch_size=8)).eval()
    state = open_clip_state(theirs.state_dict())
    assert not ours.visual.load_state_dict(state, strict=False).missing_keys
    return ours, theirs


@pytest.mark.parametrize("grid", [(4, 4), (6, 3)])
def test_clip_equals_that_of_transformers(clips, grid):
    """Given the same patch embeddings. Positions of another grid are those of DeepSeek-OCR's code: bicubic with
    antialiasing, the class token's apart."""
    ours, theirs = clips
    theirs = getattr(theirs, "vision_model", theirs)
    features, table = torch.randn(2, *grid, 64), theirs.embeddings.position_embedding.weight.detach()
    places = table[1:].reshape(1, 4, 4, 64).permute(0, 3, 1, 2)
    places = F.interpolate(places, grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    with torch.no_grad():
        first = (theirs.embeddings.class_embedding + table[0]).expand(2, 1, 64)
        tokens = theirs.pre_layrnorm(torch.cat([first, features.flatten(1, 2) + places], 1))
        expected = theirs.encoder(inputs_embeds=tokens).last_hidden_state[:, 1:]
        found = ours(features)
    assert found.shape == features.shape
    torch.testing.assert_close(found.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("connector", ["concatenation", "linear", "resampler"])
def test_padding_does_not_change_the_result(reads, pictures, connector):
    model = serial(connector)
    reads.image_processor.latents = model.connector.latents_of(model.config)
    prompts = ["Read.", "Read."]
    for gradients in (False, True):  # PyTorch's attention has another way for each
        with torch.set_grad_enabled(gradients):
            together = reads(prompts, pictures)
            assert "clip_pixel_values" not in together and bool(
                (together["image_sizes"][0] != together["image_sizes"][1]).any()
            )
            sizes = together["image_sizes"]
            rows = model.connect(model.encode_images(together["pixel_values"], sizes), sizes)
            alone = []
            for picture in pictures:
                inputs = reads("Read.", picture)
                given = inputs["pixel_values"], inputs["image_sizes"]
                alone.append(model.connect(model.encode_images(*given), given[1]))
            torch.testing.assert_close(rows, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_both_halves_matter(reads, pictures):
    """Where CLIP is, and where its positions are, changes the rows."""
    model, inputs = serial(), reads("Read.", pictures[0])
    with torch.inference_mode():
        features = model.encode_images(inputs["pixel_values"], inputs["image_sizes"])
        rows = model.connect(features)
        assert not torch.allclose(model.connect(features | {"clip": features["clip"].flip(1)}), rows, atol=1e-3)
        assert not torch.allclose(
            model.connect(features | {"vocabulary": features["vocabulary"].flip(1)}), rows, atol=1e-3
        )
        turned = model.clip(features["vocabulary"].flip(2)).flip(2)
    assert not torch.allclose(turned, features["clip"], atol=1e-3)


def test_images_that_were_encoded_are_remembered_with_their_clip_features(reads, pictures):
    model = serial()
    inputs = reads(["a", "b", "c"], [pictures[0], pictures[0], pictures[1]])
    given, calls = (inputs["pixel_values"], inputs["image_sizes"]), []
    model.clip.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    one = reads("a", pictures[0])
    with torch.inference_mode():
        features = model.encode_images(*given)
        model.remember_images(2)
        first, second = (model.encode_images(one["pixel_values"], one["image_sizes"]) for _ in range(2))
    assert calls == [2, 1]  # equal neighbours once, and the second question not at all
    assert torch.equal(features["clip"][0], features["clip"][1]) and first["clip"] is second["clip"]


@pytest.mark.parametrize("squares", [False, True])
def test_a_saved_model_answers_the_same(reads, tmp_path, squares):
    model = serial(squares=squares)
    if squares:
        settings = {"mode": "squash", "size": (64, 64), "stride": (32, 32)}
        for name, value in settings.items():
            setattr(reads.image_processor, name, value)
    model.save_pretrained(tmp_path)
    reads.save_pretrained(tmp_path)
    reader = Reader.from_pretrained(str(tmp_path), "cpu")
    assert isinstance(reader.engine.model.clip, SerialClip)
    inputs = reads("Read.", noise(90, 60))
    with torch.inference_mode():
        assert torch.equal(reader.engine.model(**inputs).logits, model(**inputs).logits)
    reads.image_processor.clip_size = 32
    reads.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"clip_size is 32, .*takes no pixels"):
        Reader.from_pretrained(str(tmp_path), "cpu")
    with pytest.raises(ValueError, match="clip_size to 0"):
        model(**reads("Read.", noise(90, 60)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 64}, "clip_config.width is 64, .* has 32 channels"),
        ({"width": 32, "layers": [1, 1]}, "layers must be a number"),
        ({"width": 32, "model_type": "vary_clip"}, "concatenation is for .*'vary_serial_clip'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(changes, message):
    tree = tiny_config().to_dict() | {"connector": "concatenation", "clip_config": {**SERIAL, **changes}}
    with pytest.raises(ValueError, match=message):
        VaryForConditionalGeneration(VaryConfig(**tree))


def test_it_runs_in_onnxruntime(reads, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, pixels = serial(squares=True), torch.randn(3, 3, 64, 64)
    for name, value in {"mode": "squash", "size": (64, 64), "stride": (32, 32)}.items():
        setattr(reads.image_processor, name, value)
    model.save_pretrained(tmp_path / "model")
    reads.save_pretrained(tmp_path / "model")
    files = [file.name for file in export_onnx(tmp_path / "model", tmp_path / "onnx")]
    assert files == ["vision_vocabulary-64.onnx", "clip-64.onnx", "connector-64.onnx"]
    with torch.inference_mode():
        features = model.encode_images(pixels)
        rows = model.connect(features).unflatten(0, (3, -1))
    given: dict = {"pixel_values": pixels}
    for file, name in zip(files, ("vocabulary", "clip", "rows"), strict=True):
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / file)
        given = {each.name: given[each.name] for each in session.get_inputs()}
        (found,) = session.run(None, {each: value.numpy() for each, value in given.items()})
        wanted = rows if name == "rows" else features[name]
        torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-4, rtol=1e-4)
        given = dict(features)
    runs = VaryForConditionalGeneration.from_pretrained(tmp_path / "model").eval()
    run_in_onnx(runs)
    with torch.inference_mode():
        torch.testing.assert_close(runs.encode_images(pixels), features, atol=1e-4, rtol=1e-4)
    with pytest.raises(DeviceError, match="features of several sizes"):
        run_in_onnx(serial())


@pytest.fixture(scope="module")
def page(source, tmp_path_factory) -> Path:
    """One little page."""
    folder = tmp_path_factory.mktemp("page")
    options = BlockOptions((2, 2), (8, 12), (7.0, 8.0), formatted=False, blank=0.0, degrade=0.0)
    write_samples(folder, 1, BlockRenderer(source, 5, "train", options), workers=1)
    return folder


def recipe_of(page: Path, folder: Path, squares: bool = False, **settings) -> Recipe:
    """A run of ``tiny.json`` with a serial CLIP, on images in their own sizes or squares of 128 pixels."""
    tree = json.loads(Path(TINY).read_text())
    tree |= {"connector": "concatenation", "clip_config": {**SERIAL, "width": 96, "head_width": 48, "layers": 1}}
    tree["processor"]["image_processor"]["clip_size"] = 0
    if squares:
        tree["vocabulary_config"] |= {"image_size": 128}
        tree["processor"]["image_processor"] |= {"mode": "squash", "size": [128, 128]}
    preset = folder / "preset.json"
    preset.write_text(json.dumps(tree))
    recipe = tiny_recipe(page, folder / "run", settings.pop("objectives", None), clip=True, **settings)
    recipe.model.preset = str(preset)
    return recipe


def read_back(folder: Path, page: Path) -> tuple[str, str]:
    """What the run's model reads, and what is there."""
    (sample,) = read_samples(page)
    engine = Reader.from_pretrained(str(folder), "cpu").engine
    (answer,) = engine.generate([Request(sample.messages[:-1], sample.open_images(), max_new_tokens=64)])
    return answer.text, sample.answer


def test_a_page_is_learned_by_heart(page, tmp_path):
    """With gradients through CLIP into the vision vocabulary, from the file that the run wrote."""
    recipe = recipe_of(page, tmp_path, batch_size=1, max_steps=80, learning_rate=2e-3)
    run(recipe)
    said, there = read_back(tmp_path / "run", page)
    assert len(there) > 15 and said == there


def test_clip_is_trained_on_a_frozen_vision_vocabulary(page, tmp_path):
    """As in DeepSeek-OCR's second stage, with the objective that has a head on each branch."""
    recipe = recipe_of(page, tmp_path, batch_size=1, max_steps=2)
    recipe.freeze = ["vision_vocabulary"]
    before = Run(recipe).model.state_dict()
    run(recipe)
    after = VaryForConditionalGeneration.from_pretrained(tmp_path / "run").state_dict()
    torch.manual_seed(0)
    assert before.keys() >= after.keys()
    model = Run(recipe)
    assert "vision_vocabulary" in model.freeze() and not model.model.vision_vocabulary.training


def test_features_of_frozen_towers_replace_them(page, tmp_path):
    recipe = recipe_of(page, tmp_path, squares=True, batch_size=1, max_steps=3)
    run(recipe)
    second = recipe_of(page, tmp_path, squares=True, batch_size=1, max_steps=3)
    second.output, second.model.init, second.replay = str(tmp_path / "second"), [str(tmp_path / "run")], 0.0
    second.freeze, second.features = ["vision_vocabulary", "clip"], str(tmp_path / "features")
    assert write(second) == 1
    run(second)
    third = recipe_of(page, tmp_path, squares=True, batch_size=1, max_steps=3)
    third.output, third.model.init, third.replay = str(tmp_path / "third"), [str(tmp_path / "run")], 0.0
    third.freeze = second.freeze
    run(third)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("second", "third")]
    losses = [[json.loads(line)["loss"] for line in lines if "loss" in line] for lines in logs]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)  # features are kept in 16 bits
    assert plan(second, 256).peak > 0


def test_memory_is_counted(page, tmp_path):
    with_clip = recipe_of(page, tmp_path, batch_size=4)
    found = plan(with_clip, 256)
    with_clip.model.clip = False
    assert "forward: CLIP" in found.phases and found.peak > plan(with_clip, 256).peak
