"""Load a model and its processor by name: a folder, a file of weights, an adapter or a model of the hub."""

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download

from varytoy import registration  # noqa: F401  (AutoProcessor knows our classes)
from varytoy.checkpoints.convert import load
from varytoy.checkpoints.maps import WeightsError, brief
from varytoy.checkpoints.native import load_ours
from varytoy.checkpoints.settings import ADAPTER, named, read_settings
from varytoy.checkpoints.source import ENDINGS, Source
from varytoy.errors import first_line
from varytoy.extras import MissingExtra, require
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WANTED = ("*.json", "*.safetensors", "*.bin", "*.tiktoken", "merges.txt")
"""Files of a hub's repository that hold a model."""
_SMALL = 2**27
_ADAPTER = "adapter_config.json"


class ModelError(ValueError):
    """A model that cannot be loaded; the message says what is missing and where."""


def load_model(path: Path, dtype: torch.dtype) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    """Model and processor of one of our folders, of a PEFT folder, or of another project's checkpoint.

    Raises:
        ModelError: it is none of these, or incomplete.
    """
    try:
        if (path / _ADAPTER).is_file():
            return _load_adapted(path, dtype)
        if path.is_file() and path.name == "model.safetensors" and not _is_foreign(path.parent):
            path = path.parent  # the only file of one of our folders
        return load(path, dtype) if path.is_file() or _is_foreign(path) else load_ours(path, dtype)
    except MissingExtra as error:
        raise ModelError(str(error)) from error
    except (WeightsError, OSError) as error:
        raise ModelError(f"cannot load the model '{path}': {error}") from error


def is_small(folder: Path) -> bool:
    """Whether a folder's weights are so small that a narrower dtype saves nothing."""
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    return 0 < sum(sizes) < _SMALL and not (folder / _ADAPTER).is_file()


def model_type_of(folder: Path) -> str:
    """What a folder's ``config.json`` says of the kind of its model; empty if nothing."""
    kind = _config_in(folder).get("model_type")
    return kind if isinstance(kind, str) else ""


def load_stock(folder: Path, model: str, processor: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Model and processor of a folder in transformers' own classes of these names. Raises ModelError if something is
    missing."""
    options = {"dtype": dtype, "local_files_only": True, "output_loading_info": True}
    try:
        with named(f"cannot load the model '{folder}' as transformers' {model}"):
            loaded, found = getattr(transformers, model).from_pretrained(folder, **options)
            if found["missing_keys"]:
                raise WeightsError(f"'{folder}' lacks {brief(sorted(found['missing_keys']))}")
            return loaded, getattr(transformers, processor).from_pretrained(folder, local_files_only=True)
    except WeightsError as error:
        raise ModelError(str(error)) from error


def _config_in(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # reported when the file is read
        return {}
    return config if isinstance(config, dict) else {}


def _is_foreign(folder: Path) -> bool:
    """Whether a folder has weights and is not one of ours (whose configuration has ``vocabulary_config``)."""
    config = _config_in(folder)
    if "vocabulary_config" in config:
        return False
    ours = (folder / "processor_config.json").is_file() and not config
    return not ours and any(any(folder.glob(f"*{end}")) for end in (*ENDINGS, ".index.json"))


def find(name: str) -> Path:
    """The file or folder of that name, or a model of the hub, downloaded without the code beside it.

    Raises:
        ModelError: it cannot be downloaded.
    """
    path = Path(name)
    try:
        if path.exists() or not _HUB_ID.fullmatch(name):
            return path
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the model '{name}' from the hub: {first_line(error)}") from error


def _load_adapted(folder: Path, dtype: torch.dtype) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    """The base of a PEFT folder with the adapters merged in."""
    require("train", "peft", by=f"'{folder}' is an adapter, which")
    from peft import PeftModel, get_peft_model_state_dict

    file = folder / _ADAPTER
    settings = read_settings(file, ADAPTER)
    stored = _adapter_shapes(folder, settings)
    base = base_of(folder)
    try:
        path = find(base)
        if (path / _ADAPTER).is_file():
            raise ModelError(f"'{path}' is an adapter as well, and a base is a whole model")
        model, processor = load_model(path, dtype)
    except ModelError as error:
        raise ModelError(f"'{folder}' is an adapter, and its base cannot be loaded: {error}") from error
    with named(f"{file}: the adapter does not fit '{path}'"):
        adapted = PeftModel.from_pretrained(model, folder)
        expected = {name: tensor.shape for name, tensor in get_peft_model_state_dict(adapted).items()}
        if expected != stored:
            raise WeightsError(f"{file}: its settings give other tensors for '{path}' than its weights have")
        return adapted.merge_and_unload(), processor


def base_of(folder: Path) -> str:
    """The base of a PEFT folder: a folder or a hub id. Raises ModelError if it names none."""
    # The run's own folder comes first: the stored path may belong to another run by now.
    local_bases = (parent / "base" for parent in (folder, folder.parent) if (parent / "base" / "config.json").is_file())
    base = str(next(local_bases, "")) or read_settings(folder / _ADAPTER, ADAPTER).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"'{folder}' is an adapter, and its {_ADAPTER} names no base")
    return base


def _adapter_shapes(folder: Path, settings: dict) -> dict[str, torch.Size]:
    """Shapes of the adapter's tensors, whose rank must match its settings: PEFT would build any rank."""
    files = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise WeightsError(f"'{folder}' is an adapter without weights: it lacks {files[0].name}")
    shapes = {name: tensor.shape for name, tensor in Source(file).tensors.items()}
    ranks = {settings.get("r", 8), *(settings.get("rank_pattern") or {}).values()}
    if not any(".lora_A." in name for name in shapes):
        raise WeightsError(f"{file} holds no adapters")
    for name, shape in shapes.items():
        if ".lora_A." in name and (not shape or shape[0] not in ranks):
            raise WeightsError(
                f"{file}: {name} has the shape {list(shape)}, and {_ADAPTER} the rank {settings.get('r', 8)}"
            )
    return shapes
