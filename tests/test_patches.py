"""Images of any shape as patches: against transformers' KOSMOS-2.5, and from training to reading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, FakeEngine, noise, tiny_config, tiny_model, tiny_recipe
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from transformers import Kosmos2_5Config, Kosmos2_5ImageProcessor, Kosmos2_5Model
from transformers.models.kosmos2_5.image_processing_pil_kosmos2_5 import Kosmos2_5ImageProcessorPil

from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.data.lengths import check_images
from train.features import write as write_features
from train.loop import run
from train.memory.inference import plan_reading
from train.objectives import GuidedAttention, Letters
from train.recipe import DataSettings, RecipeError
from train.stage_weights import load_stage
from varytoy.checkpoints.export import as_got
from varytoy.checkpoints.loading import ModelError
from varytoy.checkpoints.maps import WeightsError
from varytoy.data.answer import Answer, Region
from varytoy.devices.precision import DeviceError
from varytoy.inference.onnx_branches import run_in_onnx
from varytoy.inference.reader import Reader
from varytoy.models.config import PatchesConfig, VaryConfig
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.models.vision import PatchesBranch
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.patches import patch_grid
from varytoy.tasks import TASKS

BUDGET, SIDE = 48, 8
SHAPE = {"patch_size": SIDE, "max_patches": BUDGET, "hidden_size": 32, "num_layers": 2, "num_heads": 2}
SHAPE |= {"model_type": "vary_patches", "intermediate_size": 64}
RESAMPLER = {"connector": "resampler", "connector_options": {"latents": 6, "heads": 4}}


def patching(**changes) -> VaryConfig:
    tree = tiny_config().to_dict() | {"vocabulary_config": SHAPE, "clip_config": None}
    return VaryConfig(**tree | changes)


def pixels_of(**changes) -> VaryImageProcessor:
    shape = {"stride": (SIDE, SIDE), "max_patches": BUDGET, "standardize": True, "clip_size": 0}
    return VaryImageProcessor(mode="patches", **shape | changes)


@pytest.fixture(scope="module")
def kosmos() -> Kosmos2_5Model:
    torch.manual_seed(0)
    text = {"embed_dim": 48, "attention_heads": 4, "layers": 1, "ffn_dim": 8, "vocab_size": 9}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"head_dim": 16, "patch_embed_hidden_size": 3 * SIDE**2, "max_num_patches": BUDGET}
    config = Kosmos2_5Config(text_config=text, vision_config=vision, latent_query_num=6)
    model = Kosmos2_5Model(config).eval()
    for parameter in model.vision_model.parameters():  # so large that each part shows in the features
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


def images() -> list[Image.Image]:
    """Wide, high, square and a strip; two have to be enlarged."""
    return [noise(120, 40, 1), noise(33, 200, 2), noise(9, 9, 3), noise(400, 12, 4)]


def as_kosmos(processor=Kosmos2_5ImageProcessorPil, most: int = BUDGET, side: int = SIDE):
    return processor(max_patches=most, patch_size={"height": side, "width": side})


def sizes() -> list[tuple[int, int]]:
    rng = np.random.default_rng(0)
    drawn = np.exp(rng.uniform(0, 6, (40, 2))).astype(int)
    return [(1, 1), (1, 200), (200, 1), (64, 64), (100, 100), (170, 220), *map(tuple, drawn.tolist())]


@pytest.mark.parametrize("processor", [Kosmos2_5ImageProcessorPil, Kosmos2_5ImageProcessor])
def test_grid_and_pixels_are_those_of_kosmos(processor):
    """Patches, their rows and columns. transformers' two processors differ in the standard deviation: one divides by
    the number of values, as Pix2Struct did and we do, one by one less."""
    ours, theirs = pixels_of(), as_kosmos(processor)
    for number, size in enumerate(sizes()):
        image = noise(*size, number)
        found, plan = theirs([image], return_tensors="pt"), ours.plan(size, "text")
        rows, columns = plan.grid
        assert (int(found["rows"][0]), int(found["cols"][0])) == (rows, columns), size
        batch = ours([image])
        assert batch["image_sizes"].tolist() == [[rows * SIDE, columns * SIDE]]
        patches = found["flattened_patches"][0, : rows * columns]
        assert patches[:, 0].tolist() == [row + 1 for row in range(rows) for _ in range(columns)]
        pixels = patches[:, 2:].view(rows, columns, SIDE, SIDE, 3).permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2)
        values = 3 * size[0] * size[1]
        scale = (values / (values - 1)) ** 0.5 if processor is Kosmos2_5ImageProcessor else 1.0
        torch.testing.assert_close(batch["pixel_values"][0], pixels * scale, atol=5e-4, rtol=0)


@pytest.mark.parametrize("most", [1024, 2048, 4096])
def test_grids_of_pages(most):
    """At the sizes of KOSMOS-2.5 the grid fills the budget, keeps the shape, and is the same."""
    theirs = as_kosmos(most=most, side=16)
    for width, height in [(1700, 2200), (2480, 3508), (640, 480), (90, 1200), (1024, 1024)]:
        rows, columns = patch_grid((width, height), (16, 16), most)
        _, _, _, *expected = theirs.extract_flattened_patches(
            np.zeros((1, height, width), np.float32), most, theirs.patch_size
        )
        assert [rows, columns] == expected
        assert 0.75 * most < rows * columns <= most and rows / columns == pytest.approx(height / width, rel=0.2)


def test_a_blank_image_is_all_zeros():
    """Its standard deviation is 0; that of a nearly blank one is taken for larger than it is."""
    assert pixels_of()([Image.new("RGB", (50, 40), (200, 200, 200))])["pixel_values"].abs().max() < 0.1
    dot = Image.new("RGB", (1, 1), (100, 100, 101))
    theirs = as_kosmos()([dot], return_tensors="pt")["flattened_patches"]
    assert pixels_of()([dot])["pixel_values"].amax() == pytest.approx(float(theirs[0, 0, 2:].max()), abs=1e-3)


def test_each_image_is_standardised_in_the_other_modes_too():
    image = noise(64, 64).point(lambda value: value // 4)
    pixels = VaryImageProcessor(size=(64, 64), stride=(16, 16), clip_size=0, standardize=True)([image])["pixel_values"]
    assert abs(pixels.mean()) < 1e-4 and pixels.std() == pytest.approx(1.0, abs=1e-3)


def test_the_branch_computes_what_kosmos_does(kosmos, tmp_path):
    """With the same weights, taken as ``model.init`` takes them from a saved ``Kosmos2_5VisionModel``; a batch of
    images of four shapes."""
    kosmos.vision_model.save_pretrained(tmp_path)
    model = tiny_model(patching())
    loaded = load_stage(model, tmp_path)
    assert not loaded.misfits and len(loaded.taken) == len(kosmos.vision_model.state_dict())
    batch = pixels_of()(images())
    flat = as_kosmos()(images(), return_tensors="pt")["flattened_patches"]
    for rows, pixels, (high, wide) in zip(flat, batch["pixel_values"], batch["image_sizes"].tolist(), strict=True):
        cut = pixels[:, :high, :wide].unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE)).permute(1, 3, 2, 4, 0)
        rows[: high * wide // SIDE**2, 2:] = cut.flatten(2).flatten(0, 1)  # ours, which differ in the last digits
    with torch.inference_mode():
        theirs = kosmos.vision_model(flat).last_hidden_state
        ours = model.vision_vocabulary(batch["pixel_values"], batch["image_sizes"])
    for image, (height, width) in enumerate((batch["image_sizes"] // SIDE).tolist()):
        expected = theirs[image, : height * width].view(height, width, -1)
        torch.testing.assert_close(ours[image, :height, :width], expected, atol=1e-5, rtol=0)
        assert not ours[image, height:].any() and not ours[image, :, width:].any()
    assert theirs[0, 0].std() > 0.5  # so that the tolerance says something


def test_the_whole_chain_gives_the_rows_of_kosmos(kosmos):
    """From the file to the decoder's input, two images in a batch. They fill the budget: ours masks padding in the
    resampler, and KOSMOS-2.5 does not."""
    model = tiny_model(patching(**RESAMPLER))
    model.vision_vocabulary.load_state_dict(kosmos.vision_model.state_dict())
    model.connector.load_state_dict(kosmos.image_to_text_projection.state_dict())
    pair = [noise(75, 100, 1), noise(300, 100, 2)]
    batch, flat = pixels_of()(pair), as_kosmos()(pair, return_tensors="pt")
    assert bool(flat["attention_mask"].all()) and (batch["image_sizes"] // SIDE).tolist() == [[8, 6], [4, 12]]
    with torch.inference_mode():
        theirs = kosmos.get_image_features(flat["flattened_patches"]).pooler_output
        ours = model.connect(model.encode_images(**batch), batch["image_sizes"])
    torch.testing.assert_close(ours, theirs.flatten(0, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("connector", [{}, RESAMPLER])
def test_padding_changes_nothing_and_is_not_encoded(connector):
    model, processor = tiny_model(patching(**connector)), pixels_of()
    batch = processor(images())
    lengths = []
    layer = model.vision_vocabulary.encoder["layer"][0]
    layer.register_forward_hook(lambda _, inputs, output: lengths.append(output.shape[1]))
    for pixels, (height, width) in zip(batch["pixel_values"], batch["image_sizes"].tolist(), strict=True):
        pixels[:, height:], pixels[:, :, width:] = 1e4, -1e4
    with torch.inference_mode():
        together = model.connect(model.encode_images(**batch), batch["image_sizes"])
        alone = [processor([image]) for image in images()]
        rows = [model.connect(model.encode_images(**each), each["image_sizes"]) for each in alone]
    assert max(lengths) <= BUDGET < (batch["image_sizes"].amax(0) // SIDE).prod()
    torch.testing.assert_close(together, torch.cat(rows), atol=1e-4, rtol=1e-4)
    plans = [processor.plan(image.size, "text") for image in images()]
    assert len(together) == (4 * 6 if connector else sum(plan.tokens for plan in plans))


def test_where_a_patch_stands_counts():
    """The same patches in another order, and the last of a strip of as many patches as there are embeddings."""
    branch = tiny_model(patching()).vision_vocabulary
    pixels = torch.randn(1, 3, SIDE, BUDGET * SIDE)
    with torch.inference_mode():
        features, mirrored = branch(pixels), branch(pixels.unflatten(3, (-1, SIDE)).flip(3).flatten(3))
        assert not torch.allclose(features, mirrored.flip(2), atol=1e-2)
        with pytest.raises(ValueError, match="1 x 49 patches.* 48 in a row"):
            branch(torch.randn(1, 3, SIDE, (BUDGET + 1) * SIDE))


def test_the_published_shape():
    """513 M by hand: 18 layers of 4 x 1536 x 1536 for attention, 3 x 1536 x 3968 for the MLP and two norms; the
    projection of 768 values; two tables of 4,096; the last norm."""
    config = VaryConfig.preset("patches")
    assert isinstance(config.vocabulary_config, PatchesConfig)
    with torch.device("meta"):
        branch = PatchesBranch(config.vocabulary_config)
    layers = 18 * (4 * 1536 * 1536 + 3 * 1536 * 3968 + 2 * 1536)
    expected = layers + (768 + 1) * 1536 + 2 * 4096 * 1536 + 1536
    assert sum(each.numel() for each in branch.parameters()) == expected == 512_812_032


def checkpoint(folder: Path, processor, **changes) -> Path:
    """A saved model that takes patches, with its processor."""
    processor.image_processor = pixels_of(**changes)
    tiny_model(patching()).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_saved_model_reads_the_same(processor, pictures, tmp_path):
    again = Reader.from_pretrained(str(checkpoint(tmp_path, processor)), "cpu")
    loaded = again.processor.image_processor
    assert (loaded.mode, loaded.max_patches, loaded.standardize) == ("patches", BUDGET, True)
    inputs = processor(["Read.", "Read this."], pictures)
    grids = inputs["image_sizes"] // SIDE
    tokens = (inputs["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<imgpad>")).sum(1)
    assert tokens.tolist() == grids.prod(1).tolist() and grids[0, 1] > grids[0, 0] and grids[1, 0] > grids[1, 1]
    with torch.inference_mode():
        logits = tiny_model(patching())(**inputs).logits
        assert torch.equal(again.engine.model(**again.processor(["Read.", "Read this."], pictures)).logits, logits)


def test_a_page_is_read_whole_and_boxes_are_of_the_whole_image(processor):
    processor.image_processor = pixels_of()
    engine = FakeEngine(processor, lambda request: Answer("[100, 200, 500, 1000]", confidence=1.0))
    page = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(page).text((40, 40), "two lines\nof text", "black", font_size=30, spacing=60)
    assert Reader(engine).ground(page, "the cat").regions == [Region((64, 96, 320, 480), "the cat")]
    engine.requests.clear()
    Reader(engine).ocr(page)
    assert {image.size for image in engine.images} == {(640, 480)}  # some ask which way is up


def test_each_token_is_found_at_its_place():
    plan = pixels_of().plan((400, 100), "text")
    rows, columns = plan.grid
    assert (rows, columns, plan.tokens) == (3, 13, 39)
    for token in range(plan.tokens):
        row, column = divmod(token, columns)
        assert plan.token_at((column + 0.5) / columns, (row + 0.5) / rows) == token


def test_what_does_not_go_with_patches_is_one_sentence(processor, tmp_path):
    reader = Reader.from_pretrained(str(checkpoint(tmp_path / "model", processor)), "cpu")
    with pytest.raises(ValueError, match="whole pages in their own shape: leave the tiles out"):
        reader.ask(Image.new("RGB", (60, 40)), tiles=4)
    with pytest.raises(DeviceError, match="--runtime onnx does not run"):
        run_in_onnx(reader.engine.model)
    with pytest.raises(WeightsError, match="its vision branch is of the type vary_patches"):
        as_got(reader.engine.model)
    with pytest.raises(ValueError, match="pointer needs images of one shape"):
        patching(pointer=True)
    with pytest.raises(ValueError, match="3 heads .* do not divide hidden_size 32"):
        tiny_model(patching(vocabulary_config=SHAPE | {"num_heads": 3}))
    with pytest.raises(ModelError, match=r"image_processor.max_patches is 64, more than the model's 48"):
        Reader.from_pretrained(str(checkpoint(tmp_path / "other", processor, max_patches=64)), "cpu")


def preset(folder: Path, changes: dict, most: int = 80) -> str:
    """The tiny preset with patches in place of convolutions."""
    tree = json.loads(Path(TINY).read_text()) | changes
    tree["vocabulary_config"] = SHAPE | {"max_patches": most, "hidden_size": 96, "intermediate_size": 192}
    pixels = {"mode": "patches", "stride": [SIDE, SIDE], "max_patches": most, "standardize": True, "clip_size": 0}
    tree["processor"]["image_processor"] = pixels | changes.get("connector_options", {})
    tree["processor"]["image_processor"].pop("heads", None)
    tree["clip_config"] = None
    tree["processor"] |= {"places": 0}
    path = folder / "preset.json"
    path.write_text(json.dumps(tree))
    return str(path)


def test_lengths_and_groups_go_by_the_grid(ten, tmp_path, processor):
    data = SampleDataset([DataSettings(str(ten))], 0, BadSamples())
    processor.image_processor = pixels_of()
    plan = processor.image_processor.plan
    for sample, (rows, tokens) in zip(data.samples, data.shapes((SIDE, SIDE), plan), strict=True):
        (image,) = sample.open_images()
        grid = plan(image.size, "text").grid
        assert rows == grid.rows // 2 and grid.size < tokens < grid.size + 200
    processor.image_processor = pixels_of(max_patches=1024)
    check_images(data.samples, processor, 1400)
    with pytest.raises(RecipeError, match="train.max_length"):
        check_images(data.samples, processor, 900)


@pytest.mark.parametrize("connector", [{}, RESAMPLER])
def test_memory_is_planned(tmp_path, connector):
    found = plan_reading(preset(tmp_path, connector), pages=2, answer=20)
    model = VaryForConditionalGeneration(VaryConfig.preset(preset(tmp_path, connector)))
    weights = 2 * sum(each.numel() for each in model.parameters())
    assert weights < found.peak < 20 * weights


def test_objectives_about_places_are_trained(ten, tmp_path, monkeypatch):
    """The head for letters and guided attention, which ask the plan for rows, columns and tokens. Then with the branch
    frozen, but not from features, which need images of one size."""
    objectives = {
        "letters": Letters.Settings(weight=0.2, aligned=True),
        "guide": GuidedAttention.Settings(weight=0.2, layers=[1]),
    }
    recipe = tiny_recipe(ten, tmp_path / "run", objectives, max_steps=2)
    recipe.model.preset, grouped = preset(tmp_path, {}), []
    shapes = SampleDataset.shapes
    monkeypatch.setattr(SampleDataset, "shapes", lambda *given: grouped.append(given[2]) or shapes(*given))
    run(recipe)
    assert grouped[0] is not None  # samples are grouped by the shapes that the model gets
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(any(f"loss_{name}" in row for row in rows) for name in ("letters", "guide"))
    frozen = tiny_recipe(ten, tmp_path / "frozen", init=(str(tmp_path / "run"),), max_steps=2)
    frozen.model.preset, frozen.freeze = recipe.model.preset, ["vision_vocabulary"]
    run(frozen)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "frozen"))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"connector", "language_model"}
    frozen.features = str(tmp_path / "features")
    with pytest.raises(RecipeError, match="own sizes; features need images of one size"):
        write_features(frozen)


WORDS = {"amber": (160, 40), "birch": (40, 160), "cedar": (90, 90), "delta": (300, 24), "ember": (90, 90)}
"""What stands in images of four shapes; the last is not told from the third by its shape."""


def written(folder: Path, words: list[str]) -> list[Image.Image]:
    """A folder of samples of these ``WORDS``. Returns their images."""
    pages = []
    for word in words:
        width, height = WORDS[word]
        page = Image.new("RGB", (width, height), "white")
        letters = "\n".join(word) if height > 2 * width else word
        ImageDraw.Draw(page).multiline_text((6, 2), letters, "black", font=ImageFont.load_default(18))
        pages.append(page)
    (folder / "images").mkdir(parents=True)
    rows = []
    for page, word in zip(pages, words, strict=True):
        page.save(folder / "images" / f"{word}.png")
        turns = [{"role": "user", "content": f"<image>\n{TASKS['ocr'].prompts[0]}"}]
        turns.append({"role": "assistant", "content": word})
        rows.append({"id": word, "task": "ocr", "messages": turns, "images": [f"images/{word}.png"]})
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return pages


LATENTS = {"connector": "resampler", "connector_options": {"latents": 24, "heads": 4}}


@pytest.mark.parametrize(
    ("changes", "words", "steps", "rate"),
    [({}, list(WORDS), 60, 3e-3), (LATENTS, ["birch", "cedar", "ember"], 100, 2e-3)],
    ids=["linear", "resampler"],
)
def test_images_of_several_shapes_are_learned_by_heart_and_read(tmp_path, changes, words, steps, rate):
    """All in one batch; each is then read alone, through the reader."""
    pages = written(tmp_path / "data", words)
    recipe = tiny_recipe(
        tmp_path / "data", tmp_path / "run", learning_rate=rate, batch_size=5, max_steps=steps, warmup=10
    )
    recipe.model.preset = preset(tmp_path, changes)
    run(recipe)
    reader = Reader.from_pretrained(str(tmp_path / "run"), "cpu")
    assert [reader.ocr(page).text for page in pages] == words
