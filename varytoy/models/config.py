"""VaryConfig: one configuration for the whole family. Presets are the JSON files in ``presets/``."""

import json
from importlib.resources import files
from math import prod
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig


class VisionVocabularyConfig(PretrainedConfig):
    """The reading branch. The defaults are SAM-base with Vary's compressor: 1024 px -> 256 tokens of 1024.

    Args:
        image_size: the square side that learned positions are made for; others are interpolated.
        stem: ``"patch"`` (SAM's linear patches) or ``"conv"`` (``stem_stages``).
        stem_stages: for ``"conv"``: (width, vertical stride, horizontal stride, residual blocks) each.
        positions: ``"learned"`` (interpolated), ``"sincos"`` (fixed, any size) or ``"projected"``: these, and codes of
            the place, through a learned layer, added to what leaves the branch.
        window_size: side of a local attention window; layers in ``global_layers`` see everything.
        neck_size: 0 leaves out neck and compressor: the tokens then have ``hidden_size``.
    """

    model_type = "vary_vision_vocabulary"

    image_size: int = 1024
    stem: str = "patch"
    patch_size: int = 16
    stem_stages: list | tuple = ()
    positions: str = "learned"
    relative_positions: bool = True
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    window_size: int = 14
    global_layers: list | tuple = (2, 5, 8, 11)
    neck_size: int = 256
    compressor_sizes: list | tuple = (512, 1024)

    @property
    def grid_stride(self) -> tuple[int, int]:
        """Pixels a position of the attention grid, vertical and horizontal."""
        if self.stem == "patch":
            return self.patch_size, self.patch_size
        return prod(stage[1] for stage in self.stem_stages), prod(stage[2] for stage in self.stem_stages)

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels a token that leaves the branch, vertical and horizontal."""
        factor = 4 if self.neck_size else 1
        return self.grid_stride[0] * factor, self.grid_stride[1] * factor

    @property
    def image_tokens(self) -> int:
        """Of a picture of ``image_size``."""
        down, across = self.stride
        return (self.image_size // down) * (self.image_size // across)

    @property
    def output_size(self) -> int:
        return self.compressor_sizes[-1] if self.neck_size else self.hidden_size


class ClipConfig(PretrainedConfig):
    """The CLIP branch as open_clip builds it. The defaults are ViT-L/14 at 224 px.

    Args:
        patch_size: pixels a token of the features is wide and high.
        layers: of the transformer; or the blocks of each stage of CLIP's residual network, which learns from few
            pictures. It is cut off where a token is ``patch_size`` wide: three stages for 16, two for 8.
        width: channels of the features.
        select_layer: whose output is taken, counted from the end; of a residual network always the last.
    """

    model_type = "vary_clip"

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    layers: int | list[int] = 24
    head_width: int = 64
    select_layer: int = -2


ENCODER_CONFIGS: list[type[PretrainedConfig]] = [VisionVocabularyConfig, ClipConfig]
"""Configurations of vision branches; ``varytoy.models.vision.base.register`` adds to them."""


class VaryConfig(PretrainedConfig):
    """Vision vocabulary, optional CLIP branch, any causal language model of transformers.

    Args:
        clip_config: None leaves the branch out (Vary-tiny, GOT-OCR2).
        connector: name of the connector (varytoy.models.connectors).
        clip_projection_size: how many of the language model's input channels the CLIP branch fills; the vision
            vocabulary fills the rest. 0 means half.
        image_token_id: the id of ``<imgpad>``, one for each image token.
    """

    model_type = "vary"
    sub_configs = {
        "vocabulary_config": VisionVocabularyConfig,
        "clip_config": ClipConfig,
        "text_config": AutoConfig,
    }

    vocabulary_config: dict | PretrainedConfig | None = None
    clip_config: dict | PretrainedConfig | None = None
    text_config: dict | PretrainedConfig | None = None
    connector: str = "linear"
    clip_projection_size: int = 0
    image_token_id: int = 151859
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.vocabulary_config = _built(self.vocabulary_config or {}, VisionVocabularyConfig)
        if self.clip_config is not None:
            self.clip_config = _built(self.clip_config, ClipConfig)
        text = self.text_config if self.text_config is not None else {"model_type": "qwen2"}
        if isinstance(text, dict):
            text = AutoConfig.for_model(**{"model_type": "qwen2", **text})
        self.text_config = text
        super().__post_init__(**kwargs)

    @classmethod
    def preset(cls, name: str) -> "VaryConfig":
        """The named preset. Raises ValueError with the names there are."""
        return cls(**{key: value for key, value in read_preset(name).items() if key != "processor"})

    @staticmethod
    def presets() -> list[str]:
        folder = files("varytoy") / "models" / "presets"
        return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_preset(name: str) -> dict:
    """The JSON of a preset, by name or by the path of a ``.json`` file; ``processor`` is for VaryProcessor."""
    path = Path(name) if name.endswith(".json") else files("varytoy") / "models" / "presets" / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"no preset '{name}'; the presets are {', '.join(VaryConfig.presets())}")
    return json.loads(path.read_text())


def _built(value: dict | PretrainedConfig, usual: type[PretrainedConfig]) -> PretrainedConfig:
    """A vision branch's configuration, of the class that its ``model_type`` was registered with."""
    if not isinstance(value, dict):
        return value
    named = value.get("model_type", usual.model_type)
    kinds = {kind.model_type: kind for kind in ENCODER_CONFIGS}
    if named not in kinds:
        raise ValueError(f"no vision branch of the type '{named}'; known are {', '.join(sorted(kinds))}")
    return kinds[named](**value)
