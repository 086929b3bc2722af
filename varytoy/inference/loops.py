"""Repetitions: finding them at the end of an answer, and keeping n-grams from coming again."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedTokenizerBase

EVERY = 8
"""Tokens between two looks for a loop."""


def repeated_tail(ids: Sequence[int], longest: int = 120, least: int = 60, leaders: int = 200, times: int = 4) -> int:
    """Period of the repetition at the end of ``ids``, or 0.

    A tail counts if a period of up to ``longest`` tokens occurs at least ``times`` times and covers at least ``least``
    tokens, or ``leaders`` for a period of up to 3, as in the ``.....`` of a table of contents and the ``_ _ _`` of a
    form.
    """
    for period in range(1, min(longest, len(ids) // times) + 1):
        if _repeats(ids, period, max(least, period * times)):
            return period if period > 3 or _repeats(ids, period, leaders) else 0
    return 0


def _repeats(ids: Sequence[int], period: int, length: int) -> bool:
    """Whether the last ``length`` of ``ids`` have that period."""
    return length <= len(ids) and all(ids[-step] == ids[-step - period] for step in range(1, length - period + 1))


def without_loop(ids: list[int], period: int) -> list[int]:
    """Keep the first copy of the repeated tail, from where it begins to repeat."""
    start = len(ids) - period
    while start > 0 and ids[start - 1] == ids[start - 1 + period]:
        start -= 1
    return ids[: start + period]


@dataclass(frozen=True)
class Once:
    """An n-gram comes once in a window of an answer.

    Attributes:
        size: tokens of an n-gram.
        window: tokens before the next one that are looked at; 0 for the whole answer.
        allowed: tokens that may always come, such as those of a table's tags.
    """

    size: int
    window: int = 0
    allowed: frozenset[int] = frozenset()

    @classmethod
    def of(cls, settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> "Once | None":
        """As a generation configuration says: ``no_repeat_ngram_size``, and our ``no_repeat_window`` and
        ``no_repeat_allowed`` (a list of tokens); None without a size. The prompt does not count, unlike in
        transformers' ``generate``."""
        size = settings.no_repeat_ngram_size or 0
        allowed = tokenizer.convert_tokens_to_ids(list(getattr(settings, "no_repeat_allowed", None) or []))
        return cls(size, getattr(settings, "no_repeat_window", None) or 0, frozenset(allowed)) if size else None

    def banned(self, ids: Sequence[int]) -> set[int]:
        """Tokens that would end an n-gram which was there before."""
        recent = list(ids[-self.window :] if self.window else ids)
        known = self.size - 1
        end = recent[len(recent) - known :]
        starts = range(len(recent) - known)
        return {recent[at + known] for at in starts if recent[at : at + known] == end} - self.allowed


class NoRepeats(LogitsProcessor):
    """``Once`` in transformers' ``generate``; an answer begins at ``start``."""

    def __init__(self, once: Once, start: int):
        self.once, self.start = once, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.clone()
        for row, ids in enumerate(input_ids[:, self.start :].tolist()):
            if banned := self.once.banned(ids):
                scores[row, list(banned)] = -torch.inf
        return scores
