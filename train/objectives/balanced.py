"""A cross-entropy for maps that are mostly empty."""

from torch import Tensor
from torch.nn import functional as F

from varytoy.processing.processor import IGNORED


def balanced_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of scores [I, h, w, ...] against targets [I, h, w (* frames)], 0 for nothing, -100 for unknown.

    The places with nothing, which are most, weigh as much together as the others.
    """
    scores, targets = scores.float().reshape(targets.numel(), -1), targets.flatten()
    losses = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="none")
    things, nothing = targets > 0, targets == 0
    return losses[things].sum() / things.sum().clamp(min=1) + losses[nothing].sum() / nothing.sum().clamp(min=1)
