"""Choose a model's device and dtypes, with the reason for the choice."""

import importlib.metadata
import warnings
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.errors import first_line
from varytoy.extras import installed, pip_line
from varytoy.options import DTYPE_NAMES, QUANTIZED

DTYPES = dict(zip(DTYPE_NAMES, (torch.float32, torch.float16, torch.bfloat16), strict=True))
M = TypeVar("M", bound=nn.Module)
_ROWS = 16384  # rows of a weight that are upcast at a time


class DeviceError(ValueError):
    """A device or dtype that is not available here."""


@dataclass(frozen=True)
class Precision:
    """A model's device, storage and compute dtypes.

    Attributes:
        device: cpu, cuda, cuda:1, mps …
        storage, compute: fp32, fp16 or bf16. Where they differ each layer upcasts its weights when it is called.
        quantize: int8, nf4 or dynamic-int8 for the decoder's linear layers, or empty.
        reason: the reason for the choice, in a sentence.
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
    """Choose by the device's capability: bf16 from compute capability 8.0, fp16 from 7.0 (and on 6.0), below these fp16
    storage and fp32 compute. PyTorch's ``is_bf16_supported`` is not used: it is also true where bf16 is only emulated.
    A ``small`` model stays in fp32 unless a dtype is given.

    Raises:
        DeviceError: the device is not available, or does not support the dtype.
    """
    if dtype not in ("auto", *DTYPES):
        raise DeviceError(f"no type '{dtype}'; there are auto, {', '.join(DTYPES)}")
    if quantize not in ("", *QUANTIZED):
        raise DeviceError(f"no quantization '{quantize}'; there are {', '.join(QUANTIZED)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.partition(":")[0]
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(kind):
        raise DeviceError(f"the device '{device}' cannot be used: {_absent(kind)}")
    index = device.partition(":")[2]
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if index and not (index.isdecimal() and int(index) < count):
        raise DeviceError(f"the device '{device}' cannot be used: there are {count} of its kind, counted from 0")
    capability = torch.cuda.get_device_capability(device) if kind == "cuda" else None
    if kind == "cpu":
        name, (storage, compute, note) = "CPU", ("fp32", "fp32", "fp32; --dtype bf16 takes half of the memory")
    elif kind == "mps":
        name, (storage, compute, note) = "Apple's GPU", ("fp16", "fp16", "fp16")
    else:
        assert capability is not None
        name = f"{torch.cuda.get_device_name(device)}, capability {capability[0]}.{capability[1]}"
        storage, compute, note = _by_capability(capability)
    if dtype == "bf16" and (kind == "mps" or capability is not None and capability < (8, 0)):
        raise DeviceError(f"--dtype bf16 is not supported here ({name}: {note}); use fp16")
    if dtype == "auto" and small:
        storage = compute = "fp32"
        note = "fp32, the model is small"
    elif dtype != "auto":
        upcast = dtype == "fp16" and compute == "fp32"  # a CPU does not compute in fp16 either
        storage, compute = dtype, "fp32" if upcast else dtype
        note = f"{dtype} as asked" + (", upcast to fp32 for computing" if upcast else "")
    reason = f"{name}: {note}"
    if quantize:
        quantize, quantize_note = _quantize_or_not(quantize, kind, capability, compute)
        reason = f"{reason}; {quantize_note}"
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


def _quantize_or_not(quantize: str, kind: str, capability: tuple[int, int] | None, compute: str) -> tuple[str, str]:
    """The quantization that is available, and a note on it. bitsandbytes needs Turing for int8, Pascal for NF4."""
    if quantize == "dynamic-int8":
        fits = kind == "cpu" and compute == "fp32"
        return (quantize, "the decoder in dynamic int8") if fits else ("", f"not {quantize}: it is for a CPU and fp32")
    if not installed("bitsandbytes"):
        return "", f"not {quantize}: bitsandbytes is missing ({pip_line('train')})"
    if kind == "mps":
        return "", f"not {quantize}: bitsandbytes does not know this device"
    least = {"int8": (7, 5), "nf4": (6, 0)}[quantize]
    if capability is not None and capability < least:
        return "", f"not {quantize}: it needs capability {least[0]}.{least[1]}"
    return quantize, f"the decoder in {quantize}"


def place(model: M, precision: Precision) -> M:
    """Cast, quantize and move a model to its device, in place. Only ``model.language_model`` is quantized.

    Raises:
        DeviceError: the device cannot be used, for example because it is out of memory.
    """
    compute = DTYPES[precision.compute]
    try:
        keep_in(model, DTYPES[precision.storage])
        if precision.quantize == "dynamic-int8":
            quantize_dynamically(model)
        elif precision.quantize:
            unsupported = {
                layer.in_features for layer in decoder_linears(model.language_model).values() if layer.in_features % 64
            }
            if unsupported:
                raise DeviceError(
                    f"--quantize: layers of {min(unsupported)} inputs cannot be packed, only multiples of 64"
                )
            quantize(model, precision.quantize, compute)
        model.to(precision.device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"the device '{precision.device}' cannot be used: {first_line(error)}") from error
    if precision.compute != precision.storage:
        widen(model, compute)
        model.compute_dtype = compute  # type: ignore[assignment]
    return model


def keep_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast parameters to ``dtype``. Not cast are the frequencies of rotary embeddings, which in 16 bits would be off by
    a radian at far positions, and batch norm, whose running statistics need the precision."""
    for module in model.modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def widen(model: nn.Module, dtype: torch.dtype) -> None:
    """Let a model compute in a wider dtype than its weights are stored in: each layer upcasts its own when called."""
    for module in model.modules():
        is_leaf = not any(True for _ in module.children()) or isinstance(module, nn.MultiheadAttention)
        for name, parameter in module.named_parameters(recurse=False):
            if not is_leaf and parameter.is_floating_point():
                setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=parameter.requires_grad))
        if is_leaf and any(True for _ in module.parameters()):
            module.forward = _Widened(module, dtype)


