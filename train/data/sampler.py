"""Batches of like-shaped samples, so that neither pixels nor tokens are mostly padding."""

import random
from collections.abc import Sequence

from torch.utils.data import Sampler


class SizeSampler(Sampler[int]):
    """Shuffled batches of like-shaped samples: batches of a window are cut from its samples sorted by shape. ``spans``:
    as SampleDataset's."""

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
        when = {index: rank / len(order) for rank, index in enumerate(order)}
        order.sort(key=lambda index: self.spans[index][0] + self.spans[index][1] * when[index])
        once = round(min(length for _, length in self.spans) * len(order))  # samples until the first copy comes
        step = self.batch * max(min(self.window, once // self.batch), 1)
        batches = []
        for start in range(0, len(order), step):
            part = sorted(order[start : start + step], key=self.sizes.__getitem__)
            batches += [part[place : place + self.batch] for place in range(0, len(part), self.batch)]
        last = [batch for batch in batches if len(batch) < self.batch]
        batches = [batch for batch in batches if len(batch) == self.batch]
        rng.shuffle(batches)
        for batch in batches + last:
            yield from batch
