"""Recipes: typed settings of a training run, filled from YAML and ``key=value`` on the command line."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from annotated_types import Ge, Gt, Interval, Len

from data_tools.mixture import DataSettings, check_sources, read_mixture
from train.objectives import OBJECTIVES, Settings
from train.parts import Part
from train.stages import StageSettings, check_stages
from varytoy.models.config import VaryConfig
from varytoy.settings import SettingsError, fill, is_there, read_tree, shown

RecipeError = SettingsError
OVERLAYS = Path(__file__).with_name("recipes") / "overlays"
_DEEPSPEED = Path(__file__).with_name("recipes") / "deepspeed"
EIGHT_BIT = ("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit")
"""Optimizers that train.rounding's stands for."""
_OPTIMIZERS = (
    *("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", *EIGHT_BIT),
    *("paged_adamw_32bit", "lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit"),
    *("ademamix", "ademamix_8bit", "muon"),
)
Optimizer = Literal[_OPTIMIZERS]
_SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
)
Schedule = Literal[_SCHEDULES]
"""The Trainer's schedules that need no further settings and no extra package."""
_MAX_SEED = 2**32 - 1  # NumPy's
Dtype = Literal["fp32", "bf16", "fp16"]
_Beta = Annotated[float, Interval(ge=0, lt=1)]


@dataclass
class ModelSettings:
    preset: str = "nano"
    """Shape of the model, if ``init`` does not define it."""
    init: list[str] = field(default_factory=list)
    """Checkpoints to load in order; tensors are copied where name and shape match."""
    tokenizer: str = ""
    """Folder of a tokenizer; empty if the preset or ``init`` has one. With ``init`` one that extends its tokenizer."""
    decoder: Literal["", "opt"] = ""
    """``opt`` replaces the preset's decoder by an OPT-shaped one of the same width (the vocabulary stage)."""
    clip: bool = True
    """False leaves the CLIP branch out of this stage."""
    resolution: Annotated[int, Ge(0)] = 0
    """Side in pixels of the squares that images are resized to, e.g. 640, in training and by the finished model; 0: as
    the preset or ``init`` has it."""


@dataclass
class LoraSettings:
    """Adapters on the decoder's linear layers, which are frozen (LoRA, arXiv 2106.09685)."""

    rank: Annotated[int, Ge(0)] = 0
    """0 for no adapters."""
    alpha: Annotated[float, Ge(0)] = 32.0
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    targets: list[str] = field(default_factory=list)
    """Names of layers, e.g. q_proj; empty for all linear layers of the decoder."""
    quantize: Literal["", "nf4"] = ""
    """nf4 keeps the layers below the adapters in four bits (QLoRA)."""


