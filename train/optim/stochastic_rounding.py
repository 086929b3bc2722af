"""AdamW with 8-bit state for 16-bit weights: the update is computed in 32 bits, a chunk at a time, and rounded
stochastically.

Neighbouring numbers differ by at least 2^-8 of a weight in bfloat16, by 2^-11 in float16, and most updates are less
than half of that. Rounding to nearest drops all such updates; stochastic rounding keeps their expected sum correct.
"""

import torch
from bitsandbytes import functional
from bitsandbytes.optim import AdamW8bit
from torch import Tensor

_BLOCK = 256  # elements that share a scale in bitsandbytes' state


class RoundingAdamW8bit(AdamW8bit):
    """bitsandbytes' 8-bit AdamW, stepping 16-bit parameters in 32 bits with stochastic rounding.

    Args:
        chunk: number of elements that are processed in 32 bits at a time.
        seed: of the rounding; each step of a parameter uses new random numbers.
        nearest: round to nearest instead, for comparison.
        settings: as bitsandbytes'.

    Attributes:
        gradient_scale: gradients are divided by this, in 32 bits.
    """

    def __init__(self, params, chunk: int = 1 << 22, seed: int = 0, nearest: bool = False, **settings):
        super().__init__(params, **settings)
        self.chunk, self.seed, self.gradient_scale = -(-chunk // _BLOCK) * _BLOCK, seed, 1.0
        self.nearest = nearest

    @torch.no_grad()
    def update_step(self, group, p, gindex, pindex):
        state, config = self.state[p], self.get_config(gindex, pindex, group)
        state["step"] += 1
        beta1, beta2 = config["betas"][:2]
        rest = (config["eps"], state["step"], config["lr"])
        common = dict(weight_decay=config["weight_decay"], gnorm_scale=1.0 / self.gradient_scale)
        rng = torch.Generator(p.device).manual_seed(self.seed + state["step"])
        flat, gradient = p.data.view(-1), p.grad.reshape(-1)
        for start in range(0, flat.numel(), self.chunk):
            part = slice(start, start + self.chunk)
            weight, slope = flat[part].float(), gradient[part].float()
            first, second = (state[name].view(-1)[part] for name in ("state1", "state2"))
            if first.dtype == torch.float32:  # bitsandbytes keeps the state of small tensors in 32 bits
                functional.optimizer_update_32bit("adam", slope, weight, first, beta1, *rest, second, beta2, **common)
            else:
                blocks = slice(start // _BLOCK, -(-(start + self.chunk) // _BLOCK))
                scales = (state["absmax1"][blocks], state["absmax2"][blocks])
                tables = (state["qmap1"], state["qmap2"])
                functional.optimizer_update_8bit_blockwise(
                    "adam", slope, weight, first, second, beta1, beta2, 0.0, 0.0, *rest, *tables, *scales, **common
                )
            plain = self.nearest or p.dtype == torch.float32
            flat[part] = weight.to(p.dtype) if plain else round_stochastically(weight, p.dtype, rng)


def round_stochastically(values: Tensor, dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    """float32 -> ``dtype`` (bfloat16, float16): one of the two neighbours, with probabilities that make the expected
    value exact."""
    near = values.to(dtype)
    remainder = values - near.float()
    direction = torch.where(remainder > 0, torch.inf, -torch.inf).to(dtype)
    far = torch.nextafter(near, direction)
    gap = (far.float() - near.float()).abs()
    probability = torch.where(gap > 0, remainder.abs() / gap, 0.0)
    draws = torch.rand(values.shape, generator=rng, device=values.device)
    return torch.where((draws < probability) & torch.isfinite(far), far, near)
