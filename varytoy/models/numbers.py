"""Numbers: a head that estimates a chart's values beside the text that the decoder writes (OneChart, arXiv 2404.09987).

It reads the decoder's last state at the end of the prompt, which predicts the answer's first token and has seen image
and question. OneChart adds a special token there, at the beginning of the answer. Its state sees no more than this one;
without it the tokenizer and the answers stay as they are, and a model that is trained already gets the head without a
new row in its embeddings.
"""

from collections.abc import Sequence
from math import isfinite

from torch import Tensor, nn


class NumberHead(nn.Sequential):
    """States [..., width] of the decoder -> ``count`` values of the chart [..., count], scaled as by ``normalised``;
    those behind the chart's last have no meaning.

    Args:
        width: channels of the states.
        count: most values of a chart.
    """

    def __init__(self, width: int, count: int):
        hidden = max(width // 2, 1)
        super().__init__(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, count)
        )

    def initialise(self, module: nn.Module) -> bool:
        """Initialise a layer of this head as PyTorch does; from transformers' small weights the L1 loss moves little.
        Returns whether the module is one."""
        own = any(module is layer for layer in self)
        if own and isinstance(module, nn.Linear):
            module.reset_parameters()
        return own


def normalised(values: Sequence[float]) -> list[float]:
    """The values scaled so that the least is 0 and the greatest 1; empty if they do not differ."""
    least, greatest = min(values, default=0.0), max(values, default=0.0)
    span = greatest - least
    return [(value - least) / span for value in values] if span > 0 and isfinite(span) else []


def gap(estimated: Tensor, values: Sequence[float]) -> float | None:
    """Mean difference between a head's estimate [N] and the values, as a share of the values' range; None for values
    that do not differ or are more than N."""
    scaled = normalised(values)
    if not scaled or len(scaled) > len(estimated):
        return None
    found = estimated[: len(scaled)].float().tolist()
    return sum(abs(one - other) for one, other in zip(found, scaled, strict=True)) / len(scaled)
