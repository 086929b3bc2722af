"""The model in training: with auxiliary heads, which are not exported, and with frozen parts."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import GENERATION_CONFIG_NAME

from train.data.dataset import SampleDataset
from train.data.packing import segment_mask
from train.objectives import OBJECTIVES, Objective, State, TextObjective
from train.parts import PARTS
from train.recipe import ModelSettings, Recipe, RecipeError
from train.run_folder import carry_parts, check_new, writing
from train.stage_weights import Towers, load_stage
from varytoy.checkpoints.loading import load_model
from varytoy.devices.precision import DTYPES, keep_in
from varytoy.errors import first_line
from varytoy.models.config import VaryConfig, read_preset
from varytoy.models.vary import VaryForConditionalGeneration, VaryOutput
from varytoy.processing.processor import IGNORED, VaryProcessor
from varytoy.tasks import TASKS

_SCALED_SCORES = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of decoders that scale or cap their logits, which the text loss does not support."""
HEADS = "heads."
_LAYER_OUTPUTS = ("self_attn.o_proj", "mlp.down_proj", "self_attn.out_proj", ".fc2")
"""Last products of the layers' parts, in decoders of Qwen's and of OPT's kind."""


class VaryForTraining(VaryForConditionalGeneration):
    """The model with its training objectives, some of which have a head that is not exported."""

    objectives: Sequence[Objective] = (TextObjective(),)
    heads_only = False
    """Whether only the vision branches are trained, by their heads, without the decoder (warm-up)."""
    frozen: Sequence[str] = ()
    towers: Towers | None = None
    """The towers' weights, if the model itself has no towers (see train.data.feature_cache)."""
    loss_parts: dict[str, Tensor] = {}
    """The unweighted losses of the last batch."""

    def add_objectives(self, objectives: Sequence[Objective], frozen: Sequence[str], smoothing: float = 0.0) -> None:
        """Add objectives to the text loss; ``frozen``: parts that are not trained; ``smoothing``: of the text's
        targets."""
        self.heads = nn.ModuleDict()
        for objective in objectives:
            head = objective.setup(self, frozen)
            if head is not None:
                self.heads[objective.name] = head
        self.objectives = (TextObjective(smoothing), *objectives)

    def add_dropout(self, share: float) -> None:
        """Drop a share of what each layer of the decoder and the connector adds, in training."""
        if not share:
            return
        for name, module in self.language_model.named_modules():
            if name.endswith(_LAYER_OUTPUTS):
                module.register_forward_hook(lambda own, _, output: F.dropout(output, share, own.training))
        for module in self.connector.modules():
            if isinstance(module, nn.Dropout):
                module.p = share

    def train(self, mode: bool = True) -> "VaryForTraining":
        """Frozen parts stay in eval mode, so that their batch norm keeps its statistics. Checkpointed layers of a
        frozen decoder do not: they would keep all activations, for the gradients of other parts."""
        super().train(mode)
        for part in self.frozen:
            getattr(self, part).eval()
        for layer in self.language_model.modules() if mode else ():
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = True
        return self

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        targets: dict[str, Tensor] | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        clip_pixel_values: Tensor | None = None,
        vocabulary_features: Tensor | None = None,
        clip_features: Tensor | None = None,
        segments: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **options,
    ) -> VaryOutput:
        """The loss of a batch, or without ``labels`` the model's own output (see train.data.collator).

        ``targets``: of the objectives, by name. In place of pixels: vocabulary_features [I, h, w, D1] and clip_features
        [I, h2, w2, D2] (see train.data.feature_cache).
        """
        images = {"pixel_values": pixel_values, "image_sizes": image_sizes, "clip_pixel_values": clip_pixel_values}
        if labels is None:
            options["logits_to_keep"] = logits_to_keep  # generate looks for this argument, else it keeps all
            return super().forward(input_ids, attention_mask, position_ids=position_ids, **images, **options)
        if segments is not None:
            attention_mask = segment_mask(segments, self.dtype)
        if vocabulary_features is not None:
            images = {"vocabulary": vocabulary_features, "clip": clip_features}
        supervised = int((labels != IGNORED).sum())
        if not supervised:  # every sample of the batch was bad
            hidden, _, _ = self._read(input_ids, attention_mask, images, position_ids)
            return VaryOutput(loss=hidden.sum() * 0.0)
        targets = targets or {}
        weight_of = {each: each.warmup_weight if self.heads_only else each.weight for each in self.objectives}
        active = [each for each, weight in weight_of.items() if weight > 0 and each.has_targets(targets)]
        if not active:  # no targets for the heads, and the other objectives are off in the warm-up
            return VaryOutput(loss=next(each for each in self.parameters() if each.requires_grad).sum() * 0.0)
        for objective in active:
            objective.begin(targets)
        hidden = rows = None
        if self.heads_only:
            branches = {branch for objective in active for branch in objective.branches}
            features = self.run_branches(pixel_values, image_sizes, clip_pixel_values, branches)
        else:
            hidden, features, rows = self._read(input_ids, attention_mask, images, position_ids)
        state = State(labels, features or {}, hidden, image_sizes, targets, rows)
        parts: dict[str, tuple[float, Tensor]] = {}
        for objective in active:
            losses = objective.losses(self, self._head(objective), state)
            parts |= {name: (weight_of[objective], loss) for name, loss in losses.items()}
        self.loss_parts = {f"loss_{name}": loss.detach() for name, (_, loss) in parts.items()}
        # With accumulation the text loss is this batch's sum over the tokens of all batches: scale the others alike.
        share = 1.0 if num_items_in_batch is None else supervised / num_items_in_batch
        return VaryOutput(loss=share * sum(weight * loss for weight, loss in parts.values()))

    def _head(self, objective: Objective) -> nn.Module | None:
        return self.heads[objective.name] if objective.name in getattr(self, "heads", {}) else None

    def _read(
        self, input_ids: Tensor, attention_mask: Tensor | None, images: dict, position_ids: Tensor | None = None
    ) -> tuple[Tensor, dict | None, Tensor | None]:
        """The language model's last hidden states [B, T, D], the branches' features, and the image rows [N, D]."""
        if "vocabulary" in images:
            features = {name: each.to(self.dtype) for name, each in images.items() if each is not None}
            rows = self.connect(features)
            embeddings = self.fuse(input_ids, rows)
        else:
            embeddings, features, rows = self.embed(input_ids, **images)
        outputs = self.language_model.base_model(
            inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        return outputs.last_hidden_state, features, rows

    def save_pretrained(self, folder, state_dict: dict | None = None, **kwargs) -> None:
        """Save the stock model under its public class, and the heads to a separate file, for the next stage."""
        state = state_dict if state_dict is not None else self.state_dict()
        head = {name: tensor.contiguous() for name, tensor in state.items() if name.startswith(HEADS)}
        state = {name: tensor for name, tensor in state.items() if name not in head}
        if self.towers is not None:
            state |= dict(self.towers.tensors())
        if head:
            Path(folder).mkdir(parents=True, exist_ok=True)
            save_file(head, Path(folder) / "training_heads.safetensors")
        super().save_pretrained(folder, state_dict=state, **kwargs)
        config = VaryConfig.from_pretrained(folder)
        config.architectures = ["VaryForConditionalGeneration"]
        config.save_pretrained(folder)


def build(
    recipe: Recipe, data: SampleDataset | None = None, with_towers: bool = False
) -> tuple[VaryForTraining, VaryProcessor, str]:
    """Model and processor of a recipe, and one sentence on the origin of the weights.

    ``data``: determines the shapes of heads; ``with_towers``: even if the recipe uses precomputed features.

    Raises:
        RecipeError: ``init`` is not a checkpoint, or no tokenizer is available.
    """
    settings = recipe.model
    folders = [Path(name) for name in settings.init]
    for folder in folders:
        if (folder / "adapter_config.json").is_file():
            raise RecipeError(f"model.init: {folder} is an adapter: python -m train merge {folder} FOLDER, then FOLDER")
        if not any(folder.glob("*.safetensors")):
            raise RecipeError(f"model.init: {folder} holds no *.safetensors: give the folder of a saved model")
    processor = processor_of(settings)
    if data is not None:
        taught = {sample.task for sample in data.samples if sample.task in TASKS and TASKS[sample.task].learned}
        processor.learned = sorted({*processor.learned, *taught})
    model = assemble(recipe, data, with_towers)
    for objective in model.objectives:
        objective.tokenizer = processor.tokenizer
    if recipe.features:
        model.towers = Towers(settings.init, model.config)
    messages = [f"random weights in the shape '{settings.preset or folders[-1]}'"]
    for folder in folders:
        loaded = load_stage(model, folder)
        gives_towers = recipe.features and any(path.parent == folder for path, _ in model.towers.homes.values())
        if not loaded.taken and not gives_towers:
            raise RecipeError(f"model.init: nothing in {folder} belongs to this model: another preset?")
        messages.append(f"{len(loaded.taken)} tensors from {folder} ({len(loaded.left)} are not in it)")
        if loaded.misfits:
            messages[-1] += f" (other shapes, not taken: {', '.join(loaded.misfits)})"
    model.generation_config = _decoding(settings)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor, ", then ".join(messages)


def assemble(recipe: Recipe, data: SampleDataset | None = None, with_towers: bool = False) -> VaryForTraining:
    """The model of a recipe with random weights, its objectives and precision.

    Raises:
        RecipeError: the recipe names no architecture, or one that cannot be trained.
    """
    settings = recipe.model
    if settings.preset:
        config = VaryConfig.preset(settings.preset)
    elif settings.init:
        config = VaryConfig.from_pretrained(settings.init[-1])
    else:
        raise RecipeError("model: name a preset or a checkpoint to begin from (init)")
    tokenizer = _tokenizer_of(settings)
    if tokenizer is not None:
        config.text_config.vocab_size = max(config.text_config.vocab_size, len(tokenizer))
    if not settings.clip:
        config.clip_config = None
        config.clip_projection_size = 0
    if settings.decoder == "opt":
        config.text_config = opt_shape(config.text_config)
    scaled = [name for name in _SCALED_SCORES if getattr(config.text_config, name, None) not in (None, 1, 1.0)]
    if scaled:
        raise RecipeError(
            f"model: the decoder changes its scores ({scaled[0]}), which the loss does not support: use another"
        )
    model = VaryForTraining(config)
    if recipe.features and not with_towers:
        model.vision_vocabulary = model.clip = None
    model.add_objectives(objectives_of(recipe, data), recipe.freeze, recipe.train.label_smoothing)
    model.add_dropout(recipe.train.dropout)
    if recipe.train.weights != "fp32":
        keep_in(model, DTYPES[recipe.train.weights])
    return model


def objectives_of(recipe: Recipe, data: SampleDataset | None = None) -> list[Objective]:
    """The objectives that a recipe adds to the text loss."""
    objectives = [OBJECTIVES[name](recipe.objectives[name]) for name in recipe.used_objectives]
    if data is not None:
        for objective in objectives:
            objective.read_data(data)
    return objectives


def processor_of(settings: ModelSettings) -> VaryProcessor:
    """The processor of a recipe's model.

    Raises:
        RecipeError: no tokenizer is available, or the model does not take squares of ``resolution``.
    """
    processor = _processor_of(settings)
    if settings.resolution:
        images = processor.image_processor
        try:
            images.size = (images.check_side(settings.resolution),) * 2
        except ValueError as error:
            raise RecipeError(f"model.resolution: {error}") from error
    return processor


def _processor_of(settings: ModelSettings) -> VaryProcessor:
    tokenizer = _tokenizer_of(settings)
    for folder in map(Path, reversed(settings.init)):
        if not settings.preset and (folder / "processor_config.json").is_file():
            processor = VaryProcessor.from_pretrained(folder)
            processor.tokenizer = _extending(processor.tokenizer, tokenizer, settings) or processor.tokenizer
            return processor
    try:
        return VaryProcessor.preset(settings.preset, tokenizer)
    except ValueError as error:
        raise RecipeError(f"model: {error} (model.tokenizer=FOLDER)") from error


def _tokenizer_of(settings: ModelSettings) -> PreTrainedTokenizerBase | None:
    if not settings.tokenizer:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(settings.tokenizer)
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"model.tokenizer: no tokenizer in '{settings.tokenizer}': {first_line(error)}") from error


