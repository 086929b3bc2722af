"""The interface of the vision branches: pixels in, a grid of features out."""

from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig

from varytoy.models.config import ENCODER_CONFIGS, BackboneConfig

ENCODERS: dict[str, type["VisionEncoder"]] = {}
"""``model_type`` of a branch's configuration -> its class."""


class VisionEncoder(nn.Module):
    """Base class of the vision branches. A subclass sets its ``config_class`` and registers itself with ``@register``.

    Attributes:
        width: channels of a feature.
        stride: pixels per feature, (vertical, horizontal).
    """

    config_class: type[PretrainedConfig]
    config: PretrainedConfig
    width: int
    stride: tuple[int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features of an image of the configuration's ``image_size``."""
        side = self.config.image_size
        return side // self.stride[0], side // self.stride[1]

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Pixels [I, 3, H, W] -> features [I, h, w, width]; ``sizes`` [I, 2]: height and width in pixels of each image
        of a padded batch."""
        raise NotImplementedError

    def initialise(self, module: nn.Module) -> bool:
        """Initialise a module that transformers does not know. Returns whether the module is one of these."""
        return False


class Backbone(VisionEncoder):
    """Base class of the branches that a library builds by name. Batch norm keeps its statistics, in training too."""

    config: BackboneConfig

    def set_shape(self, width: int, patch_size: int, image_size: int | None) -> None:
        """Take the shape that the library's model has; ``image_size`` None: any.

        Raises:
            ValueError: the configuration has another one.
        """
        config = self.config
        if (width, patch_size) != (config.width, config.patch_size):
            raise ValueError(
                f"{config.name} gives width {width} and patch_size {patch_size} with these settings, not "
                f"{config.width} and {config.patch_size}"
            )
        if image_size not in (None, config.image_size):
            raise ValueError(f"{config.name} takes images of image_size {image_size}, not {config.image_size}")
        self.width, self.stride, self.side = width, (patch_size, patch_size), image_size

    def check_pixels(self, pixels: Tensor) -> None:
        """Raises ValueError for images [I, 3, H, W] of another size than the library's model has."""
        if self.side is not None and tuple(pixels.shape[-2:]) != (self.side, self.side):
            height, width = pixels.shape[-2:]
            raise ValueError(f"{self.config.name} takes images of {self.side} x {self.side}, not {width} x {height}")

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def initialise(self, module: Any) -> bool:
        if hasattr(module, "init_non_persistent_buffers"):  # timm's; no checkpoint holds them
            module.init_non_persistent_buffers()
        return False


def register(encoder: type[VisionEncoder]) -> type[VisionEncoder]:
    """Class decorator: configurations of its ``config_class`` build this branch."""
    ENCODERS[encoder.config_class.model_type] = encoder
    if encoder.config_class not in ENCODER_CONFIGS:
        ENCODER_CONFIGS.append(encoder.config_class)
    return encoder


def build_encoder(config: PretrainedConfig) -> VisionEncoder:
    """The branch of a configuration. Raises ValueError for an unregistered ``model_type``."""
    try:
        return ENCODERS[config.model_type](config)
    except KeyError:
        known = ", ".join(sorted(ENCODERS))
        raise ValueError(f"no vision branch of the type '{config.model_type}'; known are {known}") from None
