"""Times of alternating runs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

STOCK = "transformers' generate"


def timed(runs: Mapping[str, Callable], repeats: int) -> tuple[dict[str, list[float]], dict]:
    """Seconds of each run by name, taken in turns, and its last result."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            results[name] = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return seconds, results


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast, the median of neighbouring runs."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
