"""Numbers: trains the model's head for a chart's values (varytoy.models.numbers), by the L1 loss of OneChart (arXiv
2404.09987)."""

import torch

from train.objectives import base
from varytoy.formats import chart
from varytoy.models.numbers import normalised
from varytoy.processing.chat_template import Special, content_pieces

_NONE = float("nan")


@base.register
class Numbers(base.Objective):
    """Targets: ``numbers.positions`` [N, 2] (row, position), from which the first token of a chart's answer is
    predicted, and ``numbers.values`` [N, V], its values row by row, scaled to 0-1, NaN behind the last. None for
    answers about no image, answers that are no chart's, and charts of equal values or of more than the head has."""

    name = "numbers"

    def setup(self, model, frozen):
        if model.numbers is None:
            raise ValueError("objectives.numbers: this model has no head for numbers: use a preset with 'numbers'")
        self.most = model.config.numbers

    def targets(self, items, batch, processor):
        found = []
        for row, item in enumerate(items):
            answers = [each["content"] for part in item.parts for each in part if each["role"] == "assistant"]
            if not item.images:
                continue
            for start, answer in zip(base.answer_starts(batch["labels"][row]), answers, strict=True):
                values = normalised(chart.values(_plain(answer)))
                if values and len(values) <= self.most:
                    found.append(((row, start - 1), values))
        if not found:
            return {}
        padded = torch.full((len(found), max(len(values) for _, values in found)), _NONE)
        for target, (_, values) in zip(padded, found, strict=True):
            target[: len(values)] = torch.tensor(values)
        return {"numbers.positions": torch.tensor([place for place, _ in found]), "numbers.values": padded}

    def losses(self, model, head, state):
        (rows, positions), values = state.targets["numbers.positions"].T, state.targets["numbers.values"]
        estimated = model.numbers(state.hidden[rows, positions])[:, : values.shape[1]].float()
        known = ~values.isnan()
        return {"numbers": (estimated - values.float())[known].abs().mean()}


def _plain(answer: str | list[str]) -> str:
    """An answer without its place tokens."""
    return "".join(piece for piece in content_pieces(answer) if not isinstance(piece, Special))
