"""``varytoy convert SOURCE OUT``: convert a checkpoint of another layout to ours, on disk or in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GPT2Tokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from varytoy.checkpoints.infer_config import config_of
from varytoy.checkpoints.maps import Step, WeightsError, brief, renamed
from varytoy.checkpoints.native import TIED, empty_tensors
from varytoy.checkpoints.qwen_tokenizer import tokenizer_from_ranks
from varytoy.checkpoints.settings import named
from varytoy.checkpoints.source import Source, new_folder, write_shards
from varytoy.devices.precision import DTYPES
from varytoy.errors import first_line
from varytoy.models.config import VaryConfig, read_preset
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.processor import VaryProcessor
from varytoy.processing.tokenizer import add_image_tokens


@dataclass
class Conversion:
    """A recognised and checked checkpoint, ready to be converted.

    Attributes:
        config: of the whole model, or of the part that the source holds.
        targets: every tensor under our name, on the meta device, in the source's dtype.
    """

    source: Source
    config: VaryConfig | PretrainedConfig
    targets: dict[str, Tensor]
    steps: list[Step]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Pairs of our name and the tensor, read one at a time."""
        for step in self.steps:
            if self.targets.keys() & set(step.targets):
                yield from renamed([step], self.source.get)


def understand(path: str | Path) -> Conversion:
    """Recognise a checkpoint and check that it is complete.

    Raises:
        WeightsError: the layout is unknown, or keys are missing, unexpected or of a wrong shape; it lists all of them.
    """
    source = Source(path)
    if "vocabulary_config" in source.config:
        raise WeightsError(f"{path} is a varytoy checkpoint already")
    family = source.family
    steps, unexpected = family.steps(source.tensors)
    with named(f"{source.path}: its tensors or its config.json do not make {family.about}"):
        targets = dict(renamed(steps, source.tensors.__getitem__))
        if TIED in targets and _is_copy(source, steps):
            del targets[TIED]
        config = config_of(targets, family, source.config)
        expected = empty_tensors(config, family.part)
    if family.name == "vary-toy" and config.text_config.hidden_size == 4096:
        raise WeightsError(f"{source.path} is Vary (7B), which takes other pixels and another prompt than Vary-toy")
    missing = [name for name in expected if name not in targets and not family.never_has(name)]
    extra = [name for name in targets if name not in expected]
    mismatched = [name for name in targets if name in expected and targets[name].shape != expected[name].shape]
    problems = []
    if missing:
        problems.append(f"missing {brief(family.source_of(name) for name in missing)}")
    if extra or unexpected:
        problems.append(f"unexpected {brief([*unexpected, *(family.source_of(name) for name in extra)])}")
    for name in mismatched:
        shapes = f"{list(targets[name].shape)} in place of {list(expected[name].shape)}"
        problems.append(f"{family.source_of(name)} has the shape {shapes}")
    if problems:
        raise WeightsError(f"{source.path} looks like {family.about}, but: {'; '.join(problems)}")
    return Conversion(source, config, targets, steps)


def _is_copy(source: Source, steps: list[Step]) -> bool:
    """Whether the decoder's output layer is a stored copy of its input embeddings."""
    tied = (source.config.get("text_config") or source.config).get("tie_word_embeddings")
    source_of = {target: step.sources[0] for step in steps for target in step.targets}
    table = next(
        (source_name for target, source_name in source_of.items() if target.endswith(".embed_tokens.weight")), None
    )
    if tied is False or table is None or source.tensors[table].shape != source.tensors[source_of[TIED]].shape:
        return False
    return bool(torch.equal(source.get(table), source.get(source_of[TIED])))


def convert(path: str | Path, out: str | Path, dtype: str = "") -> str:
    """Write the checkpoint at ``path`` to the folder ``out`` in our layout, tensor by tensor, with its configuration,
    processor and tokenizer. A part of a model (SAM, CLIP, a decoder) becomes a folder for ``model.init`` of a recipe.

    Args:
        dtype: fp32, fp16 or bf16; empty for the source's.

    Returns:
        One sentence that describes the source.

    Raises:
        WeightsError: the layout is unknown or incomplete, or ``out`` is not empty or cannot be written.
    """
    conversion = understand(path)
    part = conversion.source.family.part
    processor = None if part else processor_for(conversion)
    tokenizer = _tokenizer(conversion.source, conversion.config.vocab_size) if part == "language_model" else None
    target_dtype = DTYPES.get(dtype)

    def cast(tensor: Tensor) -> Tensor:
        return tensor if target_dtype is None else tensor.to(target_dtype)

    metas = {name: cast(tensor) for name, tensor in conversion.targets.items()}
    conversion.config.dtype = next(iter(metas.values())).dtype
    if isinstance(conversion.config, VaryConfig):
        conversion.config.architectures = ["VaryForConditionalGeneration"]
    with new_folder(out) as out:
        write_shards(out, metas, ((name, cast(tensor)) for name, tensor in conversion.tensors()))
        conversion.config.save_pretrained(out)
        if processor is not None:
            processor.save_pretrained(out)
        if tokenizer is not None:
            tokenizer.save_pretrained(out)
    count = sum(tensor.numel() for tensor in metas.values())
    return f"{conversion.source.family.about}: {len(metas)} tensors, {count:,} numbers"


