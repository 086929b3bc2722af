"""Guided attention: one head of some decoder layers is taught to look at the letter that is written next.

The renderer writes down where each letter stands, so the image token that holds it is known. Without this a small
decoder learns to look only after it has become a language model (LOG.md has the comparison).
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from train.recipe import GuideSettings, RecipeError
from varytoy.processing.processor import IGNORED

NAME = "sdpa_guided"
MOST = 256
"""Positions of a batch that are looked at."""


class Guide:
    """Collects the loss of the guided heads during a forward pass of ``decoder``.

    Raises:
        RecipeError: a layer or head that the decoder does not have.
    """

    def __init__(self, decoder: PreTrainedModel, settings: GuideSettings):
        layers, heads = decoder.config.num_hidden_layers, decoder.config.num_attention_heads
        if not settings.layers or max(settings.layers) >= layers or min(settings.layers) < 0:
            raise RecipeError(f"guide.layers: {settings.layers}, but the decoder has layers 0-{layers - 1}")
        if not 0 <= settings.head < heads:
            raise RecipeError(f"guide.head: {settings.head}, but the decoder has heads 0-{heads - 1}")
        self.settings = settings
        self.places: tuple[Tensor, Tensor] | None = None
        self.losses: list[Tensor] = []
        AttentionInterface.register(NAME, _attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        decoder.set_attn_implementation(NAME)
        for module in decoder.modules():
            if getattr(module, "layer_idx", None) in settings.layers and hasattr(module, "q_proj"):
                module.guide = self

    def start(self, places: Tensor) -> None:
        """places [B, T]: for each position the one at which it should look, or -100.

        Of many positions some are drawn by chance, for attention weights of all of them cost as much as the rest of
        a layer.
        """
        guided = (places >= 0).any(0).nonzero().flatten()
        if len(guided) > MOST:
            guided = guided[torch.randperm(len(guided))[:MOST].to(guided.device)]
        self.places, self.losses = (guided, places[:, guided]), []

    def loss(self) -> Tensor:
        """Mean over the guided layers of -log of the attention on the right place."""
        self.places = None
        return torch.stack(self.losses).mean()

    def add(self, query: Tensor, key: Tensor, scaling: float) -> None:
        """query, key [B, heads, T, d], after their rotation."""
        chosen, places = self.places
        head = self.settings.head
        scores = (query[:, head, chosen] @ key[:, head * key.shape[1] // query.shape[1]].mT).float() * scaling
        later = torch.arange(key.shape[2], device=chosen.device) > chosen[:, None]
        scores = scores.masked_fill(later, float("-inf"))
        self.losses.append(F.cross_entropy(scores.flatten(0, 1), places.flatten(), ignore_index=IGNORED))


def _attention(module, query: Tensor, key: Tensor, value: Tensor, attention_mask, scaling=None, **kwargs):
    guide = getattr(module, "guide", None)
    if guide is not None and guide.places is not None:
        guide.add(query, key, query.shape[-1] ** -0.5 if scaling is None else scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
