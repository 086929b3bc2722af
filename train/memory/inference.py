"""``python -m train needs``: estimate the GPU memory that each published model needs for reading, without a GPU.

As in train.memory the model itself runs on fake tensors (train.memory.reading).
"""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from train.adapters import stand_in
from train.memory.plan import GIB, Plan, Tracker, dummy_batch, make_fake
from train.memory.reading import PROMPT, read
from varytoy.devices.precision import exchange
from varytoy.models.config import VaryConfig
from varytoy.models.connectors import image_tokens
from varytoy.models.vary import VaryForConditionalGeneration, count_parameters

MODELS = {"vary-toy": "Vary-toy", "got": "GOT-OCR 2.0", "vary-tiny": "Vary-tiny (OPT-125M)"}


class Int8StandIn(nn.Linear):
    """One byte per weight and four per row; the product is int32, as in LLM.int8."""

    def __init__(self, layer: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        packed = torch.empty(layer.weight.shape, dtype=torch.int8, device=layer.weight.device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scales", torch.empty(layer.out_features, device=layer.weight.device))
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        packed = x.to(torch.int8)
        product = packed.new_empty((*x.shape[:-1], self.out_features), dtype=torch.int32)
        return product.to(x.dtype)


def plan_reading(preset: str, quantize: str = "", pages: int = 1, answer: int = 1024) -> Plan:
    """Peak memory of reading a batch of ``pages`` images with ``answer`` tokens each, weights in fp16 and the decoder's
    linear layers in ``quantize`` (int8, nf4) if given."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    config = VaryConfig.preset(preset)
    with torch.device("meta"):
        model = VaryForConditionalGeneration(config).half()
        model.tie_weights()
        if quantize == "nf4":
            stand_in(model.language_model, torch.float16)
        elif quantize:
            exchange(model.language_model, Int8StandIn)
    make_fake(model, fake)
    model.eval()
    prompt = image_tokens(config) + PROMPT
    tracker = Tracker(fake)
    with torch.no_grad(), tracker:
        tracker.phase = "weights"
        for tensor in (*model.parameters(), *model.buffers()):
            tracker.add(tensor, "weights")
        tracker.phase = "pictures and prompt"
        batch = dummy_batch(model, pages, prompt, 1, fake)
        del batch["labels"]
        read(model, batch, prompt + answer, torch.float16, tracker, fake)
    return tracker.plan()


def table(answer: int = 1024) -> str:
    """A markdown table: disk space, and GiB of GPU memory at fp16, int8 and nf4 for one page and a batch of four."""
    rows = ["| model | parameters | download and disk | fp16, 1 page | 4 pages | int8 | 4 pages | nf4 | 4 pages |"]
    rows.append("|" + "---|" * 9)
    for preset, name in MODELS.items():
        parameters = count_parameters(VaryConfig.preset(preset))
        sizes = [
            plan_reading(preset, quantize, pages, answer).peak / GIB
            for quantize in ("", "int8", "nf4")
            for pages in (1, 4)
        ]
        cells = " | ".join(f"{size:.2f}" for size in sizes)
        rows.append(f"| {name} | {parameters:,} | {2 * parameters / GIB:.2f} | {cells} |")
    return "\n".join(rows)
