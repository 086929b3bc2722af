"""Image decoders: a picture of text from a picture, a mask, the wanted letters and the language model's states.

Shapes: B batch, H W pixels, T tokens, D width of the language model.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

_FOLD = 2
"""Pixels a side of the first convolutions' cells: they see the picture at half its size, with all its pixels."""
_GROUPS = 8


class Drawn(NamedTuple):
    """What a decoder draws.

    Attributes:
        picture: [B, 3, H, W], 0 to 1; outside the mask it is the given picture, bit by bit.
        background: [B, 3, H, W], the picture without the text; None from a decoder that does not tell.
        coverage: [B, 1, H, W], logits of where the new letters are; None likewise.
    """

    picture: Tensor
    background: Tensor | None = None
    coverage: Tensor | None = None


class ImageDecoder(Protocol):
    """Draws in one place of a picture."""

    def __call__(
        self, picture: Tensor, mask: Tensor, glyphs: Tensor, states: Tensor, known: Tensor | None = None
    ) -> Drawn:
        """
        Args:
            picture: [B, 3, H, W], 0 to 1.
            mask: [B, 1, H, W], 1 where it may draw, else 0.
            glyphs: [B, 1, H, W], 0 to 1: the wanted letters in a plain font, where they shall stand; 0 to erase.
            states: [B, T, D], of the language model before ``<|beginofimage|>``.
            known: [B, T], False for states that are padding.
        """
        ...


class TextUNetConfig(PretrainedConfig):
    """A small U-Net that draws in one pass.

    Args:
        height: of the pictures in pixels; their width is any multiple of ``stride``.
        channels: of each level, from the finest; each has half the cells a side of the one before.
        blocks: at each level, on the way down and on the way up.
        state_size: D.
        latents: rows that the states are resampled to, for the attention of the two coarsest levels.
        glyphs: whether it sees the wanted letters; without, it knows them from the states alone.
    """

    model_type = "vary_text_unet"

    height: int = 64
    channels: list | tuple = (48, 96, 128, 160)
    blocks: int = 1
    state_size: int = 256
    latents: int = 16
    glyphs: bool = True

    @property
    def stride(self) -> int:
        """What the sides of pictures are multiples of, in pixels."""
        return _FOLD * 2 ** (len(self.channels) - 1)


