"""Several questions about one image in one row: they share the image's tokens and do not see each other.

A row is the common beginning of the conversations (up to the image's end), then what follows it in each. Positions
begin anew behind the beginning, so every question stands where it would stand alone.
"""

from collections.abc import Sequence
from os.path import commonprefix

import torch
from torch import Tensor

from varytoy.processing.processor import IGNORED


def pack(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[tuple[list[int], list[int]], list[int]]:
    """Encoded conversations (ids, labels) -> one of all, and for each token the number of its conversation from 1, or 0
    for the common beginning."""
    shared = len(commonprefix([ids for ids, _ in rows]))
    shared = min(shared, *(_before_targets(labels) for _, labels in rows))
    ids, labels = list(rows[0][0][:shared]), list(rows[0][1][:shared])
    segments = [0] * shared
    for number, (own_ids, own_labels) in enumerate(rows, 1):
        ids += own_ids[shared:]
        labels += own_labels[shared:]
        segments += [number] * (len(own_ids) - shared)
    return (ids, labels), segments


def _before_targets(labels: Sequence[int]) -> int:
    """Tokens before the one that the first target is predicted from, which each conversation has for itself."""
    return next((index for index, label in enumerate(labels) if label != IGNORED), len(labels)) - 1


def segment_tensors(rows: Sequence[Sequence[int]], shape: tuple[int, int]) -> dict[str, Tensor]:
    """``segments`` [B, T], -1 in padding, and ``position_ids`` [B, T]; an empty row is one conversation."""
    segments = torch.full(shape, -1)
    positions = torch.arange(shape[1]).expand(shape).clone()
    for number, row in enumerate(rows):
        if not row:
            segments[number] = 0
            continue
        own = torch.tensor(row)
        segments[number, : len(row)] = own
        counts = torch.bincount(own)
        inside = torch.arange(len(row)) - (torch.cumsum(counts, 0) - counts)[own]
        positions[number, : len(row)] = torch.where(own == 0, inside, counts[0] + inside)
    return {"segments": segments, "position_ids": positions}


def segment_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T] -> additive attention mask [B, 1, T, T]: a token sees earlier ones of its own part and what is shared.

    Padding sees what is shared, and other padding before it.
    """
    length = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    allowed = causal & ((key == 0) | (key == query))
    mask = torch.zeros(allowed.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
