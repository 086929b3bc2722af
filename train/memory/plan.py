"""``python -m train memory RECIPE``: estimate the GPU memory of a recipe's training step and evaluation, without a GPU,
and what it needs on the host and the disk (train.memory.budget).

The step itself runs (forward, backward, optimizer) on PyTorch's fake tensors, which have shapes but no data, and each
storage is tracked from allocation to release. So the peak is that of the program, not of a formula; the reserve covers
what the GPU's allocator and kernels add. What ``train.evaluate_steps`` or ``predict_steps`` generate runs the same way,
beside the optimizer's state.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.optim import optimizer as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Trainer, TrainingArguments

from train import adapters
from train.memory.budget import Need, disk_needs, host_needs, look_at, sizes_of
from train.memory.reading import PROMPT, read
from train.memory.zero import zero_terms
from train.model import VaryForTraining
from train.optim.choose import choose_optimizer, compute_type
from train.predictions import DRAWN
from train.recipe import Recipe, RecipeError
from train.run import Run
from varytoy.devices.precision import keep_in
from varytoy.models.connectors import image_tokens
from varytoy.processing.processor import IGNORED

GIB = 2**30
RESERVE = 0.8 * GIB
"""GPU memory beside the tensors: the CUDA context, cuBLAS' workspace, fragmentation."""
KINDS = (
    "weights",
    "optimizer state",
    "gradients",
    "keys and values",
    "activations",
    "DeepSpeed's buffers",
    "pictures and prompts",
    "workspace",
)
EVALUATION = "evaluation: "
"""Begins the names of the phases of an evaluation."""
_BLOCK = 512  # the CUDA allocator rounds sizes up to multiples of this
_LARGE = 1 << 16  # factory calls with more elements give fake tensors


@dataclass
class Plan:
    """Memory of a training step in bytes.

    Attributes:
        peak: peak over all phases; ``kinds``: its breakdown; ``phase``: the phase of the peak.
        phases: the peak of each phase, in order of execution.
        parts: the breakdown of the peak of ``step`` and of ``evaluation``, if there is one.
        approximations: the parts that were not run, and their stand-ins.
    """

    peak: int
    kinds: dict[str, int]
    phase: str
    phases: dict[str, int]
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    approximations: list[str] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    """On the host and the disk."""

    def fits(self, card: float) -> bool:
        """Whether peak and reserve fit into ``card`` GiB."""
        return self.peak + RESERVE <= card * GIB


