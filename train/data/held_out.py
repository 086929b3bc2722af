"""Samples that are held out of training, to be asked instead of taught."""

import hashlib
import math
from collections.abc import Iterable, Sequence

from varytoy.data.sample import Sample


def picture_of(sample: Sample) -> str:
    """What samples about one picture have in common; a text's own id."""
    return sample.images[0] if sample.images else sample.id


def held_out_pictures(samples: Iterable[Sample], share: float) -> set[str]:
    """``picture_of`` of a share of all pictures, at least of one if there are several. The choice depends on nothing
    but their names, so that another run holds out the same."""
    names = sorted({picture_of(sample) for sample in samples}, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = math.ceil(share * len(names)) if len(names) > 1 else 0
    return set(names[:count])


def split(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """The samples to train on, and those of the pictures that are held out."""
    chosen = held_out_pictures(samples, share) if share else set()
    kept = [sample for sample in samples if picture_of(sample) not in chosen]
    return kept, [sample for sample in samples if picture_of(sample) in chosen]