def load(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    """The model and processor of a checkpoint of another layout, converted in memory.

    Raises:
        WeightsError: the layout is unknown or incomplete, or holds only a part of a model.
    """
    conversion = understand(path)
    if conversion.source.family.part:
        raise WeightsError(
            f"{path} is {conversion.source.family.about}: a part of a model; it can start a training run (model.init), "
            "but cannot read by itself"
        )
    if conversion.source.family.no_reader:
        raise WeightsError(f"{path} is {conversion.source.family.about}; {conversion.source.family.no_reader}")
    processor = processor_for(conversion)
    state = {name: tensor.to(dtype) for name, tensor in conversion.tensors()}
    model = VaryForConditionalGeneration.from_pretrained(None, config=conversion.config, state_dict=state, dtype=dtype)
    return model, processor


def processor_for(conversion: Conversion) -> VaryProcessor:
    """The processor of a published model: its tokenizer, image settings, template and prompts.

    Raises:
        WeightsError: there is no tokenizer beside the weights, or it belongs to another model.
    """
    family, config = conversion.source.family, conversion.config
    chosen = read_preset(family.preset)["processor"] | family.processor
    tokenizer = _tokenizer(conversion.source, config.text_config.vocab_size)
    if tokenizer is None:
        raise WeightsError(
            f"{conversion.source.folder} lacks a tokenizer: put tokenizer.json, qwen.tiktoken, or vocab.json and "
            "merges.txt beside the weights"
        )
    try:
        add_image_tokens(tokenizer, config.image_token_id, config.text_config.vocab_size)
    except ValueError as error:
        raise WeightsError(f"{conversion.source.folder}: {error}") from error
    chatml = chosen.get("template", "chatml") == "chatml"
    if chatml:
        tokenizer.eos_token = "<|im_end|>"
    known = tokenizer.get_vocab()
    for role, usual in {"eos_token": "</s>", "pad_token": "<|endoftext|>" if chatml else "<pad>"}.items():
        if getattr(tokenizer, role) is None:  # without tokenizer_config.json
            setattr(tokenizer, role, usual)
        if getattr(tokenizer, role) not in known:
            raise WeightsError(f"{conversion.source.folder}: its tokenizer has no token {getattr(tokenizer, role)}")
    side, clip = config.vocabulary_config.image_size, config.clip_config
    pixels = chosen.pop("image_processor") | {
        "size": (side, side),
        "stride": config.vocabulary_config.stride,
        "clip_size": clip.image_size if clip is not None else 0,
    }
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.pad_token_id
    return VaryProcessor(VaryImageProcessor(**pixels), tokenizer, **chosen)


def _tokenizer(source: Source, vocab_size: int) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside the weights of a model with ``vocab_size`` tokens, whatever class the folder names."""
    tokenizer = _read_tokenizer(source)
    highest = max(tokenizer.get_vocab().values(), default=0) if tokenizer is not None else 0
    if highest >= vocab_size:
        raise WeightsError(f"{source.folder}: its tokenizer has the token {highest}, and the model {vocab_size} tokens")
    return tokenizer


def _read_tokenizer(source: Source) -> PreTrainedTokenizerBase | None:
    names = {file.name for file in source.folder.iterdir()}
    ranks = next(iter(sorted(name for name in names if name.endswith(".tiktoken"))), None)
    try:
        if "tokenizer.json" in names:
            return PreTrainedTokenizerFast.from_pretrained(source.folder)
        if ranks is not None:
            return tokenizer_from_ranks(source.folder / ranks)
        if {"vocab.json", "merges.txt"} <= names:
            return GPT2Tokenizer.from_pretrained(source.folder)
    except WeightsError:
        raise
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise WeightsError(f"{source.folder}: its tokenizer cannot be loaded: {first_line(error)}") from error
    return None
