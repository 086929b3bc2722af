"""CLIP behind the vision vocabulary, as in DeepSeek-OCR: parity of both halves with transformers, padding, training."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, noise, tiny_config, tiny_model, tiny_recipe
from safetensors.torch import load_file
from test_clip import open_clip_state
from test_vocabulary import published_name
from torch.nn import functional as F
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.deepseek_ocr2.configuration_deepseek_ocr2 import DeepseekOcr2SamVisionConfig
from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2SamVisionEncoder

from train.features import write
from train.loop import run
from train.memory.budget import sizes_of
from train.memory.plan import plan
from train.objectives.objects import Objects
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


def sam_state(theirs: DeepseekOcr2SamVisionEncoder) -> dict[str, torch.Tensor]:
    """The weights of transformers' SAM tower under our names."""
    state = theirs.state_dict()
    return {published_name(name.replace("proj.conv", "conv_upsampler")): value for name, value in state.items()}


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
    ours.load_state_dict(sam_state(theirs))
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


@pytest.mark.slow
def test_the_exported_branches_compute_the_same(reads, tmp_path):
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


def test_a_reader_runs_them_in_onnxruntime():
    """At another resolution than that of the positions, for which it then is."""
    pytest.importorskip("onnxruntime")
    model, pixels = serial(squares=True), torch.randn(3, 3, 96, 96)
    with torch.inference_mode():
        features = model.encode_images(pixels)
        run_in_onnx(model, 96)
        torch.testing.assert_close(model.encode_images(pixels), features, atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="leave the resolution out"):
            model.encode_images(torch.randn(1, 3, 64, 64))
    with pytest.raises(DeviceError, match="features of several sizes"):
        run_in_onnx(serial())


def recipe_of(data: Path, folder: Path, squares: bool = False, objectives: dict | None = None, **settings) -> Recipe:
    """A run of ``tiny.json`` with a serial CLIP, on images in their own sizes or squares of 128 pixels."""
    tree = json.loads(Path(TINY).read_text())
    tree |= {"connector": "concatenation", "clip_config": {**SERIAL, "width": 96, "head_width": 48, "layers": 1}}
    tree["processor"]["image_processor"]["clip_size"] = 0
    if squares:
        tree["processor"]["image_processor"] |= {"mode": "squash", "size": [128, 128]}
    preset = folder / "preset.json"
    preset.write_text(json.dumps(tree))
    recipe = tiny_recipe(data, folder / "run", objectives, clip=True, batch_size=2, **settings)
    recipe.model.preset = str(preset)
    return recipe


def logged(folder: Path, name: str) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows if name in row]


def test_pages_are_learned_by_heart(two, tmp_path):
    """Two, of which the words before do not tell one from the other; read from the file that the run wrote."""
    run(recipe_of(two, tmp_path, max_steps=90, learning_rate=3e-3, warmup=10))
    samples = list(read_samples(two))
    engine = Reader.from_pretrained(str(tmp_path / "run"), "cpu").engine
    requests = [Request(sample.messages[:-1], sample.open_images(), max_new_tokens=64) for sample in samples]
    texts = [answer.text for answer in engine.generate(requests)]
    assert texts == [sample.answer for sample in samples] and texts[0] != texts[1]


def test_clip_is_trained_on_a_frozen_vision_vocabulary(two, tmp_path):
    """As in DeepSeek-OCR's second stage."""
    run(recipe_of(two, tmp_path, max_steps=1))
    second = recipe_of(two, tmp_path, max_steps=2)
    second.output, second.model.init, second.freeze = (
        str(tmp_path / "2"),
        [str(tmp_path / "run")],
        ["vision_vocabulary"],
    )
    run(second)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "2"))
    same = {name.split(".")[0] for name in after if torch.equal(before[name], after[name])}
    other = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert same == {"vision_vocabulary"} and {"clip", "connector", "language_model"} <= other


def test_adapters_are_trained_on_frozen_towers(two, tmp_path):
    run(recipe_of(two, tmp_path, max_steps=1))
    second = recipe_of(two, tmp_path, max_steps=2)
    second.output, second.model.init = str(tmp_path / "2"), [str(tmp_path / "run")]
    second.freeze, second.lora.rank = ["vision_vocabulary", "clip"], 4
    run(second)
    names = {name.removeprefix("base_model.model.") for name in load_file(tmp_path / "2" / "adapter_model.safetensors")}
    assert any(name.startswith("connector.") for name in names)
    assert not any(name.startswith(("clip.", "vision_vocabulary.")) for name in names)


def test_features_of_frozen_towers_replace_them(two, tmp_path):
    def second(name: str) -> Recipe:
        recipe = recipe_of(two, tmp_path, squares=True, max_steps=3)
        recipe.output, recipe.model.init = str(tmp_path / name), [str(tmp_path / "run")]
        recipe.freeze = ["vision_vocabulary", "clip"]
        return recipe

    run(recipe_of(two, tmp_path, squares=True, max_steps=3))
    run(second("towers"))
    kept = second("features")
    kept.features, kept.model.resolution = str(tmp_path / "kept"), 128
    assert write(kept) == 2
    run(kept)
    losses = logged(tmp_path / "features", "loss")
    assert losses == pytest.approx(logged(tmp_path / "towers", "loss"), rel=2e-3)  # features are kept in 16 bits
    assert sizes_of(kept, Run(kept).model).features == 2 * 8 * 16 * (96 + 96)


@pytest.mark.parametrize("frozen", [[], ["vision_vocabulary"]])
def test_objects_are_found_by_both_halves(tmp_path, frozen):
    """With the warm-up of the heads, which runs the branches without the decoder; a frozen half has no head."""
    noise(96, 64).save(tmp_path / "0.png")
    boxes = [{"label": "cat", "box": [200, 200, 700, 800]}]
    turns = [{"role": "user", "content": "<image>\nDetect all objects in this image."}]
    turns.append({"role": "assistant", "content": "cat: [200, 200, 700, 800];"})
    row = {"id": "0", "task": "detect", "images": ["0.png"], "messages": turns, "boxes": boxes}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    settings = {"objects": Objects.Settings(weight=0.5)}
    recipe = recipe_of(tmp_path, tmp_path, objectives=settings, max_steps=4, heads_warmup=2)
    recipe.freeze = frozen
    run(recipe)
    assert len(logged(tmp_path / "run", "loss_clip_objects")) >= 3
    assert bool(logged(tmp_path / "run", "loss_objects")) != bool(frozen)


def test_memory_is_counted(two, tmp_path):
    recipe = recipe_of(two, tmp_path)
    found = plan(recipe, 256)
    recipe.model.clip = False
    assert "forward: CLIP" in found.phases and found.peak > plan(recipe, 256).peak
