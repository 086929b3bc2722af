"""The interface of the vision branches: pixels in, a grid of features out."""

from torch import Tensor, nn
from transformers import PretrainedConfig

from varytoy.models.config import ENCODER_CONFIGS

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
