"""The optimizer steps inside backward: each gradient is used as soon as it is whole, and freed.

So the gradients of a model never stand in memory together. What needs all of them at once, accumulation and clipping by
the global norm, cannot go with it. A gradient that is not finite leaves its parameter as it was, and is counted.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

_KEPT = ("skipped", "scale", "_good", "_skipped_before")


class InBackward(Optimizer):
    """One optimizer a parameter, stepped by a hook behind the parameter's gradient.

    ``step`` and ``zero_grad``, which a training loop calls, find nothing left to do.

    Args:
        groups: parameter groups, as for any optimizer. What a schedule sets in them counts at the next step.
        make: builds the optimizer of one parameter from a list of one group.
        scale: what ``scaled`` multiplies the loss with, against gradients that 16 bits cannot hold; they are divided
            by it again. 0 finds it: it is halved after a step with a gradient that is not finite, and doubled after
            ``patience`` steps without.
        defaults: settings of groups that do not name them.

    Attributes:
        skipped: gradients that were not finite.
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
        """The loss as it is; what flows back from it is multiplied by ``scale``. Called once a step."""
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
            # The extremes tell, and unlike isfinite(gradient) they make no copies of the largest gradient.
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
        """Nothing: the steps were taken."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: the gradients are gone."""

    def state_dict(self) -> dict:
        inner = [self.inner[parameter].state_dict() for group in self.param_groups for parameter in group["params"]]
        groups = [_settings(group) for group in self.param_groups]
        return {"groups": groups, "inner": inner, **{name: getattr(self, name) for name in _KEPT}}

    def load_state_dict(self, state: dict) -> None:
        for group, settings in zip(self.param_groups, state["groups"], strict=True):
            group.update(settings)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter, inner in zip(parameters, state["inner"], strict=True):
            self.inner[parameter].load_state_dict(inner)
        for name in _KEPT:
            setattr(self, name, state[name])


def _settings(group: dict) -> dict:
    return {name: value for name, value in group.items() if name != "params"}
