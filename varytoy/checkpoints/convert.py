"""``varytoy convert SOURCE OUT``: a checkpoint of another layout as one of ours, on disk or in memory."""

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
    """A source, understood.

    Attributes:
        config: of the whole model, or of the part that the source is.
        targets: every tensor by our name, on the meta device, in the source's type.
    """

    source: Source
    config: VaryConfig | PretrainedConfig
    targets: dict[str, Tensor]
    steps: list[Step]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Our name and tensor, read as they come."""
        for step in self.steps:
            if self.targets.keys() & set(step.targets):
                yield from renamed([step], self.source.get)


def understand(path: str | Path) -> Conversion:
    """Recognise a checkpoint and check that it is whole.

    Raises:
        WeightsError: an unknown layout, or every key that is missing, unexpected or of a wrong shape.
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
        wanted = empty_tensors(config, family.part)
    if family.name == "vary-toy" and config.text_config.hidden_size == 4096:
        raise WeightsError(f"{source.path} is Vary (7B), which takes other pixels and another prompt than Vary-toy")
    lost = [name for name in wanted if name not in targets and not family.never_has(name)]
    strange = [name for name in targets if name not in wanted]
    wrong = [name for name in targets if name in wanted and targets[name].shape != wanted[name].shape]
    sentences = []
    if lost:
        sentences.append(f"missing {brief(family.source_of(name) for name in lost)}")
    if strange or unexpected:
        sentences.append(f"unexpected {brief([*unexpected, *(family.source_of(name) for name in strange)])}")
    for name in wrong:
        shapes = f"{list(targets[name].shape)} in place of {list(wanted[name].shape)}"
        sentences.append(f"{family.source_of(name)} has the shape {shapes}")
    if sentences:
        raise WeightsError(f"{source.path} looks like {family.about}, but: {'; '.join(sentences)}")
    return Conversion(source, config, targets, steps)


def _is_copy(source: Source, steps: list[Step]) -> bool:
    """Whether the decoder's scores are its embeddings, written twice."""
    said = (source.config.get("text_config") or source.config).get("tie_word_embeddings")
    homes = {target: step.sources[0] for step in steps for target in step.targets}
    table = next((home for target, home in homes.items() if target.endswith(".embed_tokens.weight")), None)
    if said is False or table is None or source.tensors[table].shape != source.tensors[homes[TIED]].shape:
        return False
    return bool(torch.equal(source.get(table), source.get(homes[TIED])))


def convert(path: str | Path, out: str | Path, dtype: str = "") -> str:
    """Write the checkpoint at ``path`` to the folder ``out`` in our layout, tensor by tensor, with its configuration,
    processor and tokenizer. A source that is a part of a model (SAM, CLIP, a decoder) becomes a folder for
    ``model.init`` of a recipe.

    Args:
        dtype: fp32, fp16 or bf16; empty for the source's.

    Returns:
        One sentence on what it was.

    Raises:
        WeightsError: it is not known or not whole, or ``out`` holds something or cannot be written.
    """
    found = understand(path)
    part = found.source.family.part
    processor = None if part else processor_for(found)
    tokenizer = _tokenizer(found.source, found.config.vocab_size) if part == "language_model" else None
    kind = DTYPES.get(dtype)

    def cast(tensor: Tensor) -> Tensor:
        return tensor if kind is None else tensor.to(kind)

    metas = {name: cast(tensor) for name, tensor in found.targets.items()}
    found.config.dtype = next(iter(metas.values())).dtype
    if isinstance(found.config, VaryConfig):
        found.config.architectures = ["VaryForConditionalGeneration"]
    with new_folder(out) as out:
        write_shards(out, metas, ((name, cast(tensor)) for name, tensor in found.tensors()))
        found.config.save_pretrained(out)
        if processor is not None:
            processor.save_pretrained(out)
        if tokenizer is not None:
            tokenizer.save_pretrained(out)
    numbers = sum(tensor.numel() for tensor in metas.values())
    return f"{found.source.family.about}: {len(metas)} tensors, {numbers:,} numbers"


def load(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    """The model and processor of a checkpoint of another layout, converted in memory.

    Raises:
        WeightsError: it is not known, not whole, or a part of a model only.
    """
    found = understand(path)
    if found.source.family.part:
        raise WeightsError(
            f"{path} is {found.source.family.about}: a part of a model, to begin a training from (model.init), which "
            "reads nothing by itself"
        )
    if found.source.family.no_reader:
        raise WeightsError(f"{path} is {found.source.family.about}; {found.source.family.no_reader}")
    processor = processor_for(found)
    state = {name: tensor.to(dtype) for name, tensor in found.tensors()}
    model = VaryForConditionalGeneration.from_pretrained(None, config=found.config, state_dict=state, dtype=dtype)
    return model, processor


def processor_for(found: Conversion) -> VaryProcessor:
    """The processor that a whole model was published with: its tokenizer, pixels, template and prompts.

    Raises:
        WeightsError: there is no tokenizer beside the weights, or one of another model.
    """
    family, config = found.source.family, found.config
    chosen = read_preset(family.preset)["processor"] | family.processor
    tokenizer = _tokenizer(found.source, config.text_config.vocab_size)
    if tokenizer is None:
        raise WeightsError(
            f"{found.source.folder} lacks a tokenizer: put tokenizer.json, qwen.tiktoken, or vocab.json and merges.txt "
            "beside the weights"
        )
    try:
        add_image_tokens(tokenizer, config.image_token_id, config.text_config.vocab_size)
    except ValueError as error:
        raise WeightsError(f"{found.source.folder}: {error}") from error
    chatml = chosen.get("template", "chatml") == "chatml"
    if chatml:
        tokenizer.eos_token = "<|im_end|>"
    known = tokenizer.get_vocab()
    for role, usual in {"eos_token": "</s>", "pad_token": "<|endoftext|>" if chatml else "<pad>"}.items():
        if getattr(tokenizer, role) is None:  # without tokenizer_config.json
            setattr(tokenizer, role, usual)
        if getattr(tokenizer, role) not in known:
            raise WeightsError(f"{found.source.folder}: its tokenizer has no token {getattr(tokenizer, role)}")
    side, clip = config.vocabulary_config.image_size, config.clip_config
    pixels = chosen.pop("image_processor") | {
        "size": (side, side),
        "stride": config.vocabulary_config.stride,
        "clip_size": clip.image_size if clip is not None else 0,
    }
    config.text_config.eos_token_id = tokenizer.eos_token_id
    config.text_config.pad_token_id = tokenizer.pad_token_id
    return VaryProcessor(VaryImageProcessor(**pixels), tokenizer, **chosen)


def _tokenizer(source: Source, words: int) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside weights for ``words`` tokens, whatever model class the folder names."""
    found = _read_tokenizer(source)
    highest = max(found.get_vocab().values(), default=0) if found is not None else 0
    if highest >= words:
        raise WeightsError(f"{source.folder}: its tokenizer has the token {highest}, and the model {words} tokens")
    return found


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
