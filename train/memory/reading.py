"""Phases of reading on fake tensors: one forward pass over all images and prompts, and one for the last token of the
answers, when the key-value cache is largest."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import DynamicCache

from varytoy.models.vary import CACHE

PROMPT = 40
"""Tokens of system text, question and template."""


def read(
    model: nn.Module,
    batch: dict[str, Tensor],
    length: int,
    dtype: torch.dtype,
    tracker,
    fake: FakeTensorMode,
    name: str = "",
) -> None:
    """Run both phases in ``tracker`` (train.memory.plan).

    Args:
        batch: of ``dummy_batch``, without labels; it is emptied.
        length: tokens of prompt and answer together.
        dtype: of keys and values.
        name: begins the names of the phases.
    """
    text = model.config.text_config
    heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
    rows = len(batch["input_ids"])
    with torch.no_grad():
        tracker.phase = f"{name}pictures and prompt"
        first = model(**batch, use_cache=True, logits_to_keep=1)
        del first
        batch.clear()
        tracker.phase = f"{name}last token"
        cache = DynamicCache()
        with fake:
            shape = (rows, heads, length - 1, text.hidden_size // text.num_attention_heads)
            kept = [torch.empty(shape, dtype=dtype) for _ in range(2 * text.num_hidden_layers)]
        for number in range(text.num_hidden_layers):
            pair = kept[2 * number : 2 * number + 2]
            for tensor in pair:
                tracker.add(tensor, "keys and values")
            cache.update(*pair, number)
        del kept, pair, tensor
        model(torch.zeros(rows, 1, dtype=torch.long), use_cache=True, logits_to_keep=1, **{CACHE: cache})
