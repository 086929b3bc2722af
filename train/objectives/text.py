"""The text objective of every run: cross-entropy of the answers' tokens."""

from train.objectives.base import Objective, Settings
from train.objectives.chunked_loss import chunked_cross_entropy
from varytoy.processing.processor import IGNORED


class TextObjective(Objective):
    """Mean loss per supervised token."""

    name = "text"

    def __init__(self, smoothing: float = 0.0):
        super().__init__(Settings(1.0))
        self.smoothing = smoothing

    def has_targets(self, targets):
        return True

    def losses(self, model, head, state):
        supervised = int((state.labels != IGNORED).sum())
        weight = model.get_output_embeddings().weight
        total = chunked_cross_entropy(
            state.hidden[:, :-1], weight, state.labels[:, 1:], smoothing=self.smoothing if model.training else 0.0
        )
        return {"text": total / supervised}
