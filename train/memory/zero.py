"""What DeepSpeed's ZeRO-2 with the optimizer on the host keeps beside the model, for the memory planner.

Read off DeepSpeed 0.19's ``stage_1_and_2.py`` and held against a real run by a test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from train.recipe import RecipeError, read_zero


@dataclass
class ZeroTerms:
    """Bytes. On the card: the bucket that gradients are gathered in, and a place for the largest one. On the host:
    everything that is kept an element (weights, gradient and two moments in 32 bits, weights in 16), and a place for
    the largest gradient."""

    bucket: int
    largest: int
    host: int


def zero_terms(path: str, sizes: Sequence[int], accumulation: int) -> ZeroTerms:
    """``sizes``: elements of each trained parameter, in 16 bits on the card.

    Raises:
        RecipeError: a configuration of another kind, which is not predicted.
    """
    settings = read_zero(path)
    offload = settings.get("offload_optimizer", {}).get("device")
    if settings.get("stage") != 2 or offload != "cpu" or settings.get("overlap_comm"):
        raise RecipeError(
            f"{path}: memory predicts DeepSpeed's stage 2 with offload_optimizer on the cpu and overlap_comm off "
            "(zero2-offload.json), or runs without DeepSpeed (train.deepspeed=)"
        )
    largest, total = max(sizes), sum(sizes)
    kept = 4 + 4 + 8 + 2 + (2 if accumulation > 1 else 0)
    return ZeroTerms(2 * int(settings.get("reduce_bucket_size", 5e8)), 2 * largest, kept * total + 2 * largest)
