"""Transfer of weights between stages: load the tensors that fit a model, and the towers of a recipe's ``init``."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from train.recipe import RecipeError
from varytoy.models.config import VaryConfig
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.images import CLIP_MEAN, CLIP_STD
from varytoy.processing.processor import VaryProcessor

TOWERS = ("vision_vocabulary.", "clip.")
_PARTS = ("language_model", "clip", "vision_vocabulary")
"""Parts that a checkpoint of their own can hold, in the order in which its tensors' names are looked for."""


class Towers:
    """The weights of a recipe's towers in the folders of its ``init``; of duplicates, the last one is used.

    Raises:
        RecipeError: a tensor is missing, or has only other shapes.
    """

    def __init__(self, folders: Sequence[str], config: VaryConfig):
        self.config = config
        with torch.device("meta"):
            whole = VaryForConditionalGeneration(config).state_dict()
        expected = {name: tuple(tensor.shape) for name, tensor in whole.items() if name.startswith(TOWERS)}
        self.homes: dict[str, tuple[Path, str]] = {}
        for folder in folders:
            for path in sorted(Path(folder).glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    for stored in file.keys():
                        shape = tuple(file.get_slice(stored).get_shape())
                        for name in (stored, f"clip.{stored}", f"vision_vocabulary.{stored}"):
                            if expected.get(name) == shape:
                                self.homes[name] = (path, stored)
        missing = sorted(expected.keys() - self.homes.keys())
        if missing:
            raise RecipeError(
                f"features: model.init does not hold the whole towers: {len(missing)} tensors are missing, "
                f"first {missing[0]}"
            )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names in the model and tensors, sorted by name."""
        for name, (path, stored) in sorted(self.homes.items()):
            with safe_open(path, "pt") as file:
                yield name, file.get_tensor(stored)

    def digest(self, processor: VaryProcessor) -> str:
        """SHA-256 of everything beside the image that determines features; these are computed in 32 bits."""
        config = self.config
        digest = hashlib.sha256()
        settings = [config.vocabulary_config.to_dict(), config.clip_config and config.clip_config.to_dict()]
        pixels = processor.image_processor.to_dict()
        pixels.pop("max_patches")  # for a mode that features are not made in
        for name, usual in (("clip_mean", CLIP_MEAN), ("clip_std", CLIP_STD), ("standardize", False)):
            if pixels[name] == usual:
                del pixels[name]  # features from before this setting keep their digest
        settings.append(pixels)
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, tensor in self.tensors():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()


@dataclass
class Loaded:
    """Result of loading a checkpoint: names of the model's tensors that were loaded (``taken``) and that were not
    (``left``), and of the checkpoint's tensors with other shapes (``misfits``)."""

    taken: set[str]
    left: list[str]
    misfits: list[str]


@torch.no_grad()
def load_stage(model: nn.Module, folder: Path) -> Loaded:
    """Copy every tensor of a checkpoint that fits the model: ours by name, a bare decoder's into ``language_model``,
    an image net (``visual.…``) into ``clip``, or into ``vision_vocabulary`` if that is of its kind.

    Of embedding tables of other lengths the common rows are copied. OPT's position table is interpolated. If a CLIP
    branch is added, the vision vocabulary keeps the last channels, which are its own (see Connector).
    """
    state = model.state_dict()
    taken, misfits = set(), []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for stored in file.keys():
                candidates = (stored, *(f"{part}.{stored}" for part in _PARTS))
                name = next((candidate for candidate in candidates if candidate in state), None)
                if name is None:
                    continue
                tensor, target = file.get_tensor(stored), state[name]
                if tensor.shape[1:] == target.shape[1:]:
                    if name.endswith("embed_positions.weight"):
                        tensor = stretch_positions(tensor, len(target))
                    elif name.startswith("connector.mm_projector_vary."):
                        tensor = tensor[-len(target) :]
                    elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                        tensor = tensor[: len(target)]
                        target = target[: len(tensor)]
                if tensor.shape == target.shape:
                    target.copy_(tensor)
                    taken.add(name)
                else:
                    misfits.append(stored)
    storages = {state[name].data_ptr() for name in taken}
    left = [name for name in state if name not in taken and state[name].data_ptr() not in storages]
    return Loaded(taken, left, misfits)


def _settings(config: VaryConfig) -> dict:
    """The settings of a configuration that affect the model's output."""
    irrelevant = {"_name_or_path", "architectures", "dtype", "transformers_version"}
    irrelevant |= {"bos_token_id", "eos_token_id", "pad_token_id"}  # some Trainer releases write the tokenizer's here

    def without(tree):
        return (
            {key: without(value) for key, value in tree.items() if key not in irrelevant}
            if isinstance(tree, dict)
            else tree
        )

    return without(config.to_dict())


def is_whole(model: nn.Module, folder: Path) -> bool:
    """Whether a folder holds exactly this model: all tensors with their shapes, and the same settings."""
    if not (folder / "config.json").is_file() or _settings(VaryConfig.from_pretrained(folder)) != _settings(
        model.config
    ):
        return False
    shapes = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    tied = set(model.all_tied_weights_keys)
    return all(
        shapes.get(name) == tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied
    )


def stretch_positions(table: Tensor, rows: int, reserved: int = 2) -> Tensor:
    """Resize OPT's learned positions [n, D] to ``rows`` rows by linear interpolation with aligned ends.

    The first ``reserved`` rows are not positions (OPT's offset for padding) and are kept. The vocabulary stage needs
    4,096 positions, OPT was trained with 2,048 (Vary, arXiv 2312.06109).
    """
    if rows == table.shape[0]:
        return table
    positions = table[reserved:].float().T[None]
    positions = F.interpolate(positions, size=rows - reserved, mode="linear", align_corners=True)[0].T
    return torch.cat([table[:reserved], positions.to(table.dtype)])