@dataclass
class TrainSettings:
    epochs: Annotated[float, Gt(0)] = 1.0
    max_steps: int = -1
    batch_size: Annotated[int, Gt(0)] = 8
    accumulation: Annotated[int, Gt(0)] = 1
    learning_rate: Annotated[float, Ge(0)] = 5e-5
    lr_overrides: dict[Part, Annotated[float, Ge(0)]] = field(default_factory=dict)
    """Learning rates of single parts, e.g. {vision_vocabulary: 1.0e-5}."""
    heads_warmup: Annotated[int, Ge(0)] = 0
    """Steps on the losses of the objectives' heads alone (letters, objects) before the decoder joins."""
    warmup: Annotated[float, Ge(0)] = 0.03
    """Warm-up: a share of all steps below 1, else steps."""
    schedule: Schedule = "cosine"
    end_rate: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of each learning rate at which the schedule ``cosine`` ends."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip_norm: Annotated[float, Ge(0)] = 1.0
    optimizer: Optimizer = "adamw_torch"
    """Any of the Trainer's, e.g. adamw_torch, adamw_bnb_8bit; or muon for the matrices of decoder and connector, and
    AdamW for the rest."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of each token's target that is spread over the whole vocabulary."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Of what each layer of the decoder and the connector adds."""
    betas: Annotated[list[_Beta], Len(2, 2)] = field(default_factory=lambda: [0.9, 0.999])
    precision: Dtype = "fp32"
    """fp32, bf16 or fp16 (autocast)."""
    deepspeed: str = ""
    """A DeepSpeed JSON file; searched for beside the recipe and in ``train/recipes/deepspeed`` too."""
    weights: Dtype = "fp32"
    """Dtype of the weights in storage and training: fp32, or bf16 or fp16 for half of the memory, without autocast.
    Steps on 16-bit weights are rounded stochastically (train.optim.stochastic_rounding)."""
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    """Of updates of 16-bit weights: stochastic, or nearest, which loses small ones (compared in study.md)."""
    in_backward: bool = False
    """Step the optimizer inside backward, so that not all gradients are in memory at once."""
    loss_scale: Annotated[float, Ge(0)] = 1.0
    """With in_backward: the loss is multiplied by this, and gradients divided by it, for weights in fp16; 0 finds the
    factor."""
    gradient_checkpointing: bool = False
    compile: bool = False
    """Compile the decoder's norms, feed-forward layers and rotations (torch.compile): half a minute at the start, then
    faster steps if they are memory-bound, as on a CPU."""
    token_corruption: Annotated[float, Interval(ge=0, le=0.5)] = 0.0
    """Mean fraction of an answer's tokens that are replaced in the model's input, never in the labels, so that it
    learns to recover from its own mistakes."""
    max_length: Annotated[int, Gt(0)] = 4096
    """Longest sample in tokens; longer ones are counted as bad. A run is refused whose images alone are longer."""
    workers: Annotated[int, Ge(0)] = 0
    seed: Annotated[int, Interval(ge=0, le=_MAX_SEED)] = 0
    save_steps: Annotated[int, Gt(0)] = 500
    keep: Annotated[int, Gt(0)] = 2
    max_nonfinite_batches: Annotated[int, Ge(0)] = 10
    """Batches with a non-finite loss are skipped; the run ends when there are more than this."""
    log_steps: Annotated[int, Gt(0)] = 20
    predict_steps: Annotated[int, Ge(0)] = 0
    """Steps between which the answers to four samples are written to the run's ``predictions``; 0 for never."""
    held_out: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the pictures of each source that is not trained on but asked by ``evaluate_steps`` and by ``report``."""
    evaluate_steps: Annotated[int, Ge(0)] = 0
    """Steps between which the model answers samples that it is not trained on; each task's score is logged. It begins
    before the first step. 0 for never."""
    evaluate_on: str = ""
    """Samples for ``evaluate_steps``; by default those of ``held_out``."""
    evaluate_count: Annotated[int, Gt(0)] = 48
    """At most so many of these, the same ones each time."""
    evaluate_batch: Annotated[int, Gt(0)] = 4
    """Samples that are answered together."""
    evaluate_tokens: Annotated[int, Gt(0)] = 512
    """Longest answer in ``evaluate_steps``, in tokens; longer ones are cut, and scored as they are."""
    group_by_size: bool = True
    """Batch images of similar size together."""


def fill_objectives(tree: object, where: str, key: str) -> dict[str, Settings]:
    """The settings of each named objective. Raises RecipeError for an unknown one."""
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: {key} must be a mapping of objectives to their settings")
    unknown = next((name for name in tree if name not in OBJECTIVES), None)
    if unknown is not None:
        raise RecipeError(f"{where}: unknown key {shown(f'{key}.{unknown}')}; known are {', '.join(OBJECTIVES)}")
    return {name: fill(OBJECTIVES[name].Settings, value, where, f"{key}.{name}.") for name, value in tree.items()}


@dataclass
class Recipe:
    stage: Literal["vocabulary", "pretrain", "sft"] = "vocabulary"
    output: str = "runs/run"
    model: ModelSettings = field(default_factory=ModelSettings)
    data: list[DataSettings] = field(default_factory=list)
    """Sources of samples, or in YAML the name of a file with a mixture of them (data_tools.mixture)."""
    replay: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    """Fraction of an epoch's samples that come from what ``model.init`` was trained on, if its folder says what that
    was and ``data`` names no ``replay`` of its own (train.replay); for stage sft and adapters. 0 for none."""
    freeze: list[Part] = field(default_factory=list)
    objectives: dict[str, Settings] = field(default_factory=dict, metadata={"fill": fill_objectives})
    """Objectives besides the text, by name (train.objectives)."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    features: str = ""
    """A folder of the frozen towers' features (``python -m train features``), which replace the towers."""
    train: TrainSettings = field(default_factory=TrainSettings)
    stages: list[StageSettings] = field(default_factory=list)
    """Trainings one after another, each from the model of the one before (train.stages); by default one."""

    def check(self) -> None:
        """Raises RecipeError for incompatible settings."""
        if self.train.max_steps == 0:
            raise RecipeError("train.max_steps: a number of steps, or -1 for as many as train.epochs has, not 0")
        if self.model.preset and not self.model.preset.endswith(".json"):
            _one_of("model.preset", self.model.preset, VaryConfig.presets())
        if self.train.evaluate_steps and not (self.train.evaluate_on or self.train.held_out):
            raise RecipeError(
                "train.evaluate_steps: name samples to ask: train.evaluate_on=FOLDER, or train.held_out=0.05 for a "
                "part of the data"
            )
        if self.train.predict_steps and self.train.deepspeed:
            raise RecipeError("train.predict_steps asks one process, and DeepSpeed may spread the model: set it to 0")
        for part in self.train.lr_overrides:
            if part in self.freeze:
                raise RecipeError(f"train.lr_overrides: {part} is frozen: take it out of one of the two")
        if not self.output:
            raise RecipeError("output: name a folder for the run, e.g. output=runs/mine")
        if self.train.end_rate and self.train.schedule != "cosine":
            raise RecipeError(f"train.end_rate is for the schedule cosine, not {self.train.schedule}: leave it out")
        if self.data or not self.stages:
            check_sources(self.data)
        self._check_objectives()
        self._check_features()
        self._check_adapters()
        self._check_memory()
        self._check_zero()
        if self.stage == "vocabulary" and "vision_vocabulary" in self.freeze:
            raise RecipeError("the vocabulary stage trains the vision vocabulary: take it out of freeze")
        if self.stages:
            check_stages(self)

    @property
    def used_objectives(self) -> list[str]:
        """Names of those with a weight, also if only during the heads' warm-up."""
        warms_up = self.train.heads_warmup > 0
        objectives = {name: OBJECTIVES[name](settings) for name, settings in self.objectives.items()}
        return [name for name, each in objectives.items() if each.weight or warms_up and each.warmup_weight]

    def _check_objectives(self) -> None:
        if self.train.heads_warmup and not any(OBJECTIVES[name].has_head for name in self.used_objectives):
            heads = ", ".join(name for name, each in OBJECTIVES.items() if each.has_head)
            raise RecipeError(f"train.heads_warmup: there is no head to warm up: add one of {heads}, or set it to 0")
        for name in self.used_objectives:
            OBJECTIVES[name].check(self.objectives[name], self)

    def _check_features(self) -> None:
        if not self.features:
            return
        if self.stages:
            raise RecipeError("stages: features are of one model at one resolution: leave out features, or stages")
        self._check_frozen_towers("features are of frozen towers")
        if any(entry.crop < 1 for entry in self.data):
            raise RecipeError("features are of whole pictures: leave data.crop out")
        heads = [name for name in self.used_objectives if OBJECTIVES[name].has_head]
        if heads:
            raise RecipeError(f"features stand in for the towers, which {' and '.join(heads)} train: leave these out")
        for name in ("predict_steps", "evaluate_steps"):
            if getattr(self.train, name):
                raise RecipeError(f"train.{name} asks the whole model, which has no towers with features: set it to 0")

    def _check_frozen_towers(self, why: str) -> None:
        towers = ["vision_vocabulary", "clip"] if self.model.clip else ["vision_vocabulary"]
        if not set(towers) <= set(self.freeze):
            raise RecipeError(f"{why}: write freeze: {towers}")

    def _check_adapters(self) -> None:
        lora = self.lora
        if not lora.rank:
            if lora.quantize:
                raise RecipeError("lora.quantize: weights in four bits cannot be trained: set lora.rank, e.g. 64")
            return
        if self.stages:
            raise RecipeError("stages: no stage begins from adapters: leave out lora, or stages")
        if "language_model" in self.freeze:
            raise RecipeError("lora trains adapters of the language model: take it out of freeze")
        self._check_frozen_towers("lora trains the decoder's adapters and the connector")
        if self.used_objectives:
            raise RecipeError(f"lora does not go with objectives ({', '.join(self.used_objectives)}): leave them out")

    def _check_memory(self) -> None:
        train = self.train
        if train.weights != "fp32" and self.lora.rank:
            if train.deepspeed:
                raise RecipeError("train.weights: DeepSpeed keeps weights as its own JSON says: leave it out")
            if train.precision != train.weights:
                raise RecipeError(
                    f"lora: adapters have 32 bits, so weights in {train.weights} need the same autocast: "
                    f"set train.precision={train.weights}"
                )
        elif train.weights != "fp32":
            if train.precision != "fp32":
                raise RecipeError(
                    f"train.weights={train.weights} needs no autocast, and a GradScaler refuses such weights: "
                    "set train.precision=fp32"
                )
            if train.deepspeed:
                raise RecipeError(
                    "train.weights: DeepSpeed keeps weights as its own JSON says: leave train.weights=fp32"
                )
            if train.optimizer not in EIGHT_BIT:
                raise RecipeError(
                    f"train.weights={train.weights}: only the 8-bit AdamW rounds stochastically, and with another "
                    "small steps would be lost: set train.optimizer=adamw_bnb_8bit"
                )
            if train.weights == "fp16" and (not train.in_backward or train.loss_scale == 1.0):
                raise RecipeError(
                    "train.weights=fp16: small gradients would be lost without a scale: set train.in_backward=true and "
                    "train.loss_scale=0, which finds it"
                )
        if train.in_backward:
            if train.accumulation > 1:
                raise RecipeError(
                    "train.in_backward steps at each backward and keeps no gradients to accumulate: "
                    "set train.accumulation=1 and the largest train.batch_size that fits"
                )
            if train.clip_norm:
                raise RecipeError(
                    "train.in_backward never has all gradients together, whose norm could be clipped: "
                    "set train.clip_norm=0"
                )
            if train.precision == "fp16":
                raise RecipeError(
                    "train.in_backward steps before a GradScaler could unscale: set train.precision=fp32 or bf16"
                )
            if train.deepspeed:
                raise RecipeError("train.in_backward: DeepSpeed has an optimizer of its own: drop one of the two")
        elif train.loss_scale != 1.0:
            raise RecipeError("train.loss_scale is for train.in_backward: fp16 autocast has its own")

    def _check_zero(self) -> None:
        if not self.train.deepspeed:
            return
        zero, where = read_zero(self.train.deepspeed), f"{self.train.deepspeed}:"
        if self.lora.quantize and zero.get("stage") == 3:
            raise RecipeError(f"{where} ZeRO-3 cannot spread layers packed in four bits: take zero2.json")
        if self.train.optimizer in EIGHT_BIT and zero.get("offload_optimizer", {}).get("device", "none") != "none":
            raise RecipeError(
                f"{where} on the host DeepSpeed steps its own 32-bit Adam, no 8-bit one: set "
                "train.optimizer=adamw_torch, or take zero2.json"
            )


