"""TimmBranch: a pretrained convolutional or transformer backbone of timm, by name."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.models.config import TimmConfig
from varytoy.models.vision.base import VisionEncoder, register


@register
class TimmBranch(VisionEncoder):
    """Pixels [I, 3, S, S] -> features [I, h, w, width], h = w = S / patch_size.

    Feature maps of several stages become one: each finer map is folded onto the coarsest one (space to depth), and the
    channels are concatenated in the order of the stages. Batch norm keeps its statistics, in training too.

    Raises:
        ValueError: timm has no such model, or ``width`` or ``patch_size`` is not what its stages give.
    """

    config_class = TimmConfig

    def __init__(self, config: TimmConfig):
        super().__init__()
        import timm

        if not timm.is_model(config.name):
            raise ValueError(f"timm has no model '{config.name}'; timm.list_models() lists those it has")
        self.config = config
        visual: Any = timm.create_model(config.name, features_only=True, out_indices=tuple(config.stages))
        self.visual = visual
        strides, channels = visual.feature_info.reduction(), visual.feature_info.channels()
        self.folds = [max(strides) // stride for stride in strides]
        width = sum(count * fold**2 for count, fold in zip(channels, self.folds, strict=True))
        if (width, max(strides)) != (config.width, config.patch_size):
            raise ValueError(
                f"stages {list(config.stages)} of {config.name} give width {width} and patch_size {max(strides)}, not "
                f"{config.width} and {config.patch_size}"
            )
        self.width, self.stride = width, (max(strides), max(strides))

    def train(self, mode: bool = True) -> "TimmBranch":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        maps = self.visual(pixels.contiguous(memory_format=torch.channels_last))
        folded = [F.pixel_unshuffle(each, fold) for each, fold in zip(maps, self.folds, strict=True)]
        return torch.cat(folded, 1).permute(0, 2, 3, 1)
