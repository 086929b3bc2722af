"""A vision branch, a connector and an objective of one's own, as CONTRIBUTING.md describes them: nothing else knows
their names."""

import json
from dataclasses import dataclass

import pytest
import torch
from conftest import tiny_config, tiny_model, tiny_recipe
from safetensors.torch import load_file
from torch import nn
from transformers import PretrainedConfig

from train.loop import run
from train.objectives import OBJECTIVES, Objective, Settings
from train.recipe import RecipeError, load_recipe, to_yaml
from varytoy.inference.reader import Reader
from varytoy.models import connectors
from varytoy.models.config import ENCODER_CONFIGS, VaryConfig
from varytoy.models.vision import base


class StripesConfig(PretrainedConfig):
    model_type = "stripes"

    width: int = 24

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels a token, vertical and horizontal."""
        return 16, 8

    @property
    def output_size(self) -> int:
        return self.width


class Stripes(base.VisionEncoder):
    """One convolution."""

    config_class = StripesConfig

    def __init__(self, config: StripesConfig):
        super().__init__()
        self.width, self.stride = config.width, config.stride
        self.proj = nn.Conv2d(3, self.width, self.stride, self.stride)

    def forward(self, pixels, sizes=None):
        return self.proj(pixels).permute(0, 2, 3, 1)


class MeanConnector(connectors.Connector):
    """Four rows an image, whatever its size."""

    latents = 4

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        self.proj = nn.Linear(config.vocabulary_config.output_size, config.text_config.hidden_size)

    def forward(self, features, grids=None):
        return self.proj(features["vocabulary"].mean((1, 2))).repeat_interleave(self.latents, 0)


@pytest.fixture
def registered():
    base.register(Stripes)
    connectors.register("mean")(MeanConnector)
    yield
    del base.ENCODERS["stripes"], connectors.CONNECTORS["mean"]
    ENCODER_CONFIGS.remove(StripesConfig)


def test_they_are_built_saved_and_read_back(registered, processor, pictures, tmp_path):
    tree = tiny_config().to_dict() | {"vocabulary_config": {"model_type": "stripes"}, "clip_config": None}
    model = tiny_model(VaryConfig(**tree | {"connector": "mean"}))
    processor.image_processor.clip_size = 0
    processor.image_processor.latents = MeanConnector.latents
    inputs = processor(["Read.", "Read this."], pictures)
    assert (inputs["input_ids"] == model.config.image_token_id).sum(1).tolist() == [4, 4]
    with torch.inference_mode():
        said = model(**inputs).logits
    assert torch.isfinite(said).all()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = Reader.from_pretrained(str(tmp_path), "cpu")
    assert isinstance(again.model.vision_vocabulary, Stripes) and isinstance(again.model.connector, MeanConnector)
    with torch.inference_mode():
        assert torch.equal(again.model(**again.processor(["Read.", "Read this."], pictures)).logits, said)


@pytest.mark.parametrize(
    ("change", "known"), [("connector", "linear"), ("vocabulary_config", "vary_vision_vocabulary")]
)
def test_an_unknown_name_is_refused_with_the_known_ones(change, known):
    wrong = "nobody's" if change == "connector" else {"model_type": "nobody's"}
    with pytest.raises(ValueError, match=f"'nobody's'; known are .*{known}"):
        tiny_model(VaryConfig(**tiny_config().to_dict() | {change: wrong}))


@dataclass
class _Settings(Settings):
    power: int = 2


class Short(Objective):
    """Hidden states are to be small."""

    name, has_head, Settings = "short", True, _Settings

    def setup(self, model, frozen):
        return nn.Linear(model.config.text_config.hidden_size, 1)

    def targets(self, items, batch, processor):
        return {"short.wanted": torch.zeros(len(items))}

    def losses(self, model, head, state):
        found = head(state.hidden).mean((1, 2)) - state.targets["short.wanted"]
        return {"short": (found.abs() ** self.settings.power).mean()}


def test_an_objective_of_ones_own(ten, tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "short", Short)
    recipe = tiny_recipe(ten, tmp_path / "run", max_steps=3)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    run(load_recipe(tmp_path / "recipe.yaml", ["objectives.short={weight: 0.5, power: 1}"]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss_short"] > 0 and "heads.short.weight" in load_file(
        tmp_path / "run" / "training_heads.safetensors"
    )
    with pytest.raises(RecipeError, match="power"):
        load_recipe(tmp_path / "recipe.yaml", ["objectives.short={power: many}"])