def smoke_test(recipe: Recipe, folder: str, on_card: bool) -> Recipe:
    """The recipe reduced to three steps of nano's shape, from random weights, on the samples of ``folder``, to check
    that everything it needs is available before a long run. Without a card fp16 becomes bf16, which a CPU supports,
    or with DeepSpeed fp32, because it casts all of the model but the statistics of batch norms, which only nano has."""
    cut = copy.deepcopy(recipe)
    cut.output = f"{Path(recipe.output)}-smoke-test"
    cut.model = ModelSettings(preset="nano", clip=recipe.model.clip, decoder=recipe.model.decoder)
    cut.data, cut.features, cut.replay = [DataSettings(folder)], "", 0.0
    cut.stages = [
        StageSettings(train=stage.train, learning_rate=stage.learning_rate, rates=stage.rates)
        for stage in recipe.stages
    ]
    train = cut.train
    train.max_steps, train.accumulation, train.log_steps, train.save_steps = 3, 1, 1, 3
    train.batch_size = min(train.batch_size, 2)
    train.held_out, train.evaluate_on = 0.0, folder if train.evaluate_steps else ""
    train.evaluate_steps, train.evaluate_count = min(train.evaluate_steps, 3), min(train.evaluate_count, 4)
    if not on_card:
        train.precision = "fp32" if train.deepspeed else train.precision.replace("fp16", "bf16")
        train.weights = train.weights.replace("fp16", "bf16")
        train.loss_scale = 1.0
    return cut


