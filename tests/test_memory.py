"""What saves memory in training gives the losses and gradients of the plain way."""

import copy
from functools import partial

import bitsandbytes
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from train.objectives.chunked_loss import chunked_cross_entropy
from train.optim.in_backward import InBackward
from train.optim.stochastic_rounding import RoundingAdamW8bit, round_stochastically
from varytoy.processing.processor import IGNORED


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes of one of these types."""

    def __init__(self, *dtypes: torch.dtype):
        super().__init__()
        self.dtypes, self.elements = dtypes, 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if torch.is_tensor(made) and made.dtype in self.dtypes:
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
    with Largest(torch.float32) as seen:
        chunked_cross_entropy(hidden, weight, labels, 10).backward()
    assert seen.elements == 10 * 1000
    with Largest(torch.float32) as seen:
        chunked_cross_entropy(hidden, weight, labels, 256).backward()
    assert seen.elements == 100 * 1000


def parts(seed: int = 0) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(12, 80), torch.nn.GELU(), torch.nn.Linear(80, 5))
    return model, [torch.randn(6, 12) for _ in range(8)]


def groups(model: torch.nn.Module) -> list[dict]:
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    return [{"params": weights, "lr": 1e-2, "weight_decay": 0.1}, {"params": others, "lr": 1e-2, "weight_decay": 0.0}]


OPTIMIZERS = {"torch": torch.optim.AdamW, "bitsandbytes": partial(bitsandbytes.optim.AdamW8bit, min_8bit_size=256)}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_steps_in_backward_are_the_steps_behind_it(make, scale):
    (plain, data), (ours, _) = parts(), parts()
    theirs, optimizer = make(groups(plain)), InBackward(groups(ours), make, scale)
    schedule = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: 1 / (1 + step)) for each in (theirs, optimizer)]
    for batch in data:
        theirs.zero_grad()
        plain(batch).square().mean().backward()
        theirs.step()
        optimizer.scaled(ours(batch).square().mean()).backward()
        assert all(parameter.grad is None for parameter in ours.parameters())
        optimizer.step()
        for each in schedule:
            each.step()
    for wanted, found in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_steps_in_backward_go_on_from_their_state():
    (whole, data), (broken, _) = parts(), parts()
    first, second = (InBackward(groups(model), OPTIMIZERS["bitsandbytes"]) for model in (whole, broken))
    for number, batch in enumerate(data):
        if number == 4:
            state = copy.deepcopy(second.state_dict())
            fresh, _ = parts(1)
            fresh.load_state_dict(broken.state_dict())
            broken, second = fresh, InBackward(groups(fresh), OPTIMIZERS["bitsandbytes"])
            second.load_state_dict(state)
        whole(batch).square().mean().backward()
        broken(batch).square().mean().backward()
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), broken.parameters(), strict=True))
    assert first.skipped == 0


def test_a_gradient_that_is_not_finite_moves_nothing_and_is_counted():
    model, data = parts()
    optimizer = InBackward(groups(model), torch.optim.AdamW)
    before = [parameter.clone() for parameter in model.parameters()]
    (model(data[0]).sum() * torch.inf).backward()
    assert optimizer.skipped == len(before)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))


def test_the_loss_scale_finds_itself():
    model = torch.nn.Linear(4, 1).half()
    optimizer = InBackward(groups(model), torch.optim.SGD, scale=0.0, patience=3, lr=1e-3)
    rows = torch.full((2, 4), 8.0, dtype=torch.float16)
    scales = []
    for _ in range(16):
        optimizer.scaled(model(rows).sum()).backward()
        scales.append(optimizer.scale)
    assert scales[0] == 2.0**15 and optimizer.skipped  # 2 * 8 * 2^15 is more than fp16 holds
    settled = scales.index(min(scales))
    assert scales[settled] == 2.0**11 and 2.0**12 in scales[settled:]  # tried again after three good steps
    again = InBackward(groups(model), torch.optim.SGD, scale=0.0, lr=1e-3)
    again.load_state_dict(optimizer.state_dict())
    assert (again.scale, again.skipped) == (optimizer.scale, optimizer.skipped)


def test_an_embedding_is_never_whole_in_32_bits():
    table = torch.nn.Embedding(2000, 64).bfloat16()
    before = table.weight.clone()
    InBackward([{"params": [table.weight]}], partial(RoundingAdamW8bit, chunk=4096), lr=1e-2)
    with Largest(torch.float32, torch.float64) as seen:
        table(torch.arange(60)).sum().backward()
    assert not torch.equal(table.weight, before)
    assert seen.elements == 4096


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_by_chance_keeps_the_mean(dtype):
    rng = torch.Generator().manual_seed(0)
    for value in (1.001, -0.3333, 3e-5, 0.0, 1.0):
        values = torch.full((20_000,), value)
        rounded = round_stochastically(values, dtype, rng).float()
        assert len(rounded.unique()) == (1 if values.to(dtype).float()[0] == value else 2)
        gap = float(rounded.max() - rounded.min())
        assert abs(float(rounded.double().mean()) - float(values[0])) <= 0.02 * gap
    assert torch.isfinite(round_stochastically(torch.full((1000,), torch.finfo(dtype).max), dtype, rng)).all()


def test_rounding_optimizer_is_bitsandbytes_where_nothing_is_rounded():
    (plain, data), (ours, _) = parts(), parts()
    theirs = bitsandbytes.optim.AdamW8bit(groups(plain), min_8bit_size=256)
    optimizer = RoundingAdamW8bit(groups(ours), chunk=300, min_8bit_size=256)
    optimizer.gradient_scale = 64.0
    for batch in data:
        plain(batch).square().mean().backward()
        (64 * ours(batch).square().mean()).backward()
        for each in (theirs, optimizer):
            each.step()
            each.zero_grad()
    for wanted, found in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_small_steps_of_16_bit_weights_are_not_lost():
    """Ten thousandth parts of a weight: to the nearest, none is taken."""
    moved = {}
    for make in (bitsandbytes.optim.AdamW8bit, RoundingAdamW8bit):
        weight = torch.nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16))
        optimizer = make([weight], lr=1e-4, weight_decay=0.0)
        for _ in range(50):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[make] = 1 - float(weight.float().mean())
    assert moved[bitsandbytes.optim.AdamW8bit] == 0
    assert moved[RoundingAdamW8bit] == pytest.approx(50 * 1e-4, rel=0.1)
