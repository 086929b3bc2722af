"""VisionVocabulary: the branch that reads text. A SAM/ViTDet encoder followed by a stride-2 compressor.

Shapes in docstrings: B batch, H W pixels, h w token grid, N = h*w tokens, D width.

The published shape (Vary, Vary-toy, GOT-OCR2; arXiv 2401.12503) turns 1024 px into 256 tokens of width 1024 and its
parameter names are those of the published checkpoints. A model trained from scratch with little compute learns to read
sooner with a convolutional stem and a smaller stride: ``stem="conv"``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from varytoy.models.config import VisionVocabularyConfig
from varytoy.models.vision.base import VisionEncoder, register

_MAX_SCORES = 1 << 21
"""Most entries (queries x keys of one head) of the bias at a time: 512 queries at 1024 px."""


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of [B, D, h, w]."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class PatchStem(nn.Module):
    """SAM's linear patch embedding: [B, 3, H, W] -> [B, D, H/p, W/p]."""

    def __init__(self, config: VisionVocabularyConfig):
        super().__init__()
        self.proj = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)

    def forward(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        return self.proj(pixels)


class StemConv(nn.Conv2d):
    """A convolution of the stem, a class of its own for its initialisation (He, arXiv 1502.01852)."""


class ConvBlock(nn.Module):
    """Residual pair of 3x3 convolutions."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = StemConv(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        inner = _masked(F.gelu(self.conv1(_masked(self.norm(x), mask))), mask)
        return x + self.conv2(inner)


class ConvStem(nn.Module):
    """Convolutions down to the token grid: one stage per (width, vertical stride, horizontal stride, blocks).

    Batch norm, because with layer norm the CTC warm-up of vary-nano stayed on its plateau (train/experiments/LOG.md).
    """

    def __init__(self, config: VisionVocabularyConfig):
        super().__init__()
        self.downs, self.norms, self.blocks = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.strides = []
        before = 3
        for width, down, across, depth in config.stem_stages:
            self.downs.append(StemConv(before, width, 3, (down, across), padding=1))
            self.norms.append(nn.BatchNorm2d(width))
            self.blocks.append(nn.ModuleList(ConvBlock(width) for _ in range(depth)))
            self.strides.append((down, across))
            before = width
        self.proj = StemConv(before, config.hidden_size, 1)

    def forward(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        x = pixels.contiguous(memory_format=torch.channels_last)
        stages = zip(self.downs, self.norms, self.blocks, self.strides, strict=True)
        for conv, norm, blocks, (down, across) in stages:
            x = F.gelu(norm(conv(x)))
            if mask is not None:
                mask = mask[:, :, ::down, ::across]
            x = _masked(x, mask)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, mask)
            x = _masked(x, mask)
        return self.proj(x)


class Attention(nn.Module):
    """Multi-head attention over a grid, with SAM's decomposed relative-position bias when ``grid`` is given."""

    def __init__(self, config: VisionVocabularyConfig, grid: tuple[int, int] | None):
        super().__init__()
        self.heads = config.num_heads
        self.head_width = config.hidden_size // config.num_heads
        self.qkv = nn.Linear(config.hidden_size, config.hidden_size * 3)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.relative = grid is not None
        if grid is not None:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, self.head_width))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, self.head_width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, h, w, D]; mask [B, h, w], True inside the image. Returns [B, h, w, D]."""
        batch, height, width, _ = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        keep = None if mask is None else mask.reshape(batch, 1, 1, height * width)
        tables = (
            (_relative_table(self.rel_pos_h, height), _relative_table(self.rel_pos_w, width)) if self.relative else ()
        )
        rows = max(_MAX_SCORES // (height * width * width), 1)
        if not self.relative or rows >= height:
            out = self._attend(query, key, value, keep, *tables)
        else:
            # The bias of all queries would be the largest tensor of the model: compute some rows of the grid at a time.
            parts = []
            for start in range(0, height, rows):
                some = query[:, :, start * width : (start + rows) * width]
                part = (some, key, value, keep, tables[0][start : start + rows], tables[1])
                if torch.is_grad_enabled() and query.requires_grad:
                    parts.append(checkpoint(self._attend, *part, use_reentrant=False, preserve_rng_state=False))
                else:
                    parts.append(self._attend(*part))
            out = torch.cat(parts, 2)
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, -1))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, *tables: Tensor) -> Tensor:
        """query [B, heads, r*w, d] of r rows, key and value [B, heads, h*w, d], keep [B, 1, 1, h*w]; tables of the
        relative positions [r, h, d] and [w, w, d]."""
        bias = keep
        if tables:
            bias = self._bias(query, *tables)
            bias = bias if keep is None else bias.masked_fill(~keep, float("-inf"))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)

    def _bias(self, query: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
        """SAM's bias from the unscaled queries: [B, heads, r*w, h*w]."""
        (rows, height, _), width = rel_h.shape, rel_w.shape[0]
        grid = query.reshape(query.shape[0], self.heads, rows, width, self.head_width)
        by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, rel_h.to(query.dtype))
        by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, rel_w.to(query.dtype))
        bias = by_row[..., :, None] + by_column[..., None, :]
        return bias.reshape(query.shape[0], self.heads, rows * width, height * width)


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.lin1 = nn.Linear(width, inner)
        self.lin2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Block(GradientCheckpointingLayer):
    """One ViTDet block; ``window`` 0 means global attention."""

    def __init__(self, config: VisionVocabularyConfig, window: int):
        super().__init__()
        self.window = window
        side = config.image_size // config.patch_size
        grid = ((window, window) if window else (side, side)) if config.relative_positions else None
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.attn = Attention(config, grid)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=1e-6)
        self.mlp = Mlp(config.hidden_size, int(config.hidden_size * config.mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        inner = self.norm1(x)
        if self.window:
            batch, height, width, _ = x.shape
            inner = _to_windows(inner, self.window)
            inner = _from_windows(self.attn(inner), self.window, (batch, height, width))
        else:
            inner = self.attn(inner, mask)
        x = x + inner
        return x + self.mlp(self.norm2(x))


@register
class VisionVocabulary(VisionEncoder):
    """Pixels [B, 3, H, W] -> tokens [B, h, w, D_out]; h = H / stride[0], w = W / stride[1] of the config.

    H and W are any multiples of the stride: learned positions are interpolated (bicubic for the absolute ones, linear
    for the relative ones), sinusoidal ones are computed. ``sizes`` [B, 2]: height and width in pixels of each image of
    a padded batch; padding is masked in the convolutions and in attention.

    Raises:
        ValueError: images of several sizes with parts that cannot mask padding (patch stem, windows, neck).
    """

    config_class = VisionVocabularyConfig

    def __init__(self, config: VisionVocabularyConfig):
        super().__init__()
        self.config = config
        self.width, self.stride = config.output_size, config.stride
        width = config.hidden_size
        windows = config.num_layers > len(config.global_layers) and config.window_size > 0
        self.pads = config.stem == "conv" and not config.neck_size and not windows
        self.patch_embed = PatchStem(config) if config.stem == "patch" else ConvStem(config)
        if config.positions == "learned":
            side = config.image_size // config.patch_size
            self.pos_embed = nn.Parameter(torch.zeros(1, side, side, width))
        self.blocks = nn.ModuleList(
            Block(config, 0 if index in config.global_layers else config.window_size)
            for index in range(config.num_layers)
        )
        if config.neck_size:
            neck = config.neck_size
            self.neck = nn.Sequential(
                nn.Conv2d(width, neck, 1, bias=False),
                LayerNorm2d(neck),
                nn.Conv2d(neck, neck, 3, padding=1, bias=False),
                LayerNorm2d(neck),
            )
            first, last = config.compressor_sizes
            self.net_2 = nn.Conv2d(neck, first, 3, 2, padding=1, bias=False)
            self.net_3 = nn.Conv2d(first, last, 3, 2, padding=1, bias=False)
        else:
            self.norm = nn.LayerNorm(width, eps=1e-6)
        if config.positions == "projected":
            self.place = nn.Linear(width, config.output_size, bias=False)

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        mask = None
        if sizes is not None and bool((sizes != sizes.new_tensor(pixels.shape[-2:])).any()):
            if not self.pads:
                raise ValueError(
                    "this vision vocabulary takes images of one size in a batch: resize them, or one by one"
                )
            mask = image_mask(sizes, pixels.shape[-2], pixels.shape[-1])
        return self.encode(pixels, mask)

    def encode(self, pixels: Tensor, mask: Tensor | None) -> Tensor:
        """As ``forward``, with the mask of the padding [B, 1, H, W], True inside the images."""
        x = self.patch_embed(pixels, mask).permute(0, 2, 3, 1)
        grid_mask = None if mask is None else mask[:, 0, :: self.config.grid_stride[0], :: self.config.grid_stride[1]]
        x = x + self._positions(x.shape[1], x.shape[2]).to(x.dtype)
        for block in self.blocks:
            x = block(x, grid_mask)
        if self.config.neck_size:
            x = self.net_3(self.net_2(self.neck(x.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
        else:
            x = self.norm(x)
        if self.config.positions == "projected":
            # After the norm, because a convolutional stem's output grows to a hundred times the positions' size.
            x = x + self.place(place_codes(x.shape[1], x.shape[2], self.config.hidden_size, x.device).to(x.dtype))
        return x

    @torch.no_grad()
    def initialise(self, module: nn.Module) -> bool:
        if module is self:
            if hasattr(self, "pos_embed"):
                init.normal_(self.pos_embed, std=0.02)
            if hasattr(self, "place"):
                # Half the size of what they are added to: initialised at zero, positions stay unused for long.
                init.normal_(self.place.weight, std=0.05)
        elif isinstance(module, Attention):
            if module.relative:
                init.zeros_(module.rel_pos_h)
                init.zeros_(module.rel_pos_w)
        elif isinstance(module, StemConv):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        else:
            return False
        return True

    def _positions(self, height: int, width: int) -> Tensor:
        if self.config.positions == "learned":
            if (height, width) == tuple(self.pos_embed.shape[1:3]):
                return self.pos_embed
            table = self.pos_embed.permute(0, 3, 1, 2).float()
            table = F.interpolate(table, (height, width), mode="bicubic", align_corners=False, antialias=True)
            return table.permute(0, 2, 3, 1)
        device = next(self.parameters()).device
        return sincos_positions(height, width, self.config.hidden_size, device)


def sincos_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Fixed 2-D sinusoidal positions [1, h, w, dim]; half the channels for rows, half for columns."""
    return _sinusoids(height, width, _slow_rates(dim // 4, device))


def place_codes(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Like sinusoidal positions, but half of the rates are spaced evenly, as in a Fourier transform: the codes of
    neighbours are orthogonal, so that one linear layer can tell them apart."""
    even = dim // 8
    fast = math.pi * torch.arange(1, even + 1, device=device) / even
    return _sinusoids(height, width, torch.cat([fast, _slow_rates(dim // 4 - even, device)]))


def _slow_rates(number: int, device: torch.device) -> Tensor:
    return torch.exp(-math.log(1000.0) * torch.arange(number, device=device) / number)


def _sinusoids(height: int, width: int, rates: Tensor) -> Tensor:
    device = rates.device
    rows = torch.arange(height, device=device)[:, None] * rates
    columns = torch.arange(width, device=device)[:, None] * rates
    rows = torch.cat([rows.sin(), rows.cos()], -1)[:, None].expand(height, width, -1)
    columns = torch.cat([columns.sin(), columns.cos()], -1)[None].expand(height, width, -1)
    return torch.cat([rows, columns], -1)[None]


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask.to(x.dtype)


def image_mask(sizes: Tensor, height: int, width: int) -> Tensor:
    """[B, 2] pixel sizes -> [B, 1, H, W] bool, True inside the image."""
    rows = torch.arange(height, device=sizes.device)[None, :, None] < sizes[:, 0, None, None]
    columns = torch.arange(width, device=sizes.device)[None, None] < sizes[:, 1, None, None]
    return (rows & columns)[:, None]


def _relative_table(table: Tensor, size: int) -> Tensor:
    """Relative-position rows for every (query, key) pair of an axis of ``size``: [size, size, head width]."""
    length = 2 * size - 1
    if table.shape[0] != length:
        resized = F.interpolate(table.float().T[None], size=length, mode="linear")[0].T
        table = resized.to(table.dtype)
    index = torch.arange(size, device=table.device)
    return table[index[:, None] - index[None] + size - 1]


def _to_windows(x: Tensor, window: int) -> Tensor:
    """[B, h, w, D] -> [B * windows, window, window, D], zero-padded at the right and bottom as SAM does."""
    batch, height, width, dim = x.shape
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.reshape(batch, x.shape[1] // window, window, x.shape[2] // window, window, dim)
    return x.transpose(2, 3).reshape(-1, window, window, dim)


def _from_windows(x: Tensor, window: int, shape: tuple[int, int, int]) -> Tensor:
    batch, height, width = shape
    rows, columns = -(-height // window), -(-width // window)
    x = x.reshape(batch, rows, columns, window, window, -1).transpose(2, 3)
    return x.reshape(batch, rows * window, columns * window, -1)[:, :height, :width]
