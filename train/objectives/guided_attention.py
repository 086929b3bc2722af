"""Guided attention: one head of some decoder layers is supervised to attend to the character that is written next.

The renderer records the position of each character, so the image token that shows it is known. Without this a small
decoder learns to attend to the image only after it has become a language model (comparison in LOG.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from train.objectives import base
from varytoy.processing.chat_template import Special, content_pieces
from varytoy.processing.processor import IGNORED, VaryProcessor
from varytoy.settings import SettingsError

NAME = "sdpa_guided"
MAX_POSITIONS = 256
"""Most positions of a batch that the loss is computed for."""


class Guide:
    """Collects the loss of the guided heads during a forward pass of ``decoder``.

    Raises:
        SettingsError: the decoder does not have the layer or head.
    """

    def __init__(self, decoder: PreTrainedModel, settings: "GuidedAttention.Settings"):
        layers, heads = decoder.config.num_hidden_layers, decoder.config.num_attention_heads
        if not settings.layers or max(settings.layers) >= layers or min(settings.layers) < 0:
            raise SettingsError(
                f"objectives.guide.layers: {settings.layers}, but the decoder has layers 0-{layers - 1}"
            )
        if not 0 <= settings.head < heads:
            raise SettingsError(f"objectives.guide.head: {settings.head}, but the decoder has heads 0-{heads - 1}")
        self.settings = settings
        self.targets: tuple[Tensor, Tensor] | None = None
        self.losses: list[Tensor] = []
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        decoder.set_attn_implementation(NAME)
        for module in decoder.modules():
            if getattr(module, "layer_idx", None) in settings.layers and hasattr(module, "q_proj"):
                module.guide = self

    def start(self, targets: Tensor) -> None:
        """targets [B, T]: for each position the position that it should attend to, or -100.

        At most ``MAX_POSITIONS`` are sampled, because attention weights of all positions cost as much as the rest of a
        layer.
        """
        guided = (targets >= 0).any(0).nonzero().flatten()
        if len(guided) > MAX_POSITIONS:
            guided = guided[torch.randperm(len(guided))[:MAX_POSITIONS].to(guided.device)]
        self.targets, self.losses = (guided, targets[:, guided]), []

    def loss(self) -> Tensor:
        """Mean over the guided layers of -log of the attention weight on the target."""
        self.targets = None
        return torch.stack(self.losses).mean()

    def unseen(self, chosen: Tensor, length: int) -> Tensor:
        """Of ``length`` positions those that the chosen ones [N] do not see: [N, length], or [B, N, length]."""
        return torch.arange(length, device=chosen.device) > chosen[:, None]

    def add(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """query, key [B, heads, T, d], with rotary embeddings applied."""
        chosen, targets = self.targets
        head = self.settings.head
        scores = (query[:, head, chosen] @ key[:, head * key.shape[1] // query.shape[1]].mT).float() * scaling
        scores = scores.masked_fill(self.unseen(chosen, key.shape[2]), float("-inf"))
        self.losses.append(F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED))


def _attention(module, query: Tensor, key: Tensor, value: Tensor, attention_mask, scaling=None, **kwargs):
    guide = getattr(module, "guide", None)
    if guide is not None and guide.targets is not None:
        guide.add(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


@base.register
class GuidedAttention(base.Objective):
    """Targets: ``guide.positions`` [B, T], the position to attend to before each answer token is written: the position
    of the image token that shows it, at the position that predicts it; else -100."""

    name = "guide"

    @dataclass
    class Settings(base.Settings):
        layers: list[int] = field(default_factory=lambda: [1, 2, 3])
        """Layers of the decoder, from 0."""
        head: Annotated[int, Ge(0)] = 0

    @classmethod
    def check(cls, settings, recipe):
        if recipe.train.gradient_checkpointing:
            raise SettingsError(
                "objectives.guide and train.gradient_checkpointing do not go together: leave one of them out"
            )

    def __init__(self, settings):
        super().__init__(settings)
        self.guide: Guide | None = None

    def __getstate__(self):
        return {**self.__dict__, "guide": None}  # workers of the data loader need no decoder

    def setup(self, model, frozen):
        self.guide = Guide(model.language_model, self.settings)

    def targets(self, items, batch, processor):
        if not any(item.plans for item in items):
            return {}
        rows = zip(items, batch["input_ids"], batch["labels"], strict=True)
        positions = torch.stack([_positions(item, ids, labels, processor) for item, ids, labels in rows])
        return {"guide.positions": positions} if bool((positions >= 0).any()) else {}

    def begin(self, targets):
        self.guide.start(targets["guide.positions"])

    def losses(self, model, head, state):
        return {"guide": self.guide.loss()}


def _positions(item, ids: Tensor, labels: Tensor, processor: VaryProcessor) -> Tensor:
    """The targets of one sample, [T]."""
    positions = torch.full_like(ids, IGNORED)
    if not item.spots:
        return positions
    image_token = processor.tokenizer.convert_tokens_to_ids("<imgpad>")
    first, plan = int((ids == image_token).nonzero()[0]), item.plans[0]
    starts = base.answer_starts(labels)
    answers = [message["content"] for message in item.messages if message["role"] == "assistant"]
    for start, answer, spots in zip(starts, answers, item.spots, strict=True):
        token_of = _tokens(answer, processor)
        for character, x, y in spots:
            for token in token_of.get(character, ()):
                positions[start + token - 1] = first + plan.token_at(x, y)
    return positions


def _tokens(answer: str | Sequence[str], processor: VaryProcessor) -> dict[int, list[int]]:
    """Character index of the answer -> its token indices, with those of the place tokens before it."""
    tokens: dict[int, list[int]] = {}
    character = token = 0
    for piece in content_pieces(answer):
        if isinstance(piece, Special):
            tokens.setdefault(character, []).append(token)
            token += 1
            continue
        encoded = processor.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
        for number, (begin, _) in enumerate(encoded["offset_mapping"]):
            tokens.setdefault(character + begin, []).append(token + number)
        character, token = character + len(piece), token + len(encoded["input_ids"])
    return tokens
