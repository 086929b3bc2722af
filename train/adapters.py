"""LoRA adapters (PEFT) on the decoder, optionally with its frozen weights in four bits (bitsandbytes).

An adapter run trains the adapters and, unless frozen, the connector, both in 32 bits; everything else is frozen. It
saves a PEFT folder; ``merge`` makes an ordinary model of it.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from train.recipe import LoraSettings, Recipe, RecipeError
from train.run_folder import carry_parts, check_new, writing
from varytoy.devices.precision import decoder_linears, exchange
from varytoy.extras import require


def stand_in(decoder: nn.Module, dtype: torch.dtype) -> None:
    """Like ``varytoy.devices.precision.quantize`` to NF4, but for fake tensors: the layers take the same memory and do
    not need bitsandbytes."""
    exchange(decoder, lambda layer: Nf4StandIn(layer, dtype))


class Nf4StandIn(nn.Linear):
    """Half a byte per weight, a byte per block of 64, 4 bytes per 256 such blocks; dequantized for each product."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.dtype = layer.in_features, layer.out_features, dtype
        count = layer.weight.numel()
        device = layer.weight.device
        packed = torch.empty(count // 2, dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", torch.empty(count // 64, dtype=torch.uint8, device=device))
        self.register_buffer("scales_of_scales", torch.empty(-(-count // (64 * 256)), device=device))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return _Unpacked.apply(x.to(self.dtype), self.weight, self.out_features, self.bias)


class _Unpacked(torch.autograd.Function):
    @staticmethod
    def forward(context, x: Tensor, packed: Tensor, rows: int, bias: Tensor | None) -> Tensor:
        context.save_for_backward(packed)
        context.shape = (rows, x.shape[-1])
        return nn.functional.linear(x, x.new_empty(context.shape), None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient @ gradient.new_empty(context.shape), None, None, None


def keep_unpacked(model: nn.Module) -> None:
    """Stop bitsandbytes from packing four-bit weights anew for a CPU when they are first read without gradients, as in
    an evaluation: training would go on with layers in another layout, and widths that are no multiple of 64 fail."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def add_adapters(model: nn.Module, recipe: Recipe, base: Path | str = "") -> nn.Module:
    """Wrap the model with PEFT; ``base``: the folder with the weights without adapters.

    Raises:
        MissingExtra: PEFT is not installed.
        RecipeError: no layer has a name of ``lora.targets``.
    """
    require("train", "peft", by="lora")
    from peft import LoraConfig, get_peft_model

    settings: LoraSettings = recipe.lora
    names = {f"language_model.{name}" for name in decoder_linears(model.language_model)}
    if settings.targets:
        names = {name for name in names if name.rpartition(".")[2] in settings.targets}
        if not names:
            raise RecipeError(f"lora.targets: no layer of the decoder is called {' or '.join(settings.targets)}")
    model.name_or_path = str(base)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=sorted(names),
            modules_to_save=None if "connector" in recipe.freeze else ["connector"],
        ),
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def describe(model: nn.Module) -> str:
    """The number of parameters that an adapter run trains, as a table row."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return f"  {'adapters, connector':<18} {trained:>12,}  trained; all else is frozen"


def merge(run: str, out: Path) -> None:
    """Merge the adapters of ``run`` into their base and write the model to ``out``.

    Adapters that were trained on four-bit weights are merged into the full-precision weights, which differ slightly.

    Raises:
        RecipeError: ``run`` is not an adapter.
        ModelError: its base is not available.
    """
    from varytoy.inference.reader import Reader

    if not (Path(run) / "adapter_config.json").is_file():
        raise RecipeError(f"{run} is no adapter: it has no adapter_config.json")
    check_new(out)
    reader = Reader.from_pretrained(run, "cpu")
    with writing(out):
        reader.engine.model.save_pretrained(out)
        reader.processor.save_pretrained(out)
    carry_parts([run], out)
