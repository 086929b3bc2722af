"""SerialClip: CLIP's transformer on the features of the vision vocabulary, as in DeepSeek-OCR (arXiv 2510.18234)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from varytoy.models.config import SerialClipConfig
from varytoy.models.vision.base import register
from varytoy.models.vision.clip import ClipBranch


@register
class SerialClip(ClipBranch):
    """Features of the vision vocabulary [I, h, w, width] -> features [I, h, w, width].

    They take the place of patch embeddings: a class token goes in front, positions are added (bicubic interpolation to
    each image's grid), then come CLIP's first norm and its layers. The class token is dropped at the end. Other than
    DeepSeek-OCR, a model of ours has no learned rows for the end of a line of tokens and for the end of an image.

    Raises:
        ValueError: ``layers`` of a residual network.
    """

    config_class = SerialClipConfig

    def __init__(self, config: SerialClipConfig):
        if not isinstance(config.layers, int):
            raise ValueError("clip_config: CLIP behind the vision vocabulary is a transformer: layers must be a number")
        super().__init__(config)
        self.visual.conv1 = self.visual.ln_post = None

    def forward(self, features: Tensor, grids: Tensor | None = None) -> Tensor:
        """``grids`` [I, 2]: rows and columns of each image of a padded batch; padding is masked in attention."""
        images, height, width, _ = features.shape
        bias = None
        if grids is None or not bool((grids != grids.new_tensor([height, width])).any()):
            places = self._positions(height, width)[None]
        else:
            places = features.new_zeros(features.shape)
            inside = torch.zeros(images, height, width, dtype=torch.bool, device=features.device)
            for number, (rows, columns) in enumerate(grids.tolist()):
                places[number, :rows, :columns] = self._positions(rows, columns)
                inside[number, :rows, :columns] = True
            bias = self._bias(inside, features.dtype)
        x = (features + places.to(features.dtype)).flatten(1, 2)
        first = (self.visual.class_embedding + self.visual.positional_embedding[0]).to(x.dtype)
        x = self.visual.ln_pre(torch.cat([first.expand(images, 1, -1), x], 1))
        layer = self.config.layers + self.config.select_layer
        _, outputs = self.visual.transformer.forward_intermediates(x, bias, indices=[layer], stop_early=True)
        return outputs[0][:, 1:].unflatten(1, (height, width))

    def _positions(self, height: int, width: int) -> Tensor:
        """[h, w, width]."""
        table = self.visual.positional_embedding[1:].unflatten(0, self.grid)
        if (height, width) == self.grid:
            return table
        table = table.permute(2, 0, 1)[None].float()
        table = F.interpolate(table, (height, width), mode="bicubic", align_corners=False, antialias=True)
        return table[0].permute(1, 2, 0)

    def _bias(self, inside: Tensor, dtype: torch.dtype) -> Tensor:
        """Mask [I, h, w], True inside the images -> what is added to the scores [I * heads, 1 + h * w, 1 + h * w]."""
        keys = F.pad(inside.flatten(1), (1, 0), value=True)
        bias = torch.zeros(keys.shape, dtype=dtype, device=keys.device).masked_fill(~keys, float("-inf"))
        heads = self.config.width // self.config.head_width
        return bias[:, None, None].expand(-1, heads, keys.shape[1], -1).flatten(0, 1)
