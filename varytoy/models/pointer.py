"""Pointer: the box that a decoder is about to write, found in the image's tokens."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SPREAD = 1.7
"""Half a side of an evenly covered box in standard deviations (the square root of 3)."""


class Pointed(NamedTuple):
    """``boxes`` [N, 4]: x1, y1, x2, y2 as fractions of the image; ``scores`` [N, P]: attention before its softmax."""

    boxes: Tensor
    scores: Tensor


class Pointer(nn.Module):
    """States of the decoder attend over the image's tokens. The attention's mean and spread give a box, which a small
    net corrects with what it finds there.

    Args:
        width: channels of states and image tokens.
        grid: rows and columns of the image's tokens.
    """

    def __init__(self, width: int, grid: tuple[int, int], hidden: int = 256):
        super().__init__()
        rows, columns = grid
        self.query = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.correction = nn.Sequential(
            nn.Linear(2 * width + 8 + rows * columns, hidden), nn.SiLU(), nn.Linear(hidden, 4)
        )
        self.grid = grid

    def centres(self, like: Tensor) -> Tensor:
        """x and y of each token's middle [P, 2], as fractions of the image."""
        y, x = ((torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count for count in self.grid)
        return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], 1)

    def forward(self, states: Tensor, rows: Tensor, images: Tensor) -> Pointed:
        """States [N, D], image tokens [I, P, D] and the number of each state's image [N]."""
        query = self.query(states)
        scores = torch.einsum("nk,npk->np", query, self.key(rows)[images]) / query.shape[1] ** 0.5
        weights = scores.softmax(-1)
        centres = self.centres(weights)
        mean = weights @ centres
        spread = (weights[..., None] * (centres - mean[:, None]) ** 2).sum(1).clamp(min=1e-6).sqrt()
        seen = torch.einsum("np,npk->nk", weights, self.value(rows)[images])
        box = torch.cat([mean - _SPREAD * spread, mean + _SPREAD * spread], 1)
        found = torch.cat([query, seen, mean, spread, box, weights * 5], 1)
        return Pointed((box + self.correction(found)).clamp(-0.2, 1.2), scores)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union (arXiv 1902.09630) of xyxy boxes [N, 4], -1 to 1."""
    corners, others = torch.maximum(first, second), torch.minimum(first, second)
    both = (others[:, 2] - corners[:, 0]).clamp(0) * (others[:, 3] - corners[:, 1]).clamp(0)
    union = _area(first) + _area(second) - both
    around = (corners[:, 2] - others[:, 0]) * (corners[:, 3] - others[:, 1])
    return both / (union + 1e-6) - (around - union) / (around + 1e-6)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]).clamp(0) * (boxes[:, 3] - boxes[:, 1]).clamp(0)


def coverage(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each box [N, 4] that lies in each cell of a grid, [N, P], which sums to 1."""
    sides = []
    for (low, high), count in zip(((1, 3), (0, 2)), grid, strict=True):
        edges = torch.linspace(0, 1, count + 1, device=boxes.device)
        inside = torch.minimum(edges[1:], boxes[:, high, None]) - torch.maximum(edges[:-1], boxes[:, low, None])
        sides.append(inside.clamp(0))
    cells = torch.einsum("nh,nw->nhw", *sides).flatten(1)
    return F.normalize(cells, p=1, dim=1)
