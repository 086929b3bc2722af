"""Load our own checkpoint folders: configuration, weights and processor are checked against each other before anything
is allocated."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoProcessor, GenerationConfig, PretrainedConfig
from transformers.utils import GENERATION_CONFIG_NAME

from varytoy import registration  # noqa: F401  (AutoProcessor knows our classes)
from varytoy.checkpoints.maps import WeightsError, brief
from varytoy.checkpoints.settings import GENERATION, PROCESSOR, TOKENIZER, Rules, named, read_settings
from varytoy.checkpoints.source import Source
from varytoy.models.config import ClipConfig, PatchesConfig, VaryConfig, VisionVocabularyConfig
from varytoy.models.connectors import connector_class
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.models.vision.clip import ClipBranch
from varytoy.models.vision.sam import VisionVocabulary
from varytoy.processing.processor import VaryProcessor

TIED = "language_model.lm_head.weight"


def load_ours(folder: Path, dtype: torch.dtype) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    """Model and processor of one of our folders.

    Raises:
        WeightsError: a file is missing, or the files do not fit together.
    """
    if not folder.is_dir():
        raise WeightsError("no such file or folder")
    needed = ("config.json", "processor_config.json", "tokenizer.json")
    missing = [entry for entry in needed if not (folder / entry).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise WeightsError(f"{folder} is not a varytoy model: it lacks {', '.join(missing)}")
    source, config = read_ours(folder)
    processor = read_processor(folder, config)
    _check_if_there(folder / "generation_config.json", GENERATION)
    with named(f"{folder} cannot be loaded"):
        if not config.shared:
            return VaryForConditionalGeneration.from_pretrained(folder, dtype=dtype), processor
        config.shared, state = (), {name: source.get(name) for name in source.tensors}
        model = VaryForConditionalGeneration.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
        if (folder / GENERATION_CONFIG_NAME).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        return model, processor


def read_ours(folder: str | Path) -> tuple[Source, VaryConfig]:
    """The weights, not yet read, and the configuration, checked against the weights' shapes.

    Raises:
        WeightsError: it is not one of our models, or it is incomplete.
    """
    source = Source(folder)
    file = source.folder / "config.json"
    if "vocabulary_config" not in source.config:
        raise WeightsError(f"{folder} is not a varytoy checkpoint; run `varytoy convert`")
    with named(f"{file}: its settings do not make a valid model"):
        config = VaryConfig.from_pretrained(source.folder)
        _check_relations(config, file)
        expected = empty_tensors(config)
    if config.shared:
        try:
            above = Source(source.folder.absolute().parent)
        except WeightsError as error:
            what = f"{' and '.join(config.shared)} must come from the checkpoint in the folder above"
            raise WeightsError(f"{file}: {what}: {error}") from error
        source.lend(above, tuple(f"{part}." for part in config.shared))
    missing = sorted(expected.keys() - source.tensors.keys())
    if missing:
        raise WeightsError(
            f"the weights of '{folder}' are not whole: {len(missing)} tensors are missing: {brief(missing)}"
        )
    for name, tensor in expected.items():
        if tensor.shape != source.tensors[name].shape:
            raise WeightsError(
                f"{file} gives {name} the shape {list(tensor.shape)}, but the weights have "
                f"{list(source.tensors[name].shape)}: they belong to different models"
            )
    return source, config


def _check_relations(config: VaryConfig, file: Path) -> None:
    """Check relations between settings that tensor shapes do not show."""
    vision, clip, text = config.vocabulary_config, config.clip_config, config.text_config
    if config.image_token_id >= text.vocab_size:
        raise WeightsError(f"{file}: image_token_id is {config.image_token_id}, and the vocabulary {text.vocab_size}")
    own = isinstance(vision, VisionVocabularyConfig)  # other branches check themselves when they are built
    if own and vision.num_layers and vision.hidden_size % vision.num_heads:
        raise WeightsError(f"{file}: vocabulary_config.hidden_size must be a multiple of num_heads")
    if isinstance(clip, ClipConfig) and isinstance(clip.layers, int) and -clip.select_layer > clip.layers:
        raise WeightsError(f"{file}: clip_config.select_layer is {clip.select_layer}, and there are {clip.layers}")


def _check_if_there(file: Path, rules: Rules) -> None:
    if file.is_file():
        read_settings(file, rules)


def empty_tensors(config: PretrainedConfig, part: str = "") -> dict[str, Tensor]:
    """Our names and tensors of the model, or of the part, that a configuration describes; on the meta device."""
    with torch.device("meta"):
        if part == "vision_vocabulary":
            model: nn.Module = VisionVocabulary(config)
        elif part == "clip":
            model = ClipBranch(config)
        elif part == "language_model":
            model = AutoModelForCausalLM.from_config(config)
        else:
            model = VaryForConditionalGeneration(config)
    prefix = f"{part}." if part else ""
    tied = bool(getattr(getattr(config, "text_config", config), "tie_word_embeddings", False))
    tensors = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    return {name: tensor for name, tensor in tensors.items() if not (tied and name == TIED)}


MAX_TEMPLATE = 2**16
"""Bytes of a chat template."""


def read_processor(folder: str | Path, config: VaryConfig) -> VaryProcessor:
    """The processor beside a model of this configuration.

    Raises:
        WeightsError: it cannot be read, or belongs to another model.
    """
    file = Path(folder) / "processor_config.json"
    read_settings(file, PROCESSOR)
    read_settings(file.with_name("tokenizer.json"), {})
    _check_if_there(file.with_name("tokenizer_config.json"), TOKENIZER)
    template = file.with_name("chat_template.jinja")
    if template.is_file() and template.stat().st_size > MAX_TEMPLATE:
        raise WeightsError(f"{template} has more than {MAX_TEMPLATE:,} bytes: no chat template is that long")
    with named(f"{file}, with tokenizer.json and tokenizer_config.json beside it, cannot be loaded"):
        processor = AutoProcessor.from_pretrained(folder)
        if not isinstance(processor, VaryProcessor):
            raise WeightsError(f"{file} is of another kind of model: {type(processor).__name__}")
        pixels, tokenizer, clip = processor.image_processor, processor.tokenizer, config.clip_config
        vocabulary = tokenizer.get_vocab()
    if processor.template == "jinja":
        with named(str(template)):
            processor.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    if tuple(pixels.stride) != config.vocabulary_config.stride:
        raise WeightsError(
            f"{file}: image_processor.stride is {tuple(pixels.stride)}, the model's {config.vocabulary_config.stride}"
        )
    vision = config.vocabulary_config
    if isinstance(vision, PatchesConfig) and pixels.mode == "patches" and pixels.max_patches > vision.max_patches:
        raise WeightsError(
            f"{file}: image_processor.max_patches is {pixels.max_patches}, more than the model's {vision.max_patches}"
        )
    latents = connector_class(config).latents_of(config)
    if pixels.latents != latents:
        raise WeightsError(f"{file}: image_processor.latents is {pixels.latents}, the connector's {latents}")
    if config.serial and pixels.clip_size:
        raise WeightsError(f"{file}: image_processor.clip_size is {pixels.clip_size}, but this CLIP takes no pixels: 0")
    if clip is not None and pixels.clip_size not in (0, clip.image_size):
        raise WeightsError(f"{file}: image_processor.clip_size is {pixels.clip_size}, the model's {clip.image_size}")
    where = f"{file.with_name('tokenizer.json')}:"
    if vocabulary.get("<imgpad>") != config.image_token_id:
        raise WeightsError(f"{where} <imgpad> is {vocabulary.get('<imgpad>')}, in the model {config.image_token_id}")
    if max(vocabulary.values()) >= config.text_config.vocab_size:
        raise WeightsError(
            f"{where} tokens to {max(vocabulary.values())}; the model has {config.text_config.vocab_size}"
        )
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise WeightsError(f"{where} no end-of-turn or padding token: tokenizer_config.json must name both")
    return processor
