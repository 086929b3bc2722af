"""Guided copying: where an answer stands in the prompt's text, heads of the decoder are supervised to attend to it.

A small decoder needs very long to find out by itself that it can copy (LOG.md). One head learns to attend to the token
before each token, and one of a later layer to the token of the text that the answer goes on with.
"""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from train.objectives import base
from train.objectives.guided_attention import Guide, GuidedAttention
from varytoy.processing.processor import IGNORED

_LEAST = 2
"""Tokens of an answer; one alone stands anywhere."""


class _GuideInSegments(Guide):
    """A guide whose heads see what the decoder sees in packed rows: what all parts share, and the own part."""

    segments: Tensor | None = None
    """[B, T] (train.data.packing)."""

    def unseen(self, chosen: Tensor, length: int) -> Tensor:
        assert self.segments is not None
        own = self.segments[:, None, :] == self.segments[:, chosen, None]
        return super().unseen(chosen, length) | ~(own | (self.segments[:, None, :] == 0))


@base.register
class GuidedCopying(base.Objective):
    """Targets [B, T]: ``copying.sources``, at the position that predicts an answer's token its position in the text of
    the prompt, if the answer stands there; ``copying.before``, the position before each token of the text; else -100;
    and ``copying.segments``."""

    name = "copying"

    @dataclass
    class Settings(base.Settings):
        layers: list[int] = field(default_factory=lambda: [2, 3])
        """Layers of the decoder, from 0, of which a head attends to what is copied."""
        layers_before: list[int] = field(default_factory=lambda: [1])
        """Layers of which a head attends to the token before."""
        head: Annotated[int, Ge(0)] = 0

    check = GuidedAttention.check

    def __init__(self, settings):
        super().__init__(settings)
        self.guides: dict[str, _GuideInSegments] = {}

    def __getstate__(self):
        return {**self.__dict__, "guides": {}}

    def setup(self, model, frozen):
        layers = {"sources": self.settings.layers, "before": self.settings.layers_before}
        shapes = {name: GuidedAttention.Settings(1.0, own, self.settings.head) for name, own in layers.items()}
        self.guides = {name: _GuideInSegments(model.language_model, shape) for name, shape in shapes.items()}

    def targets(self, items, batch, processor):
        ids, labels = batch["input_ids"], batch["labels"]
        segments = batch.get("segments")
        if segments is None:
            segments = torch.zeros_like(ids)
        sources = torch.full_like(ids, IGNORED)
        for row in range(len(ids)):
            shared = int((segments[row] == 0).long().cumprod(0).sum())  # what all parts of a packed row see
            _fill_sources(sources[row], ids[row].tolist(), labels[row], shared)
        if not bool((sources >= 0).any()):
            return {}
        places = torch.arange(ids.shape[1]).expand_as(ids)
        before = torch.where((segments == 0) & (places > 0), places - 1, IGNORED)
        return {"copying.sources": sources, "copying.before": before, "copying.segments": segments}

    def begin(self, targets):
        for name, guide in self.guides.items():
            guide.segments = targets["copying.segments"]
            guide.start(targets[f"copying.{name}"])

    def losses(self, model, head, state):
        return {f"copying_{name}": guide.loss() for name, guide in self.guides.items()}


def _fill_sources(sources: Tensor, ids: list[int], labels: Tensor, shared: int) -> None:
    """The targets of one row [T]. An answer is looked for, token by token, in the row's first ``shared`` tokens, before
    its first answer; its last token, which ends the turn, is none of the text's."""
    starts = base.answer_starts(labels)
    if not starts:
        return
    text = ids[: min(starts[0], shared)]
    for start in starts:
        end = next((at for at in range(start, len(ids)) if labels[at] == IGNORED), len(ids))
        found = _find(ids[start : end - 1], text) if end - 1 - start >= _LEAST else None
        if found is None:
            continue
        for number in range(end - 1 - start):
            sources[start + number - 1] = found + number


def _find(part: list[int], text: list[int]) -> int | None:
    """Where a part stands in a text for the first time, leaving out its first token if it begins otherwise there."""
    for skipped in (0, 1):
        wanted = part[skipped:]
        for at in range(skipped, len(text) - len(wanted) + 1) if wanted else ():
            if text[at : at + len(wanted)] == wanted:
                return at - skipped
    return None
