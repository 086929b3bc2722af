"""A vision branch and a connector of one's own, as CONTRIBUTING.md describes them: nothing else knows their names."""

import pytest
import torch
from conftest import tiny_config, tiny_model
from torch import nn
from transformers import PretrainedConfig

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
