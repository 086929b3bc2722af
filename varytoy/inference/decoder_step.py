"""One pass of the decoder over the next tokens of each row, with its cache.

transformers' own forward launches about 45 small kernels a layer of a Qwen2 decoder; ``Qwen2Step`` does the same with
15, which is what a step of one token takes its time for on a GPU. Other decoders run as they are.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2ForCausalLM

from varytoy.models.vary import CACHE, VaryForConditionalGeneration

Step = Callable[[Tensor, Tensor, Tensor, Cache], Tensor]
"""(tokens [B, K], additive bias [B, 1, K, T], positions [B, K], cache) -> scores [B, K, V]. The cache takes the keys
and values of the tokens, and gives those of all T places."""


def decoder_step(model: VaryForConditionalGeneration) -> Step:
    """The fastest step that the model has: ``Qwen2Step`` after ``merge_projections``."""
    if _mergeable(model) and all(map(_is_merged, model.language_model.model.layers)):
        return Qwen2Step(model)

    def step(tokens: Tensor, bias: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        inputs = {"attention_mask": bias, "position_ids": positions, CACHE: cache}
        return model(tokens, use_cache=True, **inputs).logits

    return step


def _mergeable(model: VaryForConditionalGeneration) -> bool:
    """Whether it is a Qwen2 decoder, of which no linear layer is quantized, adapted or watched."""
    decoder = model.language_model
    if type(decoder) is not Qwen2ForCausalLM or model.compute_dtype is not None:
        return False
    linear = [each for layer in decoder.model.layers for each in _linear_layers(layer)]
    return all(type(each) is nn.Linear and not each._forward_hooks and not each._forward_pre_hooks for each in linear)


def _linear_layers(layer: Qwen2DecoderLayer) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj]


def merge_projections(model: VaryForConditionalGeneration) -> None:
    """Let the linear layers of a Qwen2 decoder that have one input be parts of one tensor, which a step multiplies at
    once. For inference: the parameters stay, but no longer have memory of their own."""
    if _mergeable(model):
        for layer in model.language_model.model.layers:
            for parts in _together(layer):
                whole = torch.cat([part.data for part in parts])
                for part, own in zip(parts, whole.split([len(part) for part in parts]), strict=True):
                    part.data = own


def _together(layer: Qwen2DecoderLayer) -> Iterator[list[Tensor]]:
    """Weights and biases of the projections, and the weights of the gated layers."""
    attention, mlp = layer.self_attn, layer.mlp
    for name in ("weight", "bias"):
        yield [getattr(each, name) for each in (attention.q_proj, attention.k_proj, attention.v_proj)]
    yield [mlp.gate_proj.weight, mlp.up_proj.weight]


def _is_merged(layer: Qwen2DecoderLayer) -> bool:
    for parts in _together(layer):
        place, storage = parts[0].storage_offset(), parts[0].untyped_storage().data_ptr()
        for part in parts:
            if part.untyped_storage().data_ptr() != storage or part.storage_offset() != place:
                return False
            place += part.numel()
    return True


def _whole(parts: list[Tensor]) -> Tensor:
    """The tensor that parts were made of by ``merge_projections``."""
    size = (sum(map(len, parts)), *parts[0].shape[1:])
    return parts[0].data.as_strided(size, parts[0].stride(), parts[0].storage_offset())


class _Layer:
    """The weights of one layer: those of the three projections, and of the two that are gated, as one each."""

    def __init__(self, layer: Qwen2DecoderLayer):
        weights, biases, self.gated = map(_whole, _together(layer))
        self.projections = weights, biases
        self.out, self.down = layer.self_attn.o_proj.weight.data, layer.mlp.down_proj.weight.data
        self.norms = layer.input_layernorm.weight.data, layer.post_attention_layernorm.weight.data
        self.activation = layer.mlp.act_fn


class Qwen2Step:
    """See ``Step``; for Qwen2's decoders without sliding windows."""

    def __init__(self, model: VaryForConditionalGeneration):
        decoder = model.language_model
        config = decoder.config
        self.embed = decoder.get_input_embeddings()
        self.layers = [_Layer(layer) for layer in decoder.model.layers]
        self.rotary, self.norm, self.scores = decoder.model.rotary_emb, decoder.model.norm.weight.data, decoder.lm_head
        self.heads, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.eps, self.side = config.rms_norm_eps, decoder.model.layers[0].self_attn.head_dim

    def __call__(self, tokens: Tensor, bias: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        states = self.embed(tokens)
        cosines, sines = self.rotary(states, positions)
        half = self.side // 2
        cosines = cosines[:, :, None]
        sines = torch.cat([-sines[..., :half], sines[..., half:]], -1)[:, :, None]
        for number, layer in enumerate(self.layers):
            normed = self._normed(states, layer.norms[0])
            states = states + F.linear(self._attend(normed, layer, number, cosines, sines, bias, cache), layer.out)
            gate, up = F.linear(self._normed(states, layer.norms[1]), layer.gated).chunk(2, -1)
            states = states + F.linear(layer.activation(gate) * up, layer.down)
        return self.scores(self._normed(states, self.norm))

    def _normed(self, states: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(states, weight.shape, weight, self.eps)

    def _attend(
        self, states: Tensor, layer: _Layer, number: int, cosines: Tensor, sines: Tensor, bias: Tensor, cache: Cache
    ) -> Tensor:
        rows, count = states.shape[:2]
        together = F.linear(states, *layer.projections).view(rows, count, -1, self.side)
        turning, values = together.split([self.heads + self.keys, self.keys], 2)
        turned = torch.addcmul(turning * cosines, turning.roll(self.side // 2, -1), sines)
        queries, keys = turned.transpose(1, 2).split([self.heads, self.keys], 1)
        keys, values = cache.update(keys, values.transpose(1, 2), number)
        grouped = self.heads != self.keys
        attended = F.scaled_dot_product_attention(queries, keys, values, bias, enable_gqa=grouped)
        return attended.transpose(1, 2).reshape(rows, count, -1)