class Tracker(TorchDispatchMode):
    """Tracks the storages of all tensors that operations allocate while it is active.

    Attributes:
        phase: name of the current phase, for the table.
    """

    def __init__(self, fake: FakeTensorMode):
        super().__init__()
        self.fake, self.phase = fake, "start"
        self.events: list[tuple[str, int, int]] = []  # phase, number of the storage, bytes (negative: release)
        self.kinds: dict[int, str] = {}
        self._numbers: dict[int, int] = {}
        self._alive: dict[int, weakref.ref] = {}
        self._count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        tensors = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
        if function is torch.ops.aten._local_scalar_dense.default and isinstance(tensors[0], FakeTensor):
            return True if tensors[0].dtype == torch.bool else 1  # "is every gradient finite?"
        if function.overloadpacket in _INDEXING and isinstance(arguments[0], FakeTensor):
            arguments = (arguments[0], [part for index in arguments[1] for part in _numbers(index)], *arguments[2:])
        sizes = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, int)]
        if not tensors and sizes and torch.Size(sizes).numel() > _LARGE:
            with self.fake:
                outputs = function(*arguments, **options)
        else:
            outputs = function(*arguments, **options)
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return outputs

    def add(self, tensor: Tensor, kind: str = "") -> None:
        """Track the tensor's storage, and set its kind."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._numbers:
            self._count += 1
            number, size = self._count, -(-storage.nbytes() // _BLOCK) * _BLOCK
            self._numbers[key] = number
            self._alive[key] = weakref.ref(storage, lambda _: self._gone(key, number, size))
            self.events.append((self.phase, number, size))
            self.kinds[number] = _kind(self.phase)
        if kind:
            self.kinds[self._numbers[key]] = kind

    def _gone(self, key: int, number: int, size: int) -> None:
        self.events.append((self.phase, number, -size))
        del self._numbers[key], self._alive[key]

    def plan(self) -> Plan:
        """Replay the events, now that the kinds are known."""
        total, current, phases = 0, Counter(), {}
        peaks: dict[str, tuple[int, Counter, str]] = {}
        for phase, number, size in self.events:
            total += size
            current[self.kinds[number]] += size
            phases[phase] = max(phases.get(phase, 0), total)
            part = "evaluation" if phase.startswith(EVALUATION) else "step"
            if total > peaks.get(part, (0,))[0]:
                peaks[part] = (total, current.copy(), phase)
        parts = {part: {kind: found[kind] for kind in KINDS if found[kind]} for part, (_, found, _) in peaks.items()}
        most = max(peaks, key=lambda part: peaks[part][0])
        return Plan(peaks[most][0], parts[most], peaks[most][2], phases, parts)


def _kind(phase: str) -> str:
    if phase.startswith(EVALUATION):
        return "pictures and prompts"
    return "activations" if phase.startswith("forward") else "workspace"


_INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_)


def _numbers(index: Tensor | None) -> tuple[Tensor | None, ...]:
    """Convert a real mask to real indices: with fake tensors the number of selected rows is unknown."""
    mask = index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor)
    return index.nonzero(as_tuple=True) if mask else (index,)


def evaluated(recipe: Recipe) -> tuple[int, int]:
    """Samples that an evaluation of the recipe answers together, and tokens of an answer; (0, 0) without any."""
    train = recipe.train
    if train.evaluate_steps:
        return min(train.evaluate_batch, train.evaluate_count), train.evaluate_tokens
    return (1, DRAWN) if train.predict_steps else (0, 0)


def plan(recipe: Recipe, tokens: int = 0, images: int = 1, steps: bool = True) -> Plan:
    """Run a step of the recipe on samples of ``tokens`` (default: its ``train.max_length``) with ``images`` images
    each; all other tokens are supervised. Then an evaluation, if the recipe has any. ``steps``: False for the
    evaluation alone.

    Raises:
        RecipeError: the recipe names no architecture, or its image tokens alone are more than ``tokens``.
    """
    tokens = tokens or recipe.train.max_length
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    approximations = []
    with torch.device("meta"):
        run = Run(recipe, weights=False)
        model = run.model
        model.tie_weights()
        run.freeze()
        if recipe.lora.quantize:
            adapters.stand_in(model.language_model, compute_type(recipe))
            approximations.append("NF4 layers are uint8 of the same size, dequantized for each product")
        if recipe.lora.rank:
            adapters.add_adapters(model, recipe)
        if recipe.train.deepspeed:
            keep_in(model, compute_type(recipe))
    make_fake(model, fake)
    if recipe.train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    if len(model.objectives) > 1:
        approximations.append("objectives other than the text loss are left out")
    if recipe.train.deepspeed and compute_type(recipe) == torch.float32:
        raise RecipeError("train.deepspeed: memory predicts 16-bit runs: set train.precision=fp16 or bf16")
    arguments = run.arguments
    tracker = Tracker(fake)
    optimizer = None
    with tracker, _phases(model, tracker, bool(recipe.train.deepspeed)):
        tracker.phase = "weights"
        for tensor in (*model.parameters(), *model.buffers()):
            tracker.add(tensor, "weights")
        batch = dummy_batch(model, recipe.train.batch_size, tokens, images, fake, recipe.model.resolution)
        if recipe.train.deepspeed:
            sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
            terms = zero_terms(recipe.train.deepspeed, sizes, recipe.train.accumulation)
            with fake:
                buffers = [torch.empty(size, dtype=torch.uint8) for size in (terms.bucket, terms.largest)]
            for buffer in buffers:
                tracker.add(buffer, "DeepSpeed's buffers")
            approximations.append("DeepSpeed's buffers are computed; each gradient is freed as soon as it is in them")
            if steps:
                _step(recipe, model, batch, tracker)
        else:
            optimizer = _optimizer(recipe, arguments, model)
            _make_state(optimizer, fake)
            for _ in range(min(recipe.train.accumulation, 2) if steps else 0):
                _step(recipe, model, batch, tracker)  # the second runs with the first's gradients in memory
            if steps and not recipe.train.in_backward:
                _step_optimizer(arguments, model, optimizer, tracker)
            for tensor in _state(optimizer):
                tracker.add(tensor, "optimizer state")
        size = sum(tensor.nbytes for tensor in batch.values())
        batch.clear()
    if any(evaluated(recipe)):
        with tracker:
            _evaluate(recipe, model, images, tracker, fake)
    del optimizer  # its state stands beside the evaluation
    estimate = tracker.plan()
    estimate.approximations = approximations
    sizes = sizes_of(recipe, model, size)
    offloaded = terms.host if recipe.train.deepspeed else 0
    count, pixels = look_at(recipe)
    estimate.needs = [*host_needs(recipe, sizes, offloaded, pixels), *disk_needs(recipe, sizes, count)]
    return estimate


def _evaluate(recipe: Recipe, model: nn.Module, images: int, tracker: Tracker, fake: FakeTensorMode) -> None:
    """Run the phases of an evaluation."""
    tracker.phase = f"{EVALUATION}pictures and prompt"
    rows, answer = evaluated(recipe)
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters are in its layers
    side = recipe.model.resolution
    prompt = images * image_tokens(plain.config, side) + PROMPT
    plain.eval()
    batch = dummy_batch(plain, rows, prompt, images, fake, side)
    del batch["labels"]
    casts = recipe.train.precision != "fp32" and not recipe.train.deepspeed
    dtype = compute_type(recipe)
    with torch.autocast("cpu", dtype) if casts else contextlib.nullcontext():
        read(plain, batch, prompt + answer, dtype, tracker, fake, EVALUATION)
    plain.train()


def make_fake(model: nn.Module, fake: FakeTensorMode) -> None:
    """Replace a model's meta tensors by fake CPU tensors; tied tensors stay tied."""
    fakes: dict[int, Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and id(tensor) not in fakes:
                    with fake:
                        new = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    learns = isinstance(tensor, nn.Parameter)
                    fakes[id(tensor)] = nn.Parameter(new, requires_grad=tensor.requires_grad) if learns else new
                if tensor is not None:
                    table[name] = fakes[id(tensor)]


def dummy_batch(
    model: VaryForTraining,
    size: int,
    tokens: int,
    images: int,
    mode: contextlib.AbstractContextManager | None = None,
    side: int = 0,
) -> dict[str, Tensor]:
    """``size`` samples of ``tokens``, of which all but the image tokens are supervised. Images of ``side`` pixels (by
    default the vision vocabulary's ``image_size``), or their features, are noise made in ``mode`` (fake tensors); token
    ids are real, because the model counts image tokens and labels.

    Raises:
        RecipeError: the image tokens alone are more than ``tokens``.
    """
    mode = mode or contextlib.nullcontext()
    config = model.config
    down, across = config.vocabulary_config.stride
    needed = images * image_tokens(config, side)
    side = side or config.vocabulary_config.image_size
    if needed >= tokens:
        raise RecipeError(f"{images} images have {needed} tokens: more than {tokens} are needed")
    ids = torch.zeros(size, tokens, dtype=torch.long)
    ids[:, :needed] = config.image_token_id
    labels = ids.masked_fill(ids == config.image_token_id, IGNORED)
    if config.image_token_id == 0:
        raise RecipeError("model: the image token cannot be number 0")
    if model.vision_vocabulary is None:
        with mode:
            grid = torch.randn(size * images, side // down, side // across, config.vocabulary_config.output_size)
            features = {"vocabulary_features": grid.half()}
            if config.clip_config is not None:
                clip_side = config.clip_config.image_size // config.clip_config.patch_size
                clip_grid = grid.shape[1:3] if config.serial else (clip_side, clip_side)
                grid = torch.randn(size * images, *clip_grid, config.clip_config.width)
                features["clip_features"] = grid.half()
        return {"input_ids": ids, "labels": labels, **features}
    with mode:
        pixels = {"pixel_values": torch.randn(size * images, 3, side, side)}
        if model.clip is not None and not config.serial:
            clip_side = config.clip_config.image_size
            pixels["clip_pixel_values"] = torch.randn(size * images, 3, clip_side, clip_side)
    return {"input_ids": ids, "labels": labels, **pixels}


def _optimizer(recipe: Recipe, arguments: TrainingArguments, model: nn.Module) -> torch.optim.Optimizer:
    chosen, options = choose_optimizer(recipe, arguments) or Trainer.get_optimizer_cls_and_kwargs(arguments)
    if chosen is torch.optim.AdamW and not options.get("fused"):
        options = {**options, "foreach": True}  # torch's default on a GPU
    groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    return chosen(groups, **options)


def _step(recipe: Recipe, model: VaryForTraining, batch: dict[str, Tensor], tracker: Tracker) -> None:
    tracker.phase = "forward"
    casts = recipe.train.precision != "fp32" and not recipe.train.deepspeed
    with torch.autocast("cpu", compute_type(recipe)) if casts else contextlib.nullcontext():
        loss = model(**batch).loss
    tracker.phase = "backward: loss"
    loss.backward()
    model.loss_parts = {}


def _step_optimizer(arguments: TrainingArguments, model: nn.Module, optimizer, tracker: Tracker) -> None:
    if arguments.max_grad_norm:
        tracker.phase = "clipping"
        trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
        nn.utils.clip_grad_norm_(trained, arguments.max_grad_norm, foreach=True)
    optimizer.step()
    model.zero_grad(set_to_none=True)


def _make_state(optimizer: torch.optim.Optimizer, fake: FakeTensorMode) -> None:
    """Allocate the state of the first step: later steps have it in memory from the start."""
    for inner in getattr(optimizer, "inner", {None: optimizer}).values():
        for number, group in enumerate(inner.param_groups):
            for position, parameter in enumerate(group["params"]):
                if hasattr(inner, "init_state"):  # bitsandbytes
                    inner.init_state(group, parameter, number, position)
                else:
                    with fake:
                        parameter.grad = torch.empty_like(parameter)
        if not hasattr(inner, "init_state"):
            inner.step()
            inner.zero_grad(set_to_none=True)


def _state(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for inner in getattr(optimizer, "inner", {None: optimizer}).values():
        for state in inner.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))


@contextlib.contextmanager
def _phases(model: VaryForTraining, tracker: Tracker, free_gradients: bool):
    """Context: set the tracker's phase (forward and backward of each part, loss, optimizer) and track gradients, which
    are freed once accumulated if ``free_gradients``."""
    parts = {
        "vision vocabulary": model.vision_vocabulary,
        "CLIP": model.clip,
        "connector": model.connector,
        "decoder": model.language_model.base_model,
    }
    handles = []

    def name(phase: str):
        def set_phase(*_) -> None:
            tracker.phase = phase

        return set_phase

    def after(part: str):
        def watch(module, inputs, output) -> None:
            tracker.phase = "forward: loss" if part == "decoder" else "forward"
            tensor = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
            if tensor is None:
                tensor = output.last_hidden_state
            if tensor.requires_grad:
                tensor.register_hook(name(f"backward: {part}"))

        return watch

    for part, module in parts.items():
        if module is not None:
            handles.append(module.register_forward_pre_hook(name(f"forward: {part}")))
            handles.append(module.register_forward_hook(after(part)))

    def on_gradient(parameter: Tensor) -> None:
        tracker.add(parameter.grad, "gradients")
        if free_gradients:
            parameter.grad = None

    for parameter in model.parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_post_accumulate_grad_hook(on_gradient))
    before: list[str] = []

    def enter(*_) -> None:
        before.append(tracker.phase)
        tracker.phase = "optimizer step"

    def leave(*_) -> None:
        tracker.phase = before.pop()

    handles += [hooks.register_optimizer_step_pre_hook(enter), hooks.register_optimizer_step_post_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
