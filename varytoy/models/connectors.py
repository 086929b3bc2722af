"""Connectors: project the features of the vision branches to input embeddings of the language model."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.models.config import VaryConfig

CONNECTORS: dict[str, type["Connector"]] = {}
"""``connector`` of a configuration -> its class."""


class Connector(nn.Module):
    """Base class of the connectors; a subclass registers itself with ``@register(NAME)``.

    Attributes:
        latents: rows per image if their number is fixed; 0 for one row per position of the vision vocabulary's grid.
        serial: whether the CLIP branch's grid and padding are the vision vocabulary's.
        clip_width: channels of ``of_clip``; 0 without a CLIP branch.
    """

    latents = 0

    def __init__(self, config: VaryConfig):
        super().__init__()
        self.serial = config.serial
        self.clip_width = 0 if config.clip_config is None else config.clip_config.width

    @classmethod
    def latents_of(cls, config: VaryConfig) -> int:
        """``latents``, where the configuration decides on them."""
        return cls.latents

    def forward(self, features: dict[str, Tensor], grids: Tensor | None = None) -> Tensor:
        """Features by branch -> rows [N, D] of all images, concatenated, in reading order, without padding.

        Args:
            features: ``"vocabulary"`` [I, h, w, D1] and ``"clip"`` [I, h2, w2, D2]; a branch that is switched off is
                missing.
            grids: [I, 2] rows and columns of ``"vocabulary"`` that are not padding; None where nothing is padded.
        """
        raise NotImplementedError

    def of_clip(self, features: Tensor) -> Tensor:
        """The CLIP branch's features [I, h, w, D] -> [I, h, w, clip_width], as far as they are projected alone."""
        return features


def register(name: str):
    """Class decorator: configurations with ``connector=name`` build this connector."""

    def add(connector: type[Connector]) -> type[Connector]:
        CONNECTORS[name] = connector
        return connector

    return add


def connector_class(config: VaryConfig) -> type[Connector]:
    """Raises ValueError for an unregistered name."""
    if config.connector not in CONNECTORS:
        raise ValueError(f"no connector '{config.connector}'; known are {', '.join(sorted(CONNECTORS))}")
    return CONNECTORS[config.connector]


def build_connector(config: VaryConfig) -> Connector:
    """The connector of a configuration. Raises ValueError for an unregistered name."""
    return connector_class(config)(config)


def image_tokens(config: VaryConfig, side: int = 0) -> int:
    """Rows of a square image of ``side`` pixels, by default the vision vocabulary's ``image_size``. Raises ValueError
    for an unregistered connector."""
    latents, vision = connector_class(config).latents_of(config), config.vocabulary_config
    if latents or not side:
        return latents or vision.image_tokens
    return (side // vision.stride[0]) * (side // vision.stride[1])


@register("linear")
class LinearConnector(Connector):
    """One linear layer per branch, then channel concatenation in the order (CLIP, vision vocabulary).

    Without a CLIP branch the vision vocabulary fills all channels. The projections have the published names.
    """

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        width = config.text_config.hidden_size
        if config.clip_config is not None:
            self.clip_width = config.clip_projection_size or width // 2
            self.mm_projector = nn.Linear(config.clip_config.width, self.clip_width)
        self.mm_projector_vary = nn.Linear(config.vocabulary_config.output_size, width - self.clip_width)

    def forward(self, features: dict[str, Tensor], grids: Tensor | None = None) -> Tensor:
        """See the base class. A CLIP grid of another size is resampled (bilinear) to each image's grid; the channels of
        a CLIP branch that is switched off are zero."""
        rows = self._joined(self.mm_projector_vary(features["vocabulary"]), features.get("clip"), grids)
        return rows.flatten(0, 2) if grids is None else rows[grid_mask(grids, rows.shape[1], rows.shape[2])]

    def of_clip(self, features: Tensor) -> Tensor:
        return self.mm_projector(features)

    def _joined(self, rows: Tensor, clip: Tensor | None, grids: Tensor | None) -> Tensor:
        """[I, h, w, D - clip_width] -> [I, h, w, D]."""
        if not self.clip_width:
            return rows
        if clip is None:
            return torch.cat([rows.new_zeros(*rows.shape[:-1], self.clip_width), rows], -1)
        other = self.mm_projector(clip)
        uneven = other.shape[1:3] != rows.shape[1:3] or (grids is not None and bool((grids != grids[:1]).any()))
        if uneven and not self.serial:
            if grids is None:
                grids = torch.tensor([rows.shape[1:3]], device=rows.device).expand(rows.shape[0], 2)
            other = _spread(other, grids, *rows.shape[1:3])
        return torch.cat([other.to(rows.dtype), rows], -1)


@register("concatenation")
class ConcatenationConnector(Connector):
    """One linear layer on the channels of both branches, in the order (CLIP, vision vocabulary), for models with
    ``SerialClip``. DeepSeek-OCR projects 2,048 channels so.

    Raises:
        ValueError: a CLIP branch of its own grid.
    """

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        if config.clip_config is not None and not config.serial:
            raise ValueError(
                "connector: concatenation is for a CLIP branch of the type 'vary_serial_clip': take linear"
            )
        channels = self.clip_width + config.vocabulary_config.output_size
        self.proj = nn.Linear(channels, config.text_config.hidden_size)

    def forward(self, features: dict[str, Tensor], grids: Tensor | None = None) -> Tensor:
        """See the base class."""
        rows = self.proj(torch.cat([features[name] for name in ("clip", "vocabulary") if name in features], -1))
        return rows.flatten(0, 2) if grids is None else rows[grid_mask(grids, rows.shape[1], rows.shape[2])]


@register("encoder")
class EncoderConnector(Connector):
    """Layer norm, a linear layer, learned positions and one bidirectional transformer layer on the vision vocabulary's
    features, for images of one size and models without a CLIP branch.

    What a pretrained image net gives is large and uneven between channels; a decoder learns from it sooner behind this.
    """

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        width, text = config.vocabulary_config.output_size, config.text_config
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, text.hidden_size)
        self.positions = nn.Parameter(torch.zeros(config.vocabulary_config.image_tokens, text.hidden_size))
        self.layer = nn.TransformerEncoderLayer(
            text.hidden_size,
            text.num_attention_heads,
            text.intermediate_size,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )

    def forward(self, features: dict[str, Tensor], grids: Tensor | None = None) -> Tensor:
        """See the base class. Raises ValueError for an image of another size."""
        tokens = features["vocabulary"].flatten(1, 2)
        if tokens.shape[1] != len(self.positions):
            raise ValueError(
                f"{tokens.shape[1]} tokens an image, the connector has {len(self.positions)} positions: images must "
                "have the model's own size"
            )
        return self.layer(self.proj(self.norm(tokens)) + self.positions).flatten(0, 1)


