"""Rows that are decoded together: they leave when they end, others join, and keys and values are written in place.

transformers' dynamic cache is copied at every step, and its ``generate`` computes rows that ended until the last ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature, Cache
from transformers.cache_utils import DynamicLayer

from varytoy.inference.decoder_step import decoder_step
from varytoy.models.vary import CACHE, VaryForConditionalGeneration

ROOM = 256
"""Tokens that a cache has room for beyond those in it, when it is made or grows."""


class RowLayer(DynamicLayer):
    """Keys and values [B, H, T, D] of one layer: the first T places of larger tensors."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, ...] = ()

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._fill(key_states[..., :0, :], value_states[..., :0, :], key_states.shape[-2])

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if stop > self._room[0].shape[-2]:
            self._fill(self.keys, self.values, key_states.shape[-2])
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[..., start:stop, :] = states
        self.keys, self.values = (room[..., :stop, :] for room in self._room)
        return self.keys, self.values

    def keep(self, rows: Tensor, first: int) -> None:
        """Keep these rows, and their places from ``first`` on."""
        keys, values = (room[rows, :, first : self.get_seq_length()] for room in self._room)
        self._fill(keys, values)

    def join(self, other: "RowLayer", length: int) -> None:
        """Add another's rows; both end at place ``length``, and what lies before the shorter's first is undefined."""
        pairs = zip((self.keys, self.values), (other.keys, other.values), strict=True)
        self._fill(*(torch.cat([_right(each, length) for each in pair]) for pair in pairs))

    def _fill(self, keys: Tensor, values: Tensor, more: int = 0) -> None:
        length = keys.shape[-2]
        room = []
        for states in (keys, values):
            wide = states.new_empty(*states.shape[:-2], length + more + ROOM, states.shape[-1])
            wide[..., :length, :] = states
            room.append(wide)
        self._room = tuple(room)
        self.keys, self.values = (wide[..., :length, :] for wide in room)


class RowCache(Cache):
    """Key-value cache of ``RowLayer`` layers."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RowLayer)


def _right(states: Tensor, length: int) -> Tensor:
    return F.pad(states, (0, 0, length - states.shape[-2], 0))


class Prompts(NamedTuple):
    """``scores`` [N, V] of the first tokens of the answers, the images' ``features``, the ``cache`` and the attention
    ``mask`` [N, T]."""

    scores: Tensor
    features: dict[str, Tensor] | None
    cache: RowCache
    mask: Tensor


def encode_prompts(model: VaryForConditionalGeneration, inputs: BatchFeature) -> Prompts:
    """Run the model on prompts, padded left."""
    tensors = {name: value.to(model.device) for name, value in inputs.items()}
    mask, cache = tensors["attention_mask"], RowCache()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    output = model(**tensors, position_ids=positions, use_cache=True, logits_to_keep=1, **{CACHE: cache})
    return Prompts(output.logits[:, -1], output.image_features, cache, mask)


class RunningBatch:
    """Rows in different places of their answers, which end at the same place of one cache.

    For decoders in which every layer attends to all that came before.
    """

    def __init__(self, model: VaryForConditionalGeneration):
        self.model, self._step = model, decoder_step(model)
        self.cache: RowCache | None = None
        self.hidden = torch.zeros(0, 0, dtype=torch.bool)
        """[B, T], True where a row has nothing, because it is shorter than others."""
        self.positions = torch.zeros(0, dtype=torch.long)

    def join(self, inputs: BatchFeature) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Add prompts, padded left, behind the rows that are there. Returns the scores [N, V] of their first tokens,
        and their images' features."""
        scores, features, cache, mask = encode_prompts(self.model, inputs)
        hidden, positions = mask == 0, mask.sum(-1)
        if self.cache is None:
            self.cache, self.hidden, self.positions = cache, hidden, positions
        else:
            length = max(self.hidden.shape[1], hidden.shape[1])
            for layer, other in zip(self.cache.layers, cache.layers, strict=True):
                layer.join(other, length)
            padded = [F.pad(each, (length - each.shape[1], 0), value=True) for each in (self.hidden, hidden)]
            self.hidden, self.positions = torch.cat(padded), torch.cat([self.positions, positions])
        return scores, features

    def step(self, tokens: Tensor) -> Tensor:
        """The next tokens of each row [B, K] -> the scores [B, K, V] of those after each. Call ``accept`` next."""
        tokens, count = tokens.to(self.model.device), tokens.shape[1]
        self.hidden = F.pad(self.hidden, (0, count), value=False)
        positions = self.positions[:, None] + torch.arange(count, device=tokens.device)
        return self._step(tokens, self._bias(count), positions, self.cache)

    def accept(self, counts: Sequence[int], of: int) -> None:
        """Keep the first tokens of each row, so many ``of`` the last step's."""
        kept = torch.tensor(counts, device=self.positions.device)
        self.hidden[:, -of:] = torch.arange(of, device=kept.device) >= kept[:, None]
        self.positions = self.positions + kept

    def take_back(self, row: int, length: int) -> None:
        """Forget the last tokens of a row, so that ``length`` are left, its prompt's included."""
        places = (~self.hidden[row]).nonzero().flatten()
        self.hidden[row, places[length:]] = True
        self.positions[row] = length

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; places that are empty in all of them go, too."""
        if not rows:
            self.cache = None
            return
        index = torch.tensor(rows, device=self.hidden.device)
        hidden = self.hidden[index]
        first = int(hidden.all(0).int().argmin())
        for layer in self.cache.layers:
            layer.keep(index, first)
        self.hidden, self.positions = hidden[:, first:], self.positions[index]

    def _bias(self, count: int) -> Tensor:
        """Additive attention mask [B, 1, K, T] of the last ``count`` tokens, in the dtype of the computation."""
        dtype = self.cache.layers[0].keys.dtype
        hidden = self.hidden[:, None].expand(-1, count, -1)
        if count > 1:
            later = torch.ones(count, count, dtype=torch.bool, device=hidden.device).triu(1)
            hidden = hidden | F.pad(later, (hidden.shape[-1] - count, 0), value=False)
        bias = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
        return bias.masked_fill_(hidden, torch.finfo(dtype).min)[:, None]