class TextUNet(PreTrainedModel):
    """The embedded ``ImageDecoder``: regresses background, and colour and coverage of letters, which are laid on it."""

    config_class = TextUNetConfig
    base_model_prefix = ""
    main_input_name = "picture"

    def __init__(self, config: TextUNetConfig):
        super().__init__(config)
        widths = list(config.channels)
        self.context = Context(config.state_size, widths[-1], config.latents)
        self.stem = nn.Conv2d((3 + 1 + 1) * _FOLD**2, widths[0], 3, padding=1)
        attends = [level >= len(widths) - 2 for level in range(len(widths))]

        def blocks(level: int) -> nn.ModuleList:
            return Level(Block(widths[level], widths[-1], attends[level]) for _ in range(config.blocks))

        levels = range(len(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.down_blocks = nn.ModuleList(blocks(level) for level in levels)
        self.join = nn.ModuleList(nn.Conv2d(a + b, a, 1) for a, b in pairwise(widths))
        self.up_blocks = nn.ModuleList(blocks(level) for level in levels[:-1])
        self.norm = nn.GroupNorm(_GROUPS, widths[0])
        self.head = nn.Conv2d(widths[0], 32 * _FOLD**2, 3, padding=1)
        last = nn.Conv2d(32, 7, 3, padding=1)
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.tensor([0.0] * 6 + [-2.0]))  # few cells have letters
        self.fine = nn.Sequential(nn.Conv2d(32 + 5, 32, 3, padding=1), nn.SiLU(), last)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The layers begin as torch and their constructors have them."""

    def forward(
        self, picture: Tensor, mask: Tensor, glyphs: Tensor, states: Tensor, known: Tensor | None = None
    ) -> Drawn:
        """See ``ImageDecoder``. Raises ValueError for sides that are no multiples of the stride."""
        if any(side % self.config.stride for side in picture.shape[-2:]):
            raise ValueError(f"the sides {tuple(picture.shape[-2:])} must be multiples of {self.config.stride} pixels")
        if not self.config.glyphs:
            glyphs = torch.zeros_like(glyphs)
        rows = self.context(states, known)
        seen = torch.cat([picture * 2 - 1, mask, glyphs], 1).to(self.stem.weight.dtype)
        features = self.stem(F.pixel_unshuffle(seen, _FOLD))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            if level:
                skips.append(features)
                features = self.down[level - 1](features)
            features = blocks(features, rows)
        for level in reversed(range(len(skips))):
            larger = F.interpolate(features, scale_factor=2.0, mode="nearest")
            features = self.join[level](torch.cat([skips[level], larger], 1))
            features = self.up_blocks[level](features, rows)
        fine = F.pixel_shuffle(self.head(F.silu(self.norm(features))), _FOLD)
        residual, colour, coverage = self.fine(torch.cat([F.silu(fine), seen], 1)).float().split([3, 3, 1], 1)
        background = (picture + residual).clamp(0, 1)
        share = coverage.sigmoid()
        drawn = background * (1 - share) + (colour + 0.5).clamp(0, 1) * share
        inside = mask > 0
        return Drawn(torch.where(inside, drawn, picture), torch.where(inside, background, picture), coverage)


class Level(nn.ModuleList):
    """Blocks that follow each other."""

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        for block in self:
            features = block(features, rows)
        return features


class Context(nn.Module):
    """States of the language model [B, T, D] -> rows [B, latents, width]: learned queries attend to them once, with
    their places, as in the resampler connector."""

    def __init__(self, size: int, width: int, latents: int):
        super().__init__()
        self.project = nn.Linear(size, width)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(latents, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, states: Tensor, known: Tensor | None = None) -> Tensor:
        keys = self.project(states.to(self.project.weight.dtype))
        keys = self.norm(keys) + places(keys.shape[1], keys.shape[2]).to(keys)
        queries = self.queries.expand(len(keys), -1, -1)
        padding = None if known is None else ~known
        return queries + self.attention(queries, keys, keys, key_padding_mask=padding, need_weights=False)[0]


class Block(nn.Module):
    """Two convolutions, changed channel by channel by the context, and attention to it if ``attends``."""

    def __init__(self, width: int, context: int, attends: bool):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.change = nn.Linear(context, 2 * width)
        self.attention = CrossAttention(width, context) if attends else None
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        scale, shift = self.change(F.silu(rows.mean(1)))[..., None, None].chunk(2, 1)
        inner = self.convolutions[0](F.silu(self.norms[0](features)))
        inner = self.norms[1](inner) * (1 + scale) + shift
        features = features + self.convolutions[1](F.silu(inner))
        return features if self.attention is None else features + self.attention(features, rows)


class CrossAttention(nn.Module):
    """Cells [B, C, h, w] attend to rows [B, N, D], each with its place across the picture."""

    def __init__(self, width: int, context: int, heads: int = 4):
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, width)
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, rows: Tensor) -> Tensor:
        height, width = features.shape[2:]
        cells = self.norm(features).permute(0, 2, 3, 1) + places(width, features.shape[1]).to(features)
        query = self.query(cells.flatten(1, 2)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(rows).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.out(attended).transpose(1, 2).unflatten(2, (height, width))


def pixels_of(image: Image.Image) -> Tensor:
    """An image, "RGB" or "L", as [C, H, W], 0 to 1."""
    pixels = np.array(image, dtype=np.float32) / 255
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)


def mask_of(box: Sequence[float], size: tuple[int, int]) -> Tensor:
    """[1, H, W], 1 inside a box (x1, y1, x2, y2 in pixels) of an image of ``size`` (width, height), else 0."""
    x1, y1, x2, y2 = map(round, box)
    mask = torch.zeros(1, size[1], size[0])
    mask[:, y1:y2, x1:x2] = 1
    return mask


def places(count: int, width: int) -> Tensor:
    """Sines and cosines of the places 0 to ``count`` - 1, [count, width]."""
    angles = torch.arange(count)[:, None] * torch.exp(torch.arange(0, width, 2) * (-9.21 / width))
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :width]