@dataclass(frozen=True)
class ResamplerOptions:
    """``connector_options`` of a configuration with ``connector=resampler``.

    Attributes:
        latents: rows for each image. KOSMOS-2.5 has 2,048.
        heads: of the attention. KOSMOS-2.5 has 16.
        normalize: whether each feature vector is brought to length 1 first.
        places: whether each latent begins with a view of its own cell of the image, and each head with another part of
            the cell: distances are subtracted from the scores. KOSMOS-2.5 learns where to look from nothing.
    """

    latents: int = 64
    heads: int = 8
    normalize: bool = True
    places: bool = False


@register("resampler")
class ResamplerConnector(Connector):
    """KOSMOS-2.5's resampler (arXiv 2309.11419, section 2.1): learned queries attend to the features of all branches
    and to themselves, in one attention layer without a feed-forward layer or norm. Other than there, padding is masked,
    so it cannot change the result. Parameters are named as in transformers' ``Kosmos2_5ImageToTextProjection``.
    """

    def __init__(self, config: VaryConfig):
        super().__init__(config)
        self.options, width = _resampler_options(config), config.text_config.hidden_size
        if width % self.options.heads:
            raise ValueError(f"connector_options.heads: {self.options.heads} heads do not divide the width {width}")
        self.dense = nn.Linear(config.vocabulary_config.output_size, width)
        if config.clip_config is not None:
            self.dense_clip = nn.Linear(config.clip_config.width, width)
        self.latent_query = nn.Parameter(torch.randn(self.options.latents, width))
        names = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.x_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        if self.options.places:
            self.offsets = nn.Parameter(_cell_centres(self.options.heads) - 0.5)
            self.sharpness = nn.Parameter(torch.full((self.options.heads,), 8.0))

    @classmethod
    def latents_of(cls, config: VaryConfig) -> int:
        return _resampler_options(config).latents

    def forward(self, features: dict[str, Tensor], grids: Tensor | None = None) -> Tensor:
        """See the base class: [I * latents, D]."""
        vocabulary, clip = features["vocabulary"], features.get("clip")
        images, height, width = vocabulary.shape[:3]
        keys = [self.dense(self._normalized(vocabulary.flatten(1, 2)))]
        if clip is not None and hasattr(self, "dense_clip"):
            keys.append(self.dense_clip(self._normalized(clip.flatten(1, 2))).to(keys[0].dtype))
        latents = self.latent_query.to(keys[0].dtype).expand(images, -1, -1)
        tokens = torch.cat([*keys, latents], 1)
        mask = None
        if grids is not None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            inside = grid_mask(grids, height, width).flatten(1)
            mask[:, : height * width] = inside
            if self.serial and len(keys) > 1:
                mask[:, height * width : 2 * height * width] = inside
            mask = mask[:, None, None]
        if self.options.places:
            bias = self._nearness(clip if len(keys) > 1 else None, height, width, grids)
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        query, key, value = (
            self.x_attn[name](rows).unflatten(-1, (self.options.heads, -1)).transpose(1, 2)
            for name, rows in (("q_proj", latents), ("k_proj", tokens), ("v_proj", tokens))
        )
        attended = F.scaled_dot_product_attention(query, key, value, mask)
        return self.x_attn["out_proj"](attended.transpose(1, 2).flatten(2)).flatten(0, 1)

    def _nearness(self, clip: Tensor | None, height: int, width: int, grids: Tensor | None) -> Tensor:
        """What is added to the scores: [I, heads, latents, keys], or of one image where all have the same grid."""
        device = self.offsets.device
        size = torch.tensor([[height, width]], device=device) if grids is None else grids
        places = [_relative_places(height, width, size)]
        if clip is not None:
            own = size if self.serial else torch.tensor([clip.shape[1:3]], device=device)
            places.append(_relative_places(clip.shape[1], clip.shape[2], own).expand(len(size), -1, -1))
        centres = _cell_centres(self.options.latents).to(device)
        keys = torch.cat([*places, centres.expand(len(size), -1, -1)], 1)
        cells = torch.tensor(_cells(self.options.latents), device=device)
        latents = centres * cells + self.offsets[:, None].float()
        distances = (latents[None, :, :, None] - (keys * cells)[:, None, None]).square().sum(-1)
        return (-self.sharpness[:, None, None].float() * distances).to(self.sharpness.dtype)

    def _normalized(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) if self.options.normalize else rows


