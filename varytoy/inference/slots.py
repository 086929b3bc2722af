"""Rows that are decoded together on a GPU: each in a slot of a cache of fixed size, each step one captured CUDA graph.

A step of a small decoder is hundreds of kernels of microseconds, which Python launches more slowly than the GPU runs
them. A captured graph launches them all at once. It needs tensors that stay where they are, so rows do not move with
each other's lengths as in ``RunningBatch``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature, Cache
from transformers.cache_utils import DynamicLayer

from varytoy.inference.decoder_step import decoder_step
from varytoy.inference.rows import RowLayer, encode_prompts
from varytoy.models.vary import VaryForConditionalGeneration

_STEP = 512
"""Places that a cache grows by: few sizes, so that few graphs are captured, and little memory that is not used."""


class SlotLayer(DynamicLayer):
    """Keys and values [B, H, T, D] of one layer, rows from place 0 on: the first rows and places of larger tensors."""

    keys: Tensor
    values: Tensor
    places: Tensor
    """[B, K], where the next tokens of each row belong."""

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        index = self.places[:, None, :, None].expand_as(key_states)
        self.keys.scatter_(2, index, key_states)
        self.values.scatter_(2, index, value_states)
        return self.keys, self.values


@dataclass
class _Graph:
    """A captured step: its inputs, tokens [B, K] and lengths [B], and its scores [B, K, V]."""

    graph: "torch.cuda.CUDAGraph"
    tokens: Tensor
    lengths: Tensor
    scores: Tensor


class SlotBatch:
    """See ``RunningBatch``, which has the same methods. For decoders in which every layer attends to all that came
    before; ``slots`` is the most rows."""

    def __init__(self, model: VaryForConditionalGeneration, slots: int):
        self.model, self.slots = model, slots
        self.lengths: list[int] = []
        self._step = decoder_step(model)
        self._room: list[tuple[Tensor, ...]] = []
        self._graphs: dict[tuple[int, int, int], _Graph | None] = {}
        self._captures = model.device.type == "cuda"
        self._pool = torch.cuda.graph_pool_handle() if self._captures else None

    def join(self, inputs: BatchFeature) -> tuple[Tensor, dict[str, Tensor] | None]:
        scores, features, cache, mask = encode_prompts(self.model, inputs)
        lengths = mask.sum(-1).tolist()
        layers: list[RowLayer] = cache.layers  # type: ignore[assignment]
        self._make_room(layers, len(self.lengths) + len(lengths), max(lengths) + 1)
        for (keys, values), layer in zip(self._room, layers, strict=True):
            for row, length in enumerate(lengths):
                slot = len(self.lengths) + row
                keys[slot, :, :length] = layer.keys[row, :, -length:]
                values[slot, :, :length] = layer.values[row, :, -length:]
        self.lengths += lengths
        return scores, features

    def step(self, tokens: Tensor) -> Tensor:
        rows, count = tokens.shape
        padded = tokens.new_zeros(self._bucket(rows), _drafted(count))
        padded[:rows, :count] = tokens
        lengths = torch.tensor(self.lengths + [0] * (len(padded) - rows))
        width = self._make_room((), rows, max(self.lengths) + padded.shape[1])
        return self._scores(padded, lengths, width)[:rows, :count]

    def accept(self, counts: Sequence[int], of: int) -> None:
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def take_back(self, row: int, length: int) -> None:
        self.lengths[row] = length

    def keep(self, rows: Sequence[int]) -> None:
        """``rows`` ascend."""
        for slot, row in enumerate(rows):
            if slot != row:
                for each in self._room:
                    for states in each:
                        states[slot, :, : self.lengths[row]] = states[row, :, : self.lengths[row]]
        self.lengths = [self.lengths[row] for row in rows]

    def _bucket(self, rows: int) -> int:
        """Rows that are computed for so many: few numbers, so that few graphs are captured."""
        return min(1 << (rows - 1).bit_length(), self.slots)

    def _make_room(self, layers: Sequence[RowLayer], rows: int, places: int) -> int:
        """Let the cache have so many rows and places. Returns how many places a step looks at."""
        rows, width = self._bucket(rows), -(-places // _STEP) * _STEP
        if not self._room:
            for layer in layers:
                shape = (rows, layer.keys.shape[1], width)
                self._room.append(tuple(each.new_zeros(*shape, each.shape[3]) for each in (layer.keys, layer.values)))
        have = self._room[0][0].shape
        more = (0, 0, 0, max(width - have[2], 0), 0, 0, 0, max(rows - have[0], 0))
        if any(more):
            self._graphs.clear()  # they write to the tensors that are replaced
            self._room = [tuple(F.pad(each, more) for each in pair) for pair in self._room]
        return width

    def _scores(self, tokens: Tensor, lengths: Tensor, width: int) -> Tensor:
        key, device = (*tokens.shape, width), self.model.device
        graph = self._graphs.get(key)
        if graph is None and key in self._graphs and self._captures:  # a capture needs to have run once before
            graph = self._graphs[key] = self._capture(tokens.to(device), lengths.to(device), width)
        if graph is None:
            self._graphs[key] = None
            return self._compute(tokens.to(device), lengths.to(device), width)
        graph.tokens.copy_(tokens)
        graph.lengths.copy_(lengths)
        graph.graph.replay()
        return graph.scores.clone()

    def _capture(self, tokens: Tensor, lengths: Tensor, width: int) -> _Graph | None:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                scores = self._compute(tokens, lengths, width)
        except RuntimeError:  # a layer that waits for the GPU, as LLM.int8 does for outliers
            self._captures = False
            return None
        return _Graph(graph, tokens, lengths, scores)

    def _compute(self, tokens: Tensor, lengths: Tensor, width: int) -> Tensor:
        rows, count = tokens.shape
        places = lengths[:, None] + torch.arange(count, device=tokens.device)
        cache = Cache([self._layer(pair, rows, width, places) for pair in self._room])
        dtype = self._room[0][0].dtype
        later = torch.arange(width, device=tokens.device) > places[..., None]
        bias = torch.zeros(later.shape, dtype=dtype, device=tokens.device)
        bias = bias.masked_fill_(later, torch.finfo(dtype).min)[:, None]
        return self._step(tokens, bias, places, cache)

    @staticmethod
    def _layer(room: tuple[Tensor, ...], rows: int, width: int, places: Tensor) -> SlotLayer:
        layer = SlotLayer()
        layer.keys, layer.values = (states[:rows, :, :width] for states in room)
        layer.places, layer.is_initialized = places, True
        return layer


def _drafted(count: int) -> int:
    """Tokens a row that are computed for so many."""
    return 1 if count == 1 else max(4, 1 << (count - 1).bit_length())
