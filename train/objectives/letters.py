"""Letters: a head on the vision vocabulary's tokens that reads, by CTC or with the position of each letter.

A line of text runs over a whole row of tokens, so the rows joined in reading order are one long line: the encoder
learns to write each line in one of the rows that it covers and blanks in the others. Single lines come first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from train.objectives import base
from train.objectives.balanced import balanced_loss
from varytoy.data.sample import Sample
from varytoy.processing.plan import ImagePlan
from varytoy.processing.processor import IGNORED
from varytoy.settings import SettingsError


@base.register
class Letters(base.Objective):
    """Targets: ``letters.frames`` [I, h, w * frames], or for CTC ``letters.symbols`` of all images one after another
    with ``letters.lengths`` [I]."""

    name, has_head = "letters", True

    @dataclass
    class Settings(base.Settings):
        frames: Annotated[int, Ge(1)] = 3
        """CTC frames a token, left to right."""
        aligned: bool = False
        """Teach the head each letter at its place, which our renderers write down, instead of the CTC loss."""
        characters: str = "".join(chr(code) for code in range(33, 127)) + " "

    def __init__(self, settings):
        super().__init__(settings)
        self.symbols = {character: number for number, character in enumerate(settings.characters, 1)}

    @classmethod
    def check(cls, settings, recipe):
        if "vision_vocabulary" in recipe.freeze:
            raise SettingsError(
                "objectives.letters trains the vision vocabulary, but freeze lists it: drop one of the two"
            )

    @property
    def warmup_weight(self):
        return 1.0

    def setup(self, model, frozen):
        self.branches = ("vocabulary",)
        width = model.config.vocabulary_config.output_size
        return nn.Linear(width, self.settings.frames * (len(self.settings.characters) + 1))

    def targets(self, items, batch, processor):
        images = [(item.sample, plan) for item in items for plan in item.plans]
        if not images:
            return {}
        if self.settings.aligned:
            return {"letters.frames": self._frames(images, batch)}
        targets = [self._symbols(sample) for sample, _ in images]
        symbols = torch.tensor([symbol for target in targets for symbol in target], dtype=torch.long)
        return {"letters.symbols": symbols, "letters.lengths": torch.tensor([len(target) for target in targets])}

    def _frames(self, images: Sequence[tuple[Sample, ImagePlan]], batch) -> Tensor:
        """The target of each frame: a symbol at a letter's centre, -100 beside it, else 0 (blank)."""
        frames = self.settings.frames
        (down, across), (height, width) = images[0][1].stride, batch["pixel_values"].shape[-2:]
        targets = torch.full((len(images), height // down, width // across * frames), IGNORED)
        for target, (sample, plan) in zip(targets, images, strict=True):
            points = sample.annotations.points
            if not points and sample.answer:
                continue
            fill_symbols(target, sample, plan, frames, self.symbols)
        return targets

    def _symbols(self, sample: Sample) -> list[int]:
        """Symbols of the printed text without line breaks; empty for samples of other tasks."""
        if sample.task not in ("ocr", "markdown") or len(sample.images) != 1:
            return []
        text = sample.annotations.plain_text
        text = sample.answer if text is None else text
        return [self.symbols[character] for character in text if character in self.symbols]

    def losses(self, model, head, state):
        features = state.features["vocabulary"]
        if "letters.frames" in state.targets:
            return {"letters": balanced_loss(head(features), state.targets["letters.frames"])}
        return {"letters": self._ctc(model, head, features, state)}

    def _ctc(self, model, head: nn.Module, features: Tensor, state: base.State) -> Tensor:
        """Mean loss per character over the images that have a target; features [I, h, w, D]."""
        symbols, lengths = state.targets["letters.symbols"], state.targets["letters.lengths"]
        has_target = lengths > 0
        if not bool(has_target.any()):
            return features.sum() * 0.0
        down, across = model.config.vocabulary_config.stride
        frames = []
        for image, (height, width) in zip(features[has_target], state.image_sizes[has_target].tolist(), strict=True):
            scores = head(image[: height // down, : width // across]).float()
            frames.append(scores.reshape(scores.shape[0] * scores.shape[1] * self.settings.frames, -1))
        padded = nn.utils.rnn.pad_sequence(frames).log_softmax(-1)
        frame_lengths = torch.tensor([scores.shape[0] for scores in frames])
        losses = F.ctc_loss(padded, symbols, frame_lengths, lengths[has_target], reduction="none", zero_infinity=True)
        return losses.sum() / lengths.sum()


def fill_symbols(
    target: Tensor, sample: Sample, plan: ImagePlan, frames: int, symbols: Mapping[str, int]
) -> list[tuple[int, int]]:
    """Fill the target [h, w * frames] of an image: the symbol of each letter at its centre, -100 beside it, else 0.
    Returns the letters' frames (row, column)."""
    grid = target[: plan.grid.rows, : plan.grid.columns * frames]
    grid.fill_(0)
    cells = [plan.cell(x / plan.size[0], y / plan.size[1], across=frames) for x, y in sample.annotations.points]
    for row, column in cells:
        grid[row, max(column - 1, 0) : column + 2] = IGNORED
    for letter, (row, column) in zip(sample.annotations.letters, cells, strict=True):
        grid[row, column] = symbols.get(letter, IGNORED)
    return cells