class _Widened:
    """A layer's forward with inputs and weights upcast."""

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
        if isinstance(module, nn.Linear):  # quantized: it dequantizes its weights itself
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
    """The linear layers of a language model by name, without the output layer."""
    output = decoder.get_output_embeddings()
    return {
        name: module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    }


def quantize(model: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Replace the linear layers of ``model.language_model`` by bitsandbytes' int8 layers (arXiv 2208.07339) or NF4
    layers (arXiv 2305.14314), which compute in ``dtype``. Weights are quantized when they are moved to their device (on
    the CPU: at once)."""
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    def convert(layer: nn.Linear) -> nn.Module:
        shape, biased = (layer.in_features, layer.out_features), layer.bias is not None
        quantized: Linear4bit | Linear8bitLt
        if kind == "nf4":
            quantized = Linear4bit(*shape, biased, dtype, quant_type="nf4", device="meta")
            quantized.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=quantized)
        else:
            quantized = Linear8bitLt(*shape, biased, has_fp16_weights=False, device="meta")
            quantized.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
        quantized.bias = layer.bias
        return quantized.to(layer.weight.device)

    exchange(model.language_model, convert)
    setattr(model, {"nf4": "is_loaded_in_4bit", "int8": "is_loaded_in_8bit"}[kind], True)  # PEFT reads these


def quantize_dynamically(model: nn.Module) -> None:
    """Replace the linear layers of ``model.language_model`` by PyTorch's int8 layers, with one scale an output channel.
    They quantize their inputs when called, all rows together: what is read with a page changes its scores a little."""
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import per_channel_dynamic_qconfig

    def convert(layer: nn.Module) -> nn.Module:
        layer.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
        return Linear.from_float(layer.float())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to another package
        exchange(model.language_model, convert)


def exchange(decoder: nn.Module, convert) -> None:
    """Replace each of the decoder's linear layers by ``convert(layer)``."""
    for name, layer in decoder_linears(decoder).items():
        parent, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(parent), leaf, convert(layer))