def _extending(
    old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase | None, settings: ModelSettings
) -> PreTrainedTokenizerBase | None:
    """The new tokenizer, which has the old one's tokens at their ids. Raises RecipeError for another."""
    if new is not None:
        known, before = new.get_vocab(), old.get_vocab()
        changed = next((token for token, number in before.items() if known.get(token) != number), None)
        if changed is not None:
            raise RecipeError(
                f"model.tokenizer: '{settings.tokenizer}' does not have {changed!r} at its id in {settings.init[-1]}: "
                "extend that one (python -m data_tools tokenizer --after)"
            )
    return new


def _decoding(settings: ModelSettings) -> GenerationConfig:
    """How answers are decoded: as the preset says, else as the last checkpoint does."""
    if settings.preset:
        return GenerationConfig(**read_preset(settings.preset).get("generation", {}))
    there = (Path(settings.init[-1]) / GENERATION_CONFIG_NAME).is_file()
    return GenerationConfig.from_pretrained(settings.init[-1]) if there else GenerationConfig()


def opt_shape(text):
    """An OPT decoder of the width, depth and vocabulary of another decoder's configuration."""
    return AutoConfig.for_model(
        "opt",
        vocab_size=text.vocab_size,
        hidden_size=text.hidden_size,
        word_embed_proj_dim=text.hidden_size,
        ffn_dim=4 * text.hidden_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        max_position_embeddings=text.max_position_embeddings,
        pad_token_id=text.pad_token_id,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        dropout=0.0,
        tie_word_embeddings=True,
    )


