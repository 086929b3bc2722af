"""On which device a model runs and in which numbers: one value, with the reason for it."""

import importlib.metadata
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.errors import first_line
from varytoy.extras import installed, pip_line
from varytoy.options import DTYPE_NAMES, QUANTIZED

DTYPES = dict(zip(DTYPE_NAMES, (torch.float32, torch.float16, torch.bfloat16), strict=True))
_ROWS = 16384  # of a weight that are in 32 bits at a time


class DeviceError(ValueError):
    """A device or a type of numbers that is not to be had here."""


@dataclass(frozen=True)
class Precision:
    """What a model is kept and computed in.

    Attributes:
        device: cpu, cuda, cuda:1, mps …
        storage, compute: fp32, fp16 or bf16. Where they differ each layer's weights are widened for its product.
        quantize: int8 or nf4 for the decoder's linear layers, or empty.
        reason: why so, in a sentence.
    """

    device: str
    storage: str
    compute: str
    quantize: str = ""
    reason: str = ""


def version_of(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def choose_precision(device: str = "auto", dtype: str = "auto", quantize: str = "", small: bool = False) -> Precision:
    """Decide by what the device can do: bf16 from compute capability 8.0, fp16 products from 7.0 (and on 6.0), below
    these fp16 storage and fp32 products. PyTorch's ``is_bf16_supported`` is not asked: it says yes where bf16 is only
    imitated. A ``small`` model stays in fp32 unless asked otherwise.

    Raises:
        DeviceError: the device is not there, or does not have that type.
    """
    if dtype not in ("auto", *DTYPES):
        raise DeviceError(f"no type '{dtype}'; there are auto, {', '.join(DTYPES)}")
    if quantize not in ("", *QUANTIZED):
        raise DeviceError(f"no '{quantize}' to quantize to; there are {' and '.join(QUANTIZED)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind):
        raise DeviceError(f"the device '{device}' cannot be used: {_absent(kind)}")
    number = device.partition(":")[2]
    cards = torch.cuda.device_count() if kind == "cuda" else 1
    if number and not (number.isdecimal() and int(number) < cards):
        raise DeviceError(f"the device '{device}' cannot be used: there are {cards} of its kind, counted from 0")
    capability = torch.cuda.get_device_capability(device) if kind == "cuda" else None
    if kind == "cpu":
        where, (storage, compute, why) = "CPU", ("fp32", "fp32", "fp32; --dtype bf16 takes half of the memory")
    elif kind == "mps":
        where, (storage, compute, why) = "Apple's GPU", ("fp16", "fp16", "fp16")
    else:
        assert capability is not None
        where = f"{torch.cuda.get_device_name(device)}, capability {capability[0]}.{capability[1]}"
        storage, compute, why = _by_capability(capability)
    if dtype == "bf16" and (kind == "mps" or capability is not None and capability < (8, 0)):
        raise DeviceError(f"--dtype bf16: there is none here ({where}: {why}); take fp16")
    if dtype == "auto" and small:
        storage = compute = "fp32"
        why = "fp32, the model is small"
    elif dtype != "auto":
        widened = dtype == "fp16" and compute == "fp32"  # a CPU, too, has no fp16 products
        storage, compute = dtype, "fp32" if widened else dtype
        why = f"{dtype} as asked" + (", widened to fp32 for products" if widened else "")
    reason = f"{where}: {why}"
    if quantize:
        quantize, note = _quantize_or_not(quantize, kind, capability)
        reason = f"{reason}; {note}"
    return Precision(device, storage, compute, quantize, reason)


def _absent(kind: str) -> str:
    if kind == "cuda":
        return "PyTorch finds no NVIDIA card (varytoy doctor says more)"
    return "PyTorch finds no Apple GPU" if kind == "mps" else "devices are cpu, cuda, cuda:1 …, mps"


def _by_capability(capability: tuple[int, int]) -> tuple[str, str, str]:
    if capability >= (8, 0):
        return "bf16", "bf16", "bf16"
    if capability >= (7, 0) or capability == (6, 0):
        return "fp16", "fp16", "fp16; no bf16"
    return "fp16", "fp32", "fp16 storage, fp32 compute; no bf16"


def _quantize_or_not(quantize: str, kind: str, capability: tuple[int, int] | None) -> tuple[str, str]:
    """What of a wish can be had, and a note on it. Bounds are bitsandbytes' own: Turing for int8, Pascal for NF4."""
    if not installed("bitsandbytes"):
        return "", f"not {quantize}: bitsandbytes is missing ({pip_line('train')})"
    if kind == "mps":
        return "", f"not {quantize}: bitsandbytes does not know this device"
    least = {"int8": (7, 5), "nf4": (6, 0)}[quantize]
    if capability is not None and capability < least:
        return "", f"not {quantize}: it needs capability {least[0]}.{least[1]}"
    return quantize, f"the decoder in {quantize}"


def place(model: nn.Module, precision: Precision) -> nn.Module:
    """Bring a model to its device and numbers, once. ``model.language_model`` is what is quantized.

    Raises:
        DeviceError: the device refuses, for want of memory for instance.
    """
    compute = DTYPES[precision.compute]
    try:
        keep_in(model, DTYPES[precision.storage])
        if precision.quantize:
            odd = {
                layer.in_features for layer in decoder_linears(model.language_model).values() if layer.in_features % 64
            }
            if odd:
                raise DeviceError(f"--quantize: layers of {min(odd)} inputs cannot be packed, only multiples of 64")
            quantize(model, precision.quantize, compute)
        model.to(precision.device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"the device '{precision.device}' cannot be used: {first_line(error)}") from error
    if precision.compute != precision.storage:
        widen(model, compute)
        model.compute_dtype = compute  # type: ignore[assignment]
    return model


def keep_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters in ``dtype``. What is computed with wide numbers stays so: the frequencies of rotary positions, of
    which 16 bits would turn far words by a radian, and batch norm, whose running statistics do not bear it."""
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def widen(model: nn.Module, dtype: torch.dtype) -> None:
    """Let a model compute in wider numbers than its weights are kept in: each layer widens its own as it is called."""
    for module in model.modules():
        alone = not any(True for _ in module.children()) or isinstance(module, nn.MultiheadAttention)
        for name, parameter in module.named_parameters(recurse=False):
            if not alone and parameter.is_floating_point():
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=parameter.requires_grad))
        if alone and any(True for _ in module.parameters()):
            module.forward = _Widened(module, dtype)


class _Widened:
    """The forward of a layer, its inputs and weights widened."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        self.module, self.dtype, self.plain = module, dtype, module.forward

    def __call__(self, *arguments, **options):
        module, dtype = self.module, self.dtype
        arguments, options = _wide(arguments, dtype), _wide(options, dtype)
        if isinstance(module, nn.Embedding):
            return self.plain(*arguments, **options).to(dtype)
        if type(module) is nn.Linear:
            (x,) = arguments
            bias = None if module.bias is None else module.bias.to(dtype)
            parts = [F.linear(x, rows.to(dtype)) for rows in module.weight.split(_ROWS)]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
            return out if bias is None else out + bias
        if isinstance(module, nn.Linear):  # packed: it unpacks its weights itself
            return self.plain(*arguments, **options)
        module.forward = self.plain
        try:
            wide = {
                name: _wide(tensor, dtype) for name, tensor in [*module.named_parameters(), *module.named_buffers()]
            }
            return torch.func.functional_call(module, wide, arguments, options)
        finally:
            module.forward = self


def _wide(value, dtype: torch.dtype):
    if isinstance(value, Tensor):
        return value.to(dtype) if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, (tuple, list)):
        return type(value)(_wide(each, dtype) for each in value)
    if isinstance(value, dict):
        return {name: _wide(each, dtype) for name, each in value.items()}
    return value


def decoder_linears(decoder: Any) -> dict[str, nn.Linear]:
    """The linear layers of a language model by name, without the one that gives the scores."""
    scores = decoder.get_output_embeddings()
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and module is not scores
    }


def quantize(model: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Exchange the linear layers of ``model.language_model`` for bitsandbytes' int8 ones (arXiv 2208.07339) or NF4 ones
    (arXiv 2305.14314), which compute in ``dtype``. Weights are turned when they come to their device (on the CPU: at
    once)."""
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    def turn(layer: nn.Linear) -> nn.Module:
        shape, biased = (layer.in_features, layer.out_features), layer.bias is not None
        made: Linear4bit | Linear8bitLt
        if kind == "nf4":
            made = Linear4bit(*shape, biased, dtype, quant_type="nf4", device="meta")
            made.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
        else:
            made = Linear8bitLt(*shape, biased, has_fp16_weights=False, device="meta")
            made.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        made.bias = layer.bias
        return made.to(layer.weight.device)

    exchange(model.language_model, turn)
    setattr(model, {"nf4": "is_loaded_in_4bit", "int8": "is_loaded_in_8bit"}[kind], True)  # PEFT asks


def exchange(decoder: nn.Module, turn) -> None:
    """Put ``turn(layer)`` in place of each of the decoder's linear layers."""
    for name, layer in decoder_linears(decoder).items():
        parent, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(parent), leaf, turn(layer))