def load_recipe(path: str | Path, overrides: Sequence[str] = (), overlays: Sequence[str | Path] = ()) -> Recipe:
    """Read a YAML recipe, merge overlays over it (names or files, ``overlay_file``) and apply ``a.b=value``
    overrides (values are YAML; list entries by number).

    Raises:
        RecipeError: no such overlay, unknown keys, wrong types, incompatible settings.
    """
    path, files = Path(path), [overlay_file(name) for name in overlays]
    if not is_there(path) and not is_there(path, Path.is_dir):
        raise RecipeError(f"no recipe at {shown(str(path))}; the recipes are in train/recipes")
    tree = read_tree(path, overrides, files)
    stages = tree.get("stages") if isinstance(tree, dict) else None
    for section in (tree, *(stages if isinstance(stages, list) else ())):
        if isinstance(section, dict) and isinstance(section.get("data"), str):
            section["data"] = [dataclasses.asdict(source) for source in read_mixture(Path(section["data"]))]
    recipe = fill(Recipe, tree, " --overlay ".join(map(str, (path, *overlays))))
    name = recipe.train.deepspeed
    folders = (Path(), path.parent, *(file.parent for file in files), _DEEPSPEED)
    recipe.train.deepspeed = next((str(folder / name) for folder in folders if is_there(folder / name)), name)
    recipe.check()
    return recipe