def freeze(model: VaryForTraining, parts: list[str]) -> str:
    """Freeze the named parts; returns a table of what is trained."""
    rows = []
    for part in PARTS:
        module = getattr(model, part, None)
        if module is None:
            continue
        frozen = part in parts
        module.requires_grad_(not frozen)
        count = sum(parameter.numel() for parameter in module.parameters())
        rows.append(f"  {part:<18} {count:>13,}  {'frozen' if frozen else 'trained'}")
    model.frozen = [part for part in parts if getattr(model, part, None) is not None]
    return "\n".join(rows)


def compile_parts(decoder: nn.Module) -> None:
    """Apply torch.compile to the memory-bound parts: norms, feed-forward layers, rotary embeddings.

    The whole decoder is not compiled, because its shapes change with every batch and the guide hooks its attention.
    """
    for module in decoder.modules():
        if type(module).__name__.endswith(("RMSNorm", "LayerNorm", "MLP")):
            module.compile(dynamic=True)
    for source in {sys.modules[type(module).__module__] for module in decoder.modules()}:
        if hasattr(source, "apply_rotary_pos_emb") and not hasattr(
            source.apply_rotary_pos_emb, "_torchdynamo_orig_callable"
        ):
            source.apply_rotary_pos_emb = torch.compile(source.apply_rotary_pos_emb, dynamic=True)


