"""Optimizer steps inside backward: each gradient is used and freed as soon as it is complete.

So a model's gradients are never all in memory. This excludes gradient accumulation and clipping by the global norm,
which need all of them. A gradient that is not finite is skipped and counted.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

_STATE = ("skipped", "scale", "_good", "_skipped_before")


class InBackward(Optimizer):
    """One optimizer per parameter, stepped by a hook on the parameter's gradient.

    ``step`` and ``zero_grad``, which a training loop calls, do nothing.

    Args:
        groups: parameter groups, as for any optimizer. Values set by a schedule apply from the next step on.
        make: builds the optimizer of one parameter from a list of one group.
        scale: loss scale against underflow of 16-bit gradients, which are divided by it again. 0 adapts it: it is
            halved after a step with a gradient that is not finite, and doubled after ``patience`` steps without.
        defaults: default settings of the groups.

    Attributes:
        skipped: number of gradients that were not finite.
    """

    def __init__(
        self,
        groups: Iterable[dict],
        make: Callable[[list[dict]], Optimizer],
        scale: float = 1.0,
        patience: int = 1000,
        **defaults,
    ):
        super().__init__(groups, defaults)
        self.dynamic, self.patience = not scale, patience
        self.scale, self.skipped = scale or 2.0**15, 0
        self._good, self._skipped_before = 0, 0
        self.inner: dict[Tensor, Optimizer] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                self.inner[parameter] = make([{**_settings(group), "params": [parameter]}])
                parameter.register_post_accumulate_grad_hook(self._stepper(group))

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss unchanged; its gradient is multiplied by ``scale``. Called once per step."""
        if self.dynamic:
            self._good = 0 if self.skipped > self._skipped_before else self._good + 1
            if self.skipped > self._skipped_before:
                self.scale = max(self.scale / 2, 1.0)
            elif self._good > self.patience:
                self.scale, self._good = min(self.scale * 2, 2.0**24), 0
            self._skipped_before = self.skipped
        if self.scale != 1.0:
            loss.register_hook(lambda gradient: gradient * self.scale)
        return loss

    def _stepper(self, group: dict) -> Callable[[Tensor], None]:
        @torch.no_grad()
        def step(parameter: Tensor) -> None:
            # Checking only the extremes avoids the copy of the largest gradient that isfinite(gradient) would make.
            if bool(torch.isfinite(torch.stack(torch.aminmax(parameter.grad))).all()):
                optimizer = self.inner[parameter]
                optimizer.param_groups[0].update(_settings(group))
                if hasattr(optimizer, "gradient_scale"):
                    optimizer.gradient_scale = self.scale
                elif self.scale != 1.0:
                    parameter.grad.div_(self.scale)
                optimizer.step()
            else:
                self.skipped += 1
            parameter.grad = None

        return step

    def step(self, closure: Callable | None = None) -> None:
        """Does nothing: the steps were taken in backward."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Does nothing: the gradients are freed already."""

    def state_dict(self) -> dict:
        inner = [self.inner[parameter].state_dict() for group in self.param_groups for parameter in group["params"]]
        groups = [_settings(group) for group in self.param_groups]
        return {"groups": groups, "inner": inner, **{name: getattr(self, name) for name in _STATE}}

    def load_state_dict(self, state: dict) -> None:
        for group, settings in zip(self.param_groups, state["groups"], strict=True):
            group.update(settings)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter, inner in zip(parameters, state["inner"], strict=True):
            self.inner[parameter].load_state_dict(inner)
        for name in _STATE:
            setattr(self, name, state[name])


def _settings(group: dict) -> dict:
    return {name: value for name, value in group.items() if name != "params"}