def _resampler_options(config: VaryConfig) -> ResamplerOptions:
    """Raises ValueError for options that there are not."""
    given = config.connector_options or {}
    known = {field.name for field in fields(ResamplerOptions)}
    if given.keys() - known:
        wrong = ", ".join(sorted(given.keys() - known))
        raise ValueError(f"connector_options: no {wrong} of a resampler; there are {', '.join(sorted(known))}")
    options = ResamplerOptions(**given)
    if not (type(options.latents) is type(options.heads) is int and options.latents > 0 and options.heads > 0):
        raise ValueError("connector_options: latents and heads must be whole numbers above 0")
    return options


def _cells(count: int) -> tuple[int, int]:
    """Rows and columns of the grid of ``count`` cells that is nearest to a square."""
    rows = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return rows, count // rows


def _cell_centres(count: int) -> Tensor:
    """Centres [count, 2] (down, across) of so many cells in reading order, as fractions of the image."""
    rows, columns = _cells(count)
    return _relative_places(rows, columns, torch.tensor([[rows, columns]]))[0]


def _relative_places(height: int, width: int, grids: Tensor) -> Tensor:
    """Positions [I, h * w, 2] of a grid as fractions of each image, whose rows and columns are ``grids`` [I, 2]."""
    points = torch.cartesian_prod(torch.arange(height, device=grids.device), torch.arange(width, device=grids.device))
    return (points + 0.5)[None] / grids[:, None]


def grid_mask(grids: Tensor, height: int, width: int) -> Tensor:
    """Rows and columns [I, 2] of each image -> mask [I, h, w], True inside the image, False in the padding."""
    rows = torch.arange(height, device=grids.device)[None, :, None] < grids[:, 0, None, None]
    columns = torch.arange(width, device=grids.device)[None, None] < grids[:, 1, None, None]
    return rows & columns


def _spread(features: Tensor, grids: Tensor, height: int, width: int) -> Tensor:
    """Resample features [B, h2, w2, D] over each image's own grid, padded to [B, height, width, D].

    Equals ``F.interpolate(mode="bilinear")`` image by image: padding must not change an image's features.
    """
    down = (torch.arange(height, device=grids.device)[None] + 0.5) / grids[:, :1] * 2 - 1
    across = (torch.arange(width, device=grids.device)[None] + 0.5) / grids[:, 1:] * 2 - 1
    points = torch.stack([across[:, None].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)], -1)
    resampled = F.grid_sample(
        features.permute(0, 3, 1, 2), points.to(features.dtype), "bilinear", "border", align_corners=False
    )
    return resampled.permute(0, 2, 3, 1)