def export(run: str, out: Path, within: Path | None = None) -> int:
    """Write a run's model and processor to ``out`` with fp16 weights. Returns the size of the weights in bytes.

    Batch norm's running statistics stay in fp32: small variances underflow in fp16.

    Args:
        within: the checkpoint in whose folder ``out`` is to stand: parts of the model that are the same there are left
            out (``VaryConfig.shared``).
    """
    check_new(out)
    model, processor = _in_half(Path(run))
    state = model.state_dict()
    if within is not None:
        model.config.shared = _same_parts(state, _in_half(within)[0].state_dict())
        state = {name: each for name, each in state.items() if name.partition(".")[0] not in model.config.shared}
    with writing(out):
        model.save_pretrained(out, state_dict=state)
        processor.save_pretrained(out)
    if within is None:  # else they are beside it
        carry_parts([run], out)
    return (out / "model.safetensors").stat().st_size


def _in_half(folder: Path) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    """A checkpoint with its parameters, but not the statistics of batch norm, in fp16."""
    model, processor = load_model(folder, torch.float32)
    for parameter in model.parameters():
        parameter.data = parameter.data.half()
    return model, processor


def _same_parts(state: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """The parts of a model whose tensors are the same in both."""
    same: dict[str, bool] = {}
    for name, tensor in state.items():
        part = name.partition(".")[0]
        same[part] = same.get(part, True) and name in other and torch.equal(tensor, other[name])
    return [part for part, equal in same.items() if equal]
