"""Cross-entropy of a linear layer without materialising all logits, a few hundred rows at a time.

With 151,860 tokens the logits of one page take more memory than the activations of the whole decoder. Logits are only
computed for rows with a label, not for image tokens and prompts.

torch 2.13 has linear_cross_entropy with chunks. It needs less memory but more time, and older versions, which cards
before Volta need, lack it. So this function is used with all versions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from varytoy.processing.processor import IGNORED


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int = 256, smoothing: float = 0.0
) -> Tensor:
    """Sum of the cross-entropies of ``hidden @ weight.T`` against ``labels``, in float32.

    Logits are computed one chunk at a time and recomputed in backward.

    Args:
        hidden: [..., D]; ``weight``: [V, D]; ``labels``: [...], rows with -100 are ignored.
        chunk: number of rows whose logits [chunk, V] exist at a time.
        smoothing: share of each target that is spread over all V.
    """
    supervised = labels != IGNORED
    hidden, labels = hidden[supervised], labels[supervised]
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _Loss.apply(hidden, weight, labels, chunk, smoothing)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(context, hidden: Tensor, weight: Tensor, labels: Tensor, chunk: int, smoothing: float) -> Tensor:
        context.save_for_backward(hidden, weight, labels)
        context.chunk, context.smoothing = chunk, smoothing
        total = hidden.new_zeros((), dtype=torch.float32)
        for rows, chunk_labels in zip(hidden.split(chunk), labels.split(chunk), strict=True):
            total += F.cross_entropy(  # a name for the logits would keep them while the next are made
                (rows @ weight.T).float(), chunk_labels, reduction="sum", label_smoothing=smoothing
            )
        return total

    @staticmethod
    def backward(context, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, labels = context.saved_tensors
        hidden_grad = torch.empty_like(hidden) if context.needs_input_grad[0] else None
        weight_grad = torch.zeros_like(weight) if context.needs_input_grad[1] else None
        start, smoothing = 0, context.smoothing
        for rows, chunk_labels in zip(hidden.split(context.chunk), labels.split(context.chunk), strict=True):
            logit_grad = (rows @ weight.T).float().softmax(-1)
            logit_grad[torch.arange(len(rows), device=rows.device), chunk_labels] -= 1.0 - smoothing
            if smoothing:
                logit_grad -= smoothing / weight.shape[0]
            logit_grad = (logit_grad * upstream).to(rows.dtype)
            if hidden_grad is not None:
                hidden_grad[start : start + len(rows)] = logit_grad @ weight
            if weight_grad is not None:
                weight_grad.addmm_(logit_grad.T, rows)
            start += len(rows)
        return hidden_grad, weight_grad, None, None, None