def overlay_file(name: str | Path) -> Path:
    """The file of an overlay: one of ``train/recipes/overlays`` by its name, or any by its path.

    Raises:
        RecipeError: there is none; the message lists the available ones.
    """
    for path in (OVERLAYS / f"{name}.yaml", Path(name)):
        if is_there(path):
            return path
    available = ", ".join(sorted(path.stem for path in OVERLAYS.glob("*.yaml")))
    raise RecipeError(f"no overlay {shown(str(name))}: train/recipes/overlays has {available}; or name a YAML file")


def read_recipe(path: Path) -> Recipe:
    """As ``load_recipe``, without checking that settings are compatible and files exist."""
    return fill(Recipe, read_tree(path), str(path))


def read_zero(path: str) -> dict:
    """The ZeRO settings of a DeepSpeed JSON file. Raises RecipeError if it cannot be read."""
    if not is_there(Path(path)):
        available = ", ".join(sorted(file.name for file in _DEEPSPEED.glob("*.json")))
        raise RecipeError(f"train.deepspeed: no file {shown(path)}; train/recipes/deepspeed has {available}")
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"train.deepspeed: {path} has no DeepSpeed settings in JSON: {error}") from error
    zero = tree.get("zero_optimization", {}) if isinstance(tree, dict) else None
    if not isinstance(zero, dict) or not isinstance(zero.get("offload_optimizer", {}), dict):
        raise RecipeError(f"train.deepspeed: {path} has no DeepSpeed settings: zero_optimization must be an object")
    return zero


def _one_of(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise RecipeError(f"{key}: {shown(value)} is not one of {', '.join(name or 'nothing' for name in allowed)}")


def to_yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)


def flatten(recipe: Recipe | dict) -> dict[str, object]:
    """Dotted key, as in an override -> value; lists of plain values stay whole. ``recipe``: or its tree, as stored."""
    values: dict[str, object] = {}

    def walk(tree: object, key: str) -> None:
        if isinstance(tree, dict):
            pairs = list(tree.items())
        elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
            pairs = list(enumerate(tree))
        else:
            values[key] = tree
            return
        for name, value in pairs:
            walk(value, f"{key}.{name}" if key else str(name))

    walk(recipe if isinstance(recipe, dict) else dataclasses.asdict(recipe), "")
    return values
