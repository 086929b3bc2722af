"""PatchesBranch: images of any shape as patches with row and column numbers (Pix2Struct, arXiv 2210.03347; KOSMOS-2.5,
arXiv 2309.11419).

Shapes: I images, h w patches, n patches of the largest image, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from varytoy.models.config import PatchesConfig
from varytoy.models.vision.base import VisionEncoder, register


class PatchEmbeddings(nn.Module):
    """Linear projection of patches, plus the embeddings of their rows and columns. These count from 1, as in
    KOSMOS-2.5, whose tables have none for the last of ``max_patches`` in one row: it gets its neighbour's."""

    def __init__(self, config: PatchesConfig):
        super().__init__()
        self.patch_projection = nn.Linear(3 * config.patch_size**2, config.hidden_size)
        self.row_embedder = nn.Embedding(config.max_patches, config.hidden_size)
        self.column_embedder = nn.Embedding(config.max_patches, config.hidden_size)

    def forward(self, patches: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Values [..., 3 * p * p] and numbers [...] of patches -> [..., D]."""
        rows, columns = (each.clamp(max=self.row_embedder.num_embeddings - 1) for each in (rows, columns))
        return self.patch_projection(patches) + self.row_embedder(rows) + self.column_embedder(columns)


class PatchAttention(nn.Module):
    def __init__(self, config: PatchesConfig):
        super().__init__()
        self.heads, width = config.num_heads, config.hidden_size
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value, mask)
        return self.output(attended.transpose(1, 2).flatten(2))


class GatedMlp(nn.Module):
    def __init__(self, config: PatchesConfig):
        super().__init__()
        self.wi_0 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.wi_1 = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class PatchLayer(GradientCheckpointingLayer):
    def __init__(self, config: PatchesConfig):
        super().__init__()
        self.attention, self.mlp = PatchAttention(config), GatedMlp(config)
        self.pre_attention_layer_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)
        self.pre_mlp_layer_norm = nn.RMSNorm(config.hidden_size, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.pre_attention_layer_norm(x), mask)
        return x + self.mlp(self.pre_mlp_layer_norm(x))


@register
class PatchesBranch(VisionEncoder):
    """Pixels [I, 3, H, W] -> features [I, h, w, D], h = H / patch_size; zeros in the padding of smaller images.

    Only the patches of the images are encoded, so a batch of a wide and a high image costs no more than each alone.
    Parameters are named as in transformers' ``Kosmos2_5VisionModel``.

    Raises:
        ValueError: heads that do not divide the width; more rows or columns than there are embeddings for.
    """

    config_class = PatchesConfig

    def __init__(self, config: PatchesConfig):
        super().__init__()
        if config.hidden_size % config.num_heads:
            raise ValueError(f"{config.num_heads} heads (num_heads) do not divide hidden_size {config.hidden_size}")
        self.config, self.width, self.stride = config, config.hidden_size, config.stride
        self.embeddings = PatchEmbeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(PatchLayer(config) for _ in range(config.num_layers))})
        self.layernorm = nn.RMSNorm(config.hidden_size, eps=1e-6)

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        side = self.config.patch_size
        patches = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # [I, 3, h, p, w, p]
        patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3)
        images, height, width = patches.shape[:3]
        if max(height, width) > self.config.max_patches:
            raise ValueError(
                f"an image of {height} x {width} patches: this model takes up to {self.config.max_patches} in a row or "
                "column, so image_processor.max_patches must be no more"
            )
        rows = torch.arange(1, height + 1, device=pixels.device)[:, None].expand(height, width)
        columns = torch.arange(1, width + 1, device=pixels.device).expand(height, width)
        if sizes is None or bool((sizes == sizes.new_tensor(pixels.shape[-2:])).all()):
            x = self.embeddings(patches, rows, columns).flatten(1, 2)
            return self.layernorm(self._encoded(x, None)).unflatten(1, (height, width))
        grids = (sizes // side)[:, :, None, None]
        inside = (rows <= grids[:, 0]) & (columns <= grids[:, 1])
        image, row, column = inside.nonzero(as_tuple=True)
        counts = inside.sum((1, 2))
        taken = torch.arange(int(counts.max()), device=pixels.device) < counts[:, None]
        embedded = self.embeddings(patches[image, row, column], row + 1, column + 1)
        x = embedded.new_zeros(*taken.shape, self.width)
        x[taken] = embedded
        encoded = self.layernorm(self._encoded(x, taken[:, None, None]))
        features = encoded.new_zeros(images, height, width, self.width)
        features[image, row, column] = encoded[taken]
        return features

    def _encoded(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[I, n, D]; mask [I, 1, 1, n], True for patches of the image."""
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            x = layer(x, mask)
        return x
