"""Muon: steps of matrices are orthogonalised momentum (Jordan et al. 2024); everything else gets AdamW's.

By hand, because torch.optim.Muon (2.13) orthogonalises in bf16, which takes 24 times as long as fp32 on a CPU without
bf16 instructions, and takes matrices only.
"""

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MATRICES = "matrices"
"""Key of a parameter group: whether its parameters are matrices with Muon's steps."""


class Muon(Optimizer):
    """Parameter groups with ``matrices: True`` get Muon's steps with the rate ``lr`` times ``scale``, others AdamW's.

    Args:
        scale: Muon's rate relative to AdamW's; its steps have a fixed size.
    """

    def __init__(
        self,
        params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        scale: float = 15.0,
        momentum: float = 0.95,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, MATRICES: False}
        super().__init__(params, defaults | {"scale": scale, "momentum": momentum})
        others = [group for group in self.param_groups if not group[MATRICES]]
        self.others = AdamW(others, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay) if others else None
        if self.others is not None:
            self.others.param_groups = others  # schedules change these
            self.others.state = self.state

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group[MATRICES]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._step(parameter, group)
        if self.others is not None:
            self.others.state = self.state  # loading a checkpoint replaces it
            self.others.param_groups = [group for group in self.param_groups if not group[MATRICES]]
            self.others.step()
        return loss

    def _step(self, parameter: Tensor, group: dict) -> None:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum, rate = state["momentum"], group["lr"] * group["scale"]
        momentum.lerp_(parameter.grad, 1 - group["momentum"])
        update = orthogonalise(parameter.grad.lerp(momentum, group["momentum"]))
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.add_(update, alpha=-rate * max(1, parameter.shape[0] / parameter.shape[1]) ** 0.5)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly the orthogonal factor of a matrix [m, n]: singular values go to about 0.7-1.2 (Newton-Schulz)."""
    first, second, third = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        square = wide @ wide.T
        wide = first * wide + (second * square + third * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def is_matrix(model: nn.Module, part: str, parameter: Tensor) -> bool:
    """Whether a parameter gets Muon's steps: matrices between the layers of decoder and connector, not embeddings."""
    tables = (model.get_input_embeddings().weight, getattr(model.get_output_embeddings(), "weight", None))
    return part in ("connector", "language_model") and parameter.ndim == 2 and all(parameter is not t for t in tables)
