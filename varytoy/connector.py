"""Connector: how the features of the two branches become rows for the language model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.config import VaryConfig


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

    def forward(self, vocabulary: Tensor, clip: Tensor | None) -> Tensor:
        """vocabulary [B, h, w, D1], clip [B, h2, w2, D2] or None -> [B, h, w, D].

        A CLIP grid of another size is resampled (bilinear) to the vocabulary's. A CLIP branch that is switched off
        (None) leaves zeros in its channels.
        """
        rows = self.mm_projector_vary(vocabulary)
        if not self.clip_width:
            return rows
        if clip is None:
            return torch.cat([rows.new_zeros(*rows.shape[:-1], self.clip_width), rows], -1)
        other = self.mm_projector(clip)
        if other.shape[1:3] != rows.shape[1:3]:
            other = F.interpolate(other.permute(0, 3, 1, 2), rows.shape[1:3], mode="bilinear").permute(0, 2, 3, 1)
        return torch.cat([other.to(rows.dtype), rows], -1)
