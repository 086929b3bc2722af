"""TimmBranch: a pretrained convolutional or transformer backbone of timm, by name."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from varytoy.models.config import TimmConfig
from varytoy.models.vision.base import Backbone, register


@register
class TimmBranch(Backbone):
    """Pixels [I, 3, S, S] -> features [I, h, w, width], h = w = S / patch_size.

    Feature maps of several stages become one: each finer map is folded onto the coarsest one (space to depth), and the
    channels are concatenated in the order of the stages. Batch norm keeps its statistics, in training too.

    Raises:
        ValueError: timm has no such model or stages, or ``width``, ``patch_size`` or ``image_size`` is not theirs.
    """

    config_class = TimmConfig

    def __init__(self, config: TimmConfig):
        super().__init__()
        import timm

        if not timm.is_model(config.name):
            raise ValueError(f"timm has no model '{config.name}'; timm.list_models() lists those it has")
        self.config = config
        stages = tuple(config.stages)
        try:
            visual: Any = timm.create_model(config.name, features_only=True, out_indices=stages)
        except (
            AssertionError,
            IndexError,
            RuntimeError,
        ) as error:  # stages or a tag that it lacks, or no stages at all
            raise ValueError(f"timm cannot build {config.name} with the stages {list(stages)}: {error}") from error
        self.visual = visual
        strides, channels = visual.feature_info.reduction(), visual.feature_info.channels()
        self.folds = [max(strides) // stride for stride in strides]
        width = sum(count * fold**2 for count, fold in zip(channels, self.folds, strict=True))
        fixed = visual.pretrained_cfg.get("fixed_input_size")
        self.set_shape(width, max(strides), visual.pretrained_cfg["input_size"][-1] if fixed else None)

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        self.check_pixels(pixels)
        maps = self.visual(pixels.contiguous(memory_format=torch.channels_last))
        folded = [F.pixel_unshuffle(each, fold) for each, fold in zip(maps, self.folds, strict=True)]
        return torch.cat(folded, 1).permute(0, 2, 3, 1)
