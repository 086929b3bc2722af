"""Batches of similarly shaped samples, so that neither pixels nor tokens are mostly padding."""

import random
from collections.abc import Sequence

from torch.utils.data import Sampler


class SizeSampler(Sampler[int]):
    """Shuffled batches of similarly shaped samples: each window of samples is sorted by shape and cut into batches.
    ``spans``: see SampleDataset."""

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        spans: Sequence[tuple[float, float]],
        batch: int,
        seed: int,
        window: int = 64,
    ):
        self.sizes, self.spans, self.batch = list(sizes), list(spans), batch
        self.seed, self.window, self.epoch = seed, window, 0

    def __len__(self) -> int:
        return len(self.sizes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        rng = random.Random(f"{self.seed}:{self.epoch}")
        order = list(range(len(self.sizes)))
        rng.shuffle(order)
        rank_of = {index: rank / len(order) for rank, index in enumerate(order)}
        order.sort(key=lambda index: self.spans[index][0] + self.spans[index][1] * rank_of[index])
        once = round(min(length for _, length in self.spans) * len(order))  # samples until the first repeat
        step = self.batch * max(min(self.window, once // self.batch), 1)
        batches = []
        for start in range(0, len(order), step):
            part = sorted(order[start : start + step], key=self.sizes.__getitem__)
            batches += [part[offset : offset + self.batch] for offset in range(0, len(part), self.batch)]
        incomplete = [batch for batch in batches if len(batch) < self.batch]
        batches = [batch for batch in batches if len(batch) == self.batch]
        rng.shuffle(batches)
        for batch in batches + incomplete:
            yield from batch
