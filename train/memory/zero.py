"""Memory of DeepSpeed's ZeRO-2 with the optimizer on the host, beside the model, for the memory planner.

Derived from DeepSpeed 0.19's ``stage_1_and_2.py``; a test compares it with a real run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from train.recipe import RecipeError, read_zero


@dataclass
class ZeroTerms:
    """Bytes. On the GPU: the gradient bucket, and a buffer for the largest gradient. On the host: everything stored per
    element (weights, gradient and two moments in 32 bits, weights in 16), and a buffer for the largest gradient."""

    bucket: int
    largest: int
    host: int


def zero_terms(path: str, sizes: Sequence[int], accumulation: int) -> ZeroTerms:
    """``sizes``: elements of each trained parameter, in 16 bits on the GPU.

    Raises:
        RecipeError: the configuration is not supported.
    """
    settings = read_zero(path)
    offload = settings.get("offload_optimizer", {}).get("device")
    if settings.get("stage") != 2 or offload != "cpu" or settings.get("overlap_comm"):
        raise RecipeError(
            f"{path}: memory predicts DeepSpeed's stage 2 with offload_optimizer on the cpu and overlap_comm off "
            "(zero2-offload.json), or runs without DeepSpeed (train.deepspeed=)"
        )
    largest, total = max(sizes), sum(sizes)
    bytes_per_element = 4 + 4 + 8 + 2 + (2 if accumulation > 1 else 0)
    return ZeroTerms(
        2 * int(settings.get("reduce_bucket_size", 5e8)), 2 * largest, bytes_per_element * total + 2 * largest
    )
