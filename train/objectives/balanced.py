"""A balanced cross-entropy for sparse target maps."""

from torch import Tensor
from torch.nn import functional as F

from varytoy.processing.processor import IGNORED


def balanced_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of scores [I, h, w, ...] against targets [I, h, w (* frames)], 0 for background, -100 for ignored.

    The background positions, which are the majority, have the same total weight as the others.
    """
    scores, targets = scores.float().reshape(targets.numel(), -1), targets.flatten()
    losses = F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="none")
    foreground, background = targets > 0, targets == 0
    total = losses[foreground].sum() / foreground.sum().clamp(min=1)
    return total + losses[background].sum() / background.sum().clamp(min=1)
