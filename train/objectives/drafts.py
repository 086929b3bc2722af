"""Drafts: trains the model's head for letters (varytoy.models.letters), whose readings the decoder checks."""

import torch
from torch.nn import functional as F

from train.objectives import base
from train.objectives.balanced import balanced_loss
from train.objectives.letters import fill_symbols
from varytoy.models.letters import FRAMES
from varytoy.processing.processor import IGNORED

_NONE = float("nan")


@base.register
class Drafts(base.Objective):
    """Targets [I, h, w * FRAMES]: ``drafts.symbols``, ``drafts.begins`` (-100 where there is no letter) and
    ``drafts.heights`` (NaN there). For samples whose answer is the printed text, with the letters' places."""

    name, has_head = "drafts", True

    @property
    def warmup_weight(self):
        return 1.0

    def setup(self, model, frozen):
        if model.letters is None:
            raise ValueError("objectives.drafts: this model has no head for letters: use a preset with 'letters'")
        self.branches = ("vocabulary",)
        self.characters = model.config.letters

    def targets(self, items, batch, processor):
        images = [(item.sample, plan) for item in items for plan in item.plans]
        if not images:
            return {}
        numbers = {character: number for number, character in enumerate(self.characters, 1)}
        (down, across), (height, width) = images[0][1].stride, batch["pixel_values"].shape[-2:]
        shape = (len(images), height // down, width // across * FRAMES)
        symbols, begins = (torch.full(shape, IGNORED) for _ in range(2))
        heights = torch.full(shape, _NONE)
        for image, (sample, plan) in enumerate(images):
            points, starts = sample.annotations.points, _word_starts(sample.answer, sample.annotations.letters or "")
            if not points or starts is None:
                continue
            cells = fill_symbols(symbols[image], sample, plan, FRAMES, numbers)
            for (row, column), (_, y), start in zip(cells, points, starts, strict=True):
                begins[image, row, column] = int(start)
                heights[image, row, column] = y / plan.size[1] * plan.scaled[1] / down - row
        return {"drafts.symbols": symbols, "drafts.begins": begins, "drafts.heights": heights}

    def losses(self, model, head, state):
        reading, targets = model.letters(state.features["vocabulary"]), state.targets
        loss = balanced_loss(reading.symbols, targets["drafts.symbols"])
        known = targets["drafts.begins"] != IGNORED
        if bool(known.any()):
            begins = targets["drafts.begins"][known].float()
            loss = loss + F.binary_cross_entropy_with_logits(reading.begins[known].float(), begins)
            loss = loss + F.l1_loss(reading.heights[known].float(), targets["drafts.heights"][known])
        return {"drafts": loss}


def _word_starts(answer: str, letters: str) -> list[bool] | None:
    """Of each letter, whether it begins a word of the answer; None where they are not the answer's."""
    if "".join(answer.split()) != letters:
        return None
    return [number == 0 for word in answer.split() for number in range(len(word))]
