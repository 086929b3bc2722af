"""Is a merged model what its base with the adapters beside it is, and do the adapters change anything?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from train import adapters
from train.answers import answers
from varytoy.checkpoints.loading import base_of, find, load_model
from varytoy.data.sample import Sample
from varytoy.devices.precision import quantize
from varytoy.extras import MissingExtra
from varytoy.inference.engine import TransformersEngine
from varytoy.inference.reader import Reader
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS

_PREFIX = "base_model.model."
_LIMIT = 64  # tokens of the answers that are compared


@dataclass
class MergeCheck:
    """The merged model against its base with the adapters beside it, in 32 bits on the CPU.

    Attributes:
        layers: that have adapters; ``zero``: names of those whose adapter adds nothing.
        weights: largest difference of a weight; ``relative``: of a weight by the largest of its tensor; ``missing``:
            weights of one of the two.
        change: largest difference of an adapted weight from the base's.
        scores: largest difference of a token's score (logit) on ``samples`` samples; ``effect``: from the base's.
        same_answers: of these samples, those with the same greedy answer.
        four_bits: largest difference of a score from the adapters on a base in four bits, as they were trained; None
            if they were not.
    """

    layers: int = 0
    zero: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    weights: float = 0.0
    relative: float = 0.0
    change: float = 0.0
    scores: float = 0.0
    effect: float = 0.0
    samples: int = 0
    same_answers: int = 0
    four_bits: float | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether the adapters change no score."""
        return not self.effect or len(self.zero) == self.layers

    @property
    def is_equal(self) -> bool:
        """Whether the merged model is base and adapters, but for rounding."""
        close = self.relative <= 1e-5 and self.scores <= max(1e-3, 0.01 * self.effect)
        return close and not self.missing

    def sentences(self) -> list[str]:
        verdict = "equals" if self.is_equal else "DOES NOT EQUAL"
        lines = [
            f"The merged model {verdict} base + adapters: the largest difference of a weight is {self.weights:.1e} "
            f"({self.relative:.1e} of its tensor's largest), of a token's score {self.scores:.1e}; {self.same_answers} "
            f"of {self.samples} greedy answers are the same.",
            f"From the base the scores differ by up to {self.effect:.3g}, the weights of the {self.layers} adapted "
            f"layers by up to {self.change:.2e}.",
        ]
        if self.missing:
            lines.append(f"Weights that only one of the two has: {', '.join(self.missing[:5])}.")
        if len(self.zero) == self.layers:
            lines.append("ALL ADAPTERS ARE ZERO: they were merged to nothing.")
        elif self.zero:
            lines.append(f"{len(self.zero)} of {self.layers} adapters add nothing, e.g. {self.zero[0]}.")
        else:
            lines.append("No adapter is all zero.")
        if self.four_bits is not None:
            lines.append(
                f"On the base in four bits, as they were trained, the adapters give scores that differ by up to "
                f"{self.four_bits:.3g} from the merged model's, which has unpacked weights."
            )
        return lines


@torch.no_grad()
def check_merge(run: Path, samples: Sequence[Sample], work: Path, four_bits: str = "") -> MergeCheck:
    """Merge the adapters of ``run`` as ``python -m train merge`` does, into the folder ``work``, and compare.

    Args:
        samples: whose scores and answers are compared.
        four_bits: the run's ``lora.quantize``.

    Raises:
        RecipeError, ModelError: ``run`` is no adapter, or its base is gone.
    """
    from peft import PeftModel

    adapters.merge(str(run), work / "merged")
    merged, processor = load_model(work / "merged", torch.float32)
    base = find(base_of(run))
    beside = PeftModel.from_pretrained(load_model(base, torch.float32)[0], str(run)).eval()
    found = MergeCheck(samples=len(samples))
    _compare_weights(merged.eval(), beside, found)
    inputs = [_inputs(processor, sample) for sample in samples]
    wanted = [_scores(beside, each) for each in inputs]
    got = [_scores(merged, each) for each in inputs]
    with beside.disable_adapter():
        plain = [_scores(beside, each) for each in inputs]
    found.scores, found.effect = _largest(got, wanted), _largest(got, plain)
    said = [[_answer(model, processor, sample) for sample in samples] for model in (merged, beside)]
    found.same_answers = sum(one == other for one, other in zip(*said, strict=True))
    if four_bits:
        del beside
        try:
            packed = load_model(base, torch.float32)[0]
            quantize(packed, four_bits, torch.float32)
            adapters.keep_unpacked(packed)
            packed = PeftModel.from_pretrained(packed, str(run)).eval()
            found.four_bits = _largest(got, [_scores(packed, each) for each in inputs])
        except MissingExtra:
            found.four_bits = None
    return found


def _compare_weights(merged: nn.Module, beside: nn.Module, found: MergeCheck) -> None:
    state = beside.base_model.model.state_dict()
    layers = {
        name.removeprefix(_PREFIX): module for name, module in beside.named_modules() if getattr(module, "lora_A", None)
    }
    found.layers = len(layers)
    expected: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        expected[name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = tensor
    actual = merged.state_dict()
    found.missing = sorted(expected.keys() ^ actual.keys())
    for name, module in layers.items():
        down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
        added = module.scaling["default"] * (up.double() @ down.double())
        if not bool(added.any()):
            found.zero.append(name)
        key = f"{name}.weight"
        expected[key] = (expected[key].double() + added).float()
        if key in actual:
            found.change = max(found.change, float((actual[key] - module.base_layer.weight).abs().max()))
    for name in expected.keys() & actual.keys():
        if actual[name].is_floating_point() and actual[name].numel():
            difference, largest = (actual[name] - expected[name]).abs().max(), expected[name].abs().max()
            found.weights = max(found.weights, float(difference))
            found.relative = max(found.relative, float(difference / largest.clamp(min=1e-12)))


def _inputs(processor: VaryProcessor, sample: Sample) -> dict[str, Tensor]:
    """The whole conversation, answer included."""
    view = TASKS[sample.task].view
    batch = processor([sample.messages], [sample.open_images()], view, train=True)
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def _scores(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits.float()


def _largest(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return max((float((one - other).abs().max()) for one, other in zip(first, second, strict=True)), default=0.0)


def _answer(model: nn.Module, processor: VaryProcessor, sample: Sample) -> str:
    reader = Reader(TransformersEngine(model, processor))
    return answers(reader, [sample], max_new_tokens=_LIMIT, search=False)[0].text
