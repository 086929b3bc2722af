"""The resampler: a fixed number of rows for each image, whatever its size."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, tiny_config, tiny_model, tiny_recipe
from transformers import Kosmos2_5Config
from transformers.models.kosmos2_5.modeling_kosmos2_5 import Kosmos2_5ImageToTextProjection

from train.loop import run
from train.objectives.letters import Letters
from varytoy.data.samples import read_samples
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.models.config import VaryConfig
from varytoy.models.connectors import build_connector, image_tokens
from varytoy.tasks import metrics


def resampling(options: dict | None = None, **changes) -> VaryConfig:
    return tiny_config(connector="resampler", connector_options=options or {"latents": 6, "heads": 4}, **changes)


def test_it_computes_what_kosmos_does():
    """Against transformers' module with the same weights."""
    sizes = {"text_config": {"embed_dim": 48, "attention_heads": 4}, "vision_config": {"hidden_size": 32}}
    theirs = Kosmos2_5ImageToTextProjection(Kosmos2_5Config(**sizes, latent_query_num=6)).eval()
    config = resampling()
    config.clip_config, config.vocabulary_config.hidden_size = None, 32
    ours = build_connector(config).eval()
    assert not ours.load_state_dict(theirs.state_dict()).missing_keys
    features = torch.randn(2, 3, 5, 32)
    with torch.inference_mode():
        expected, _ = theirs(torch.nn.functional.normalize(features, dim=-1).flatten(1, 2))
        assert torch.allclose(ours({"vocabulary": features}), expected.flatten(0, 1), atol=1e-5)


@pytest.mark.parametrize("places", [False, True])
def test_padding_does_not_change_the_result(places):
    connector = build_connector(resampling({"latents": 6, "heads": 4, "places": places})).eval()
    clip, small = torch.randn(1, 4, 4, 64), torch.randn(1, 2, 3, 32)
    features = torch.full((2, 4, 5, 32), 1e4)  # what stands in the padding
    features[0, :2, :3], features[1] = small, torch.randn(4, 5, 32)
    with torch.inference_mode():
        alone = connector({"vocabulary": small, "clip": clip})
        grids = torch.tensor([[2, 3], [4, 5]])
        together = connector({"vocabulary": features, "clip": clip.expand(2, -1, -1, -1)}, grids)
        switched_off = connector({"vocabulary": small})
    assert alone.shape == (6, 48) and together.shape == (12, 48)
    assert torch.allclose(together[:6], alone, atol=1e-5)
    assert not torch.allclose(switched_off, alone, atol=1e-3)


def test_with_places_a_latent_begins_with_its_own_cell_of_the_image():
    """Six latents are cells in two rows of three, whatever the number of features; each of four heads sees a corner."""
    config = resampling({"latents": 6, "heads": 4, "places": True})
    config.clip_config = None
    connector = build_connector(config).eval()
    with torch.no_grad():
        connector.x_attn["k_proj"].weight.zero_()
        connector.x_attn["out_proj"].weight.copy_(torch.eye(48))
    features = torch.zeros(1, 6, 9, 32, requires_grad=True)
    for latent, head, place in ((0, 0, (0, 0)), (1, 1, (0, 5)), (3, 2, (5, 0)), (5, 3, (5, 8))):
        value = connector({"vocabulary": features})[latent, 12 * head : 12 * (head + 1)].sum()
        (seen,) = torch.autograd.grad(value, features)
        assert divmod(int(seen[0].abs().sum(-1).argmax()), 9) == place


def test_images_of_any_size_take_the_same_number_of_tokens(processor, pictures, tmp_path):
    model = tiny_model(resampling())
    assert image_tokens(model.config) == 6
    processor.image_processor.latents = 6
    inputs = processor(["Read.", "Read this."], pictures)
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [6, 6]
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = Reader.from_pretrained(str(tmp_path), "cpu").engine.model
    with torch.inference_mode():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 6}, "no latent of a resampler; there are heads, latents, normalize, places"),
        ({"latents": 0}, "whole numbers above 0"),
        ({"heads": 7}, "7 heads do not divide the width 48"),
    ],
)
def test_wrong_options_are_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(resampling(options))


@pytest.mark.slow
def test_ten_pages_are_read_through_it(ten, tmp_path):
    tree = json.loads(Path(TINY).read_text())
    tree |= {"connector": "resampler", "connector_options": {"latents": 48, "heads": 4}}
    tree["processor"]["image_processor"]["latents"] = 48
    preset = tmp_path / "preset.json"
    preset.write_text(json.dumps(tree))
    letters = {"letters": Letters.Settings(weight=0.2, aligned=True)}
    steps = {"max_steps": 420, "heads_warmup": 60, "warmup": 20}
    recipe = tiny_recipe(ten, tmp_path / "run", letters, learning_rate=2e-3, batch_size=10, **steps)
    recipe.model.preset = str(preset)
    run(recipe)
    samples = list(read_samples(ten))
    engine = Reader.from_pretrained(str(tmp_path / "run"), "cpu").engine
    requests = [Request(sample.messages[:-1], sample.open_images(), max_new_tokens=64) for sample in samples]
    texts, truths = [answer.text for answer in engine.generate(requests)], [sample.answer for sample in samples]
    assert metrics.character_error_rate(texts, truths) <= 0.05
    assert metrics.character_error_rate(texts, truths[1:] + truths[:1]) > 0.3
