"""Connector: how the features of the two branches become rows for the language model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.models.config import VaryConfig


class Connector(nn.Module):
    """One linear layer a branch, then channel concatenation in the order (CLIP, vision vocabulary).

    Without a CLIP branch the vision vocabulary fills all channels. The projections carry the published names.
    """

    def __init__(self, config: VaryConfig):
        super().__init__()
        width = config.text_config.hidden_size
        self.clip_width = 0
        if config.clip_config is not None:
            self.clip_width = config.clip_projection_size or width // 2
            self.mm_projector = nn.Linear(config.clip_config.width, self.clip_width)
        self.mm_projector_vary = nn.Linear(config.vocabulary_config.output_size, width - self.clip_width)

    def forward(self, vocabulary: Tensor, clip: Tensor | None, grids: Tensor | None = None) -> Tensor:
        """vocabulary [B, h, w, D1], clip [B, h2, w2, D2] or None -> [B, h, w, D].

        ``grids`` [B, 2]: the (h, w) that hold image in a padded batch. A CLIP grid of another size is resampled
        (bilinear) to each image's own. A CLIP branch that is switched off (None) leaves zeros in its channels.
        """
        rows = self.mm_projector_vary(vocabulary)
        if not self.clip_width:
            return rows
        if clip is None:
            return torch.cat([rows.new_zeros(*rows.shape[:-1], self.clip_width), rows], -1)
        other = self.mm_projector(clip)
        if other.shape[1:3] != rows.shape[1:3] or (grids is not None and bool((grids != grids[:1]).any())):
            if grids is None:
                grids = torch.tensor([rows.shape[1:3]], device=rows.device).expand(rows.shape[0], 2)
            other = _spread(other, grids, *rows.shape[1:3])
        return torch.cat([other.to(rows.dtype), rows], -1)


def _spread(features: Tensor, grids: Tensor, height: int, width: int) -> Tensor:
    """Resample features [B, h2, w2, D] over each image's own grid, padded to [B, height, width, D].

    Equals ``F.interpolate(mode="bilinear")`` image by image: padding must not change what a picture looks like.
    """
    down = (torch.arange(height, device=grids.device)[None] + 0.5) / grids[:, :1] * 2 - 1
    across = (torch.arange(width, device=grids.device)[None] + 0.5) / grids[:, 1:] * 2 - 1
    places = torch.stack([across[:, None].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], -1)
    found = F.grid_sample(
        features.permute(0, 3, 1, 2), places.to(features.dtype), "bilinear", "border", align_corners=False
    )
    return found.permute(0, 2, 3, 1)
