"""VaryConfig: the configuration of all models of the family. Presets are the JSON files in ``presets/``."""

import json
from importlib.resources import files
from math import isqrt, prod
from pathlib import Path

from transformers import AutoConfig, PretrainedConfig


class VisionVocabularyConfig(PretrainedConfig):
    """The branch that reads text. Defaults: SAM-base with Vary's compressor, 1024 px -> 256 tokens of width 1024.

    Args:
        image_size: side of the square image that learned positions are for; they are interpolated for other sizes.
        stem: ``"patch"`` (SAM's linear patches) or ``"conv"`` (``stem_stages``).
        stem_stages: for ``"conv"``: (width, vertical stride, horizontal stride, residual blocks) each.
        positions: ``"learned"`` (interpolated), ``"sincos"`` (fixed, any size) or ``"projected"``: sincos, and position
            codes that are added to the branch's output through a learned layer.
        window_size: side of a local attention window; layers in ``global_layers`` use global attention.
        neck_size: 0 leaves out neck and compressor; the output width is then ``hidden_size``.
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
        """Pixels per position of the attention grid, (vertical, horizontal)."""
        if self.stem == "patch":
            return self.patch_size, self.patch_size
        return prod(stage[1] for stage in self.stem_stages), prod(stage[2] for stage in self.stem_stages)

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels per output token, (vertical, horizontal)."""
        factor = 4 if self.neck_size else 1
        return self.grid_stride[0] * factor, self.grid_stride[1] * factor

    @property
    def image_tokens(self) -> int:
        """Tokens of an image of ``image_size``."""
        down, across = self.stride
        return (self.image_size // down) * (self.image_size // across)

    @property
    def output_size(self) -> int:
        return self.compressor_sizes[-1] if self.neck_size else self.hidden_size


class ClipConfig(PretrainedConfig):
    """The CLIP branch as open_clip builds it. Defaults: ViT-L/14 at 224 px.

    Args:
        patch_size: width and height of a feature token in pixels.
        layers: number of transformer layers; or the blocks of each stage of CLIP's ResNet, which learns from few
            images. It ends where a token is ``patch_size`` wide: three stages for 16, two for 8.
        width: channels of the features.
        select_layer: the layer whose output is used, counted from the end; a ResNet always uses the last stage.
    """

    model_type = "vary_clip"

    image_size: int = 224
    patch_size: int = 14
    width: int = 1024
    layers: int | list[int] = 24
    head_width: int = 64
    select_layer: int = -2


class SerialClipConfig(ClipConfig):
    """CLIP behind the vision vocabulary, whose features are its patch embeddings, as in DeepSeek-OCR (arXiv
    2510.18234). Defaults: the transformer of ViT-L/14, all layers.

    Args:
        image_size, patch_size: together the side of the grid that the positions are for; they are interpolated.
        width: channels, also those of the vision vocabulary's features.
        layers: a number.
    """

    model_type = "vary_serial_clip"

    select_layer: int = -1


class BackboneConfig(PretrainedConfig):
    """A backbone that a library builds by name.

    Args:
        name: the library's name of the model.
        image_size: side of the square image in pixels.
        patch_size: pixels per token.
        width: channels of a token.
    """

    name: str = ""
    image_size: int = 224
    patch_size: int = 32
    width: int = 768

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels per token, (vertical, horizontal)."""
        return self.patch_size, self.patch_size

    @property
    def image_tokens(self) -> int:
        """Tokens of an image of ``image_size``."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def output_size(self) -> int:
        return self.width


class TimmConfig(BackboneConfig):
    """A backbone of timm. Defaults: EfficientNet-lite0 (ImageNet), 7 x 7 tokens of 768.

    Args:
        name: timm's name of the model.
        stages: feature maps to use, by their number in timm's ``feature_info``; finer ones are folded onto the
            coarsest.
        patch_size: pixels per token of the coarsest map.
        width: channels of all maps together, after folding.
    """

    model_type = "vary_timm"

    name: str = "tf_efficientnet_lite0"
    stages: list | tuple = (3, 4)


class OpenClipConfig(BackboneConfig):
    """The image tower of one of open_clip's models. Defaults: ViT-B/32, 7 x 7 tokens of 768.

    Args:
        name: open_clip's name of the model. OpenAI's weights need the names that end in ``-quickgelu``.
        select_layer: the layer whose output is used, counted from the end; a tower of stages (a ResNet, a ConvNeXt)
            always uses the last stage.
    """

    model_type = "vary_open_clip"

    name: str = "ViT-B-32"
    select_layer: int = -2


class PatchesConfig(PretrainedConfig):
    """Patches of images of any shape, as in Pix2Struct and KOSMOS-2.5, whose vision model has this shape by default
    with ``max_patches`` 4096.

    Args:
        patch_size: side of a patch in pixels.
        max_patches: most patches of an image, and size of the tables of rows' and columns' embeddings.
        intermediate_size: width inside the gated MLP.
    """

    model_type = "vary_patches"

    patch_size: int = 16
    max_patches: int = 1024
    hidden_size: int = 1536
    num_layers: int = 18
    num_heads: int = 24
    intermediate_size: int = 3968

    @property
    def stride(self) -> tuple[int, int]:
        """Pixels per token, (vertical, horizontal)."""
        return self.patch_size, self.patch_size

    @property
    def image_size(self) -> int:
        """Side in pixels of the largest square image."""
        return isqrt(self.max_patches) * self.patch_size

    @property
    def image_tokens(self) -> int:
        """Tokens of the largest square image."""
        return isqrt(self.max_patches) ** 2

    @property
    def output_size(self) -> int:
        return self.hidden_size


ENCODER_CONFIGS: list[type[PretrainedConfig]] = [
    VisionVocabularyConfig,
    ClipConfig,
    SerialClipConfig,
    TimmConfig,
    OpenClipConfig,
    PatchesConfig,
]
"""Configurations of vision branches; ``varytoy.models.vision.base.register`` adds to them."""


class VaryConfig(PretrainedConfig):
    """Vision vocabulary, optional CLIP branch, any causal language model of transformers.

    Args:
        clip_config: None leaves the branch out (Vary-tiny, GOT-OCR2). With the ``model_type`` ``vary_serial_clip`` it
            gets the vision vocabulary's features in place of pixels (DeepSeek-OCR).
        connector: name of the connector (varytoy.models.connectors), and its ``connector_options`` if it has some.
        clip_projection_size: the number of the language model's input channels that the CLIP branch fills; the vision
            vocabulary fills the rest. 0 means half.
        image_token_id: the id of ``<imgpad>``, the placeholder of each image token.
        pointer: whether a pointer finds the boxes that the decoder writes (varytoy.models.pointer); for images of one
            size.
        letters: characters that a head on the vision vocabulary reads, to draft answers (varytoy.models.letters); none:
            no head.
        numbers: most values of a chart that a head estimates beside its table (varytoy.models.numbers; OneChart has
            256); 0: no head. Answers are then not drafted.
        embedding_scale: factor of the token embeddings (varytoy.models.embedding).
        shared: parts of the model (``"vision_vocabulary"``) that a folder does not hold, because they are those of the
            checkpoint in the folder above it.
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
    connector_options: dict | None = None
    clip_projection_size: int = 0
    image_token_id: int = 151859
    pointer: bool = False
    letters: str = ""
    numbers: int = 0
    embedding_scale: float = 1.0
    shared: list | tuple = ()
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.vocabulary_config = _built(self.vocabulary_config or {}, VisionVocabularyConfig)
        if self.clip_config is not None:
            self.clip_config = _built(self.clip_config, ClipConfig)
        if self.pointer and isinstance(self.vocabulary_config, PatchesConfig):
            raise ValueError("a pointer needs images of one shape, and vary_patches takes any: leave one of them out")
        if isinstance(self.numbers, bool) or self.numbers < 0:
            raise ValueError(f"numbers is {self.numbers}: give the most values of a chart, or 0 for no head")
        text = self.text_config if self.text_config is not None else {"model_type": "qwen2"}
        if isinstance(text, dict):
            text = AutoConfig.for_model(**{"model_type": "qwen2", **text})
        self.text_config = text
        super().__post_init__(**kwargs)

    @property
    def serial(self) -> bool:
        """Whether the CLIP branch gets the vision vocabulary's features in place of pixels."""
        return isinstance(self.clip_config, SerialClipConfig)

    @classmethod
    def preset(cls, name: str) -> "VaryConfig":
        """The named preset. Raises ValueError listing the available names."""
        return cls(**{key: value for key, value in read_preset(name).items() if key not in _NOT_OF_THE_CONFIGURATION})

    @staticmethod
    def presets() -> list[str]:
        folder = files("varytoy") / "models" / "presets"
        return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


_NOT_OF_THE_CONFIGURATION = ("processor", "generation")


def read_preset(name: str) -> dict:
    """The JSON of a preset, by name or by the path of a ``.json`` file; ``processor`` is for VaryProcessor,
    ``generation`` for transformers' GenerationConfig."""
    path = Path(name) if name.endswith(".json") else files("varytoy") / "models" / "presets" / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"no preset '{name}'; the presets are {', '.join(VaryConfig.presets())}")
    return json.loads(path.read_text())


def _built(value: dict | PretrainedConfig, default: type[PretrainedConfig]) -> PretrainedConfig:
    """A vision branch's configuration, in the class registered for its ``model_type``."""
    if not isinstance(value, dict):
        return value
    model_type = value.get("model_type", default.model_type)
    classes = {config_class.model_type: config_class for config_class in ENCODER_CONFIGS}
    if model_type not in classes:
        raise ValueError(f"no vision branch of the type '{model_type}'; known are {', '.join(sorted(classes))}")
    return classes[model_type](**value)
