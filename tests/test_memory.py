"""What saves memory in training gives the losses and gradients of the plain way."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from train.chunked_loss import chunked_cross_entropy
from varytoy.processing import IGNORED


class Largest(TorchDispatchMode):
    """Elements of the largest floating-point tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if torch.is_tensor(made) and made.is_floating_point():
            self.elements = max(self.elements, made.numel())
        return made


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked_loss_is_cross_entropy(chunk):
    torch.manual_seed(0)
    hidden = torch.randn(2, 20, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 50, (2, 20))
    labels[0, :15] = labels[1, 3] = IGNORED
    plain = F.cross_entropy((hidden @ weight.T).flatten(0, 1), labels.flatten(), reduction="sum")
    wanted = torch.autograd.grad(3 * plain, (hidden, weight))
    found = chunked_cross_entropy(hidden, weight, labels, chunk)
    torch.testing.assert_close(found, plain.float())
    for ours, theirs in zip(torch.autograd.grad(3 * found, (hidden, weight)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_chunked_loss_under_autocast():
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 16, requires_grad=True), torch.randn(30, 16, requires_grad=True)
    labels = torch.randint(0, 30, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
        found = chunked_cross_entropy(hidden, weight, labels, 16)
    torch.testing.assert_close(found, plain.float(), rtol=2e-3, atol=0)
    wanted = torch.autograd.grad(plain, (hidden, weight))
    for ours, theirs in zip(torch.autograd.grad(found, (hidden, weight)), wanted, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_the_scores_live_one_chunk_long_and_only_of_what_is_taught():
    hidden, weight = torch.randn(400, 8, requires_grad=True), torch.randn(1000, 8, requires_grad=True)
    labels = torch.full((400,), IGNORED)
    labels[300:] = 5
    with Largest() as seen:
        chunked_cross_entropy(hidden, weight, labels, 10).backward()
    assert seen.elements == 10 * 1000
    with Largest() as seen:
        chunked_cross_entropy(hidden, weight, labels, 256).backward()
    assert seen.elements == 100 * 1000
