"""Read checkpoints from disk: names and shapes at once, tensors one at a time and memory-mapped, never unpickled."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from varytoy.checkpoints.maps import Family, WeightsError, recognise
from varytoy.checkpoints.settings import FOREIGN, OPEN_CLIP, OURS, named, read_settings

_SHARD = 512 * 2**20
"""Bytes per file: each shard is held in memory before it is written."""
_PICKLED = (".bin", ".pth", ".pt")
ENDINGS = (".safetensors", *_PICKLED)
"""Suffixes of weight files."""
_OTHERS = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""Other files that a Trainer pickles beside the weights."""
_WRAPPERS = ("model", "state_dict", "model_state_dict")


class Source:
    """A file of weights, or a folder with such files and a ``config.json``.

    Attributes:
        path: file or folder; ``folder``: where configuration and tokenizer are looked for.
        config: the content of ``config.json``, empty without one.
        tensors: every tensor by name, on the meta device.

    Raises:
        WeightsError: there are no weights, or they cannot be read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.folder = self.path if self.path.is_dir() else self.path.parent
        self.config = self._read_config()
        self.tensors: dict[str, Tensor] = {}
        self._homes: dict[str, Path] = {}
        self._open: tuple[Path, Any] | None = None
        for file in self._files():
            for name, tensor in self._shapes(file):
                if name in self.tensors:
                    other = self._homes[name].name
                    raise WeightsError(f"{self.folder}: {name} is in {other} and in {file.name}: name one of the files")
                self.tensors[name], self._homes[name] = tensor, file

    def lend(self, other: "Source", prefixes: tuple[str, ...]) -> None:
        """Take the tensors whose names begin with one of ``prefixes`` from another source."""
        for name, tensor in other.tensors.items():
            if name.startswith(prefixes):
                self.tensors[name], self._homes[name] = tensor, other._homes[name]

    @cached_property
    def family(self) -> Family:
        """Its layout. Raises WeightsError if it is unknown."""
        return recognise(self.tensors, str(self.path))

    def get(self, name: str) -> Tensor:
        """A tensor, memory-mapped where the file format allows it."""
        file = self._homes[name]
        if self._open is None or self._open[0] != file:
            self._open = (file, _pickled(file) if file.suffix in _PICKLED else safe_open(file, "pt"))
        opened = self._open[1]
        return opened[name] if isinstance(opened, dict) else opened.get_tensor(name)

    def _shapes(self, file: Path) -> Iterator[tuple[str, Tensor]]:
        if file.suffix in _PICKLED:
            for name, tensor in _pickled(file).items():
                yield name, tensor.to("meta")
            return
        with named(f"{file}: no whole safetensors file"), safe_open(file, "pt") as opened:
            for name in opened.keys():
                part = opened.get_slice(name)
                yield name, torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")

    def _files(self) -> list[Path]:
        if self.path.is_file():
            if self.path.suffix not in ENDINGS:
                raise WeightsError(f"{self.path}: weights end in {', '.join(ENDINGS)}")
            return [self.path]
        if not self.path.is_dir():
            raise WeightsError(f"{self.path}: no such file or folder")
        for whole in ("model.safetensors", "pytorch_model.bin"):
            if (self.path / f"{whole}.index.json").is_file():
                return self._indexed(self.path / f"{whole}.index.json")
            if (self.path / whole).is_file():
                return [self.path / whole]
        files = sorted(file for file in self.path.iterdir() if file.is_file() and not file.name.startswith(_OTHERS))
        for endings in ((".safetensors",), _PICKLED):
            if weight_files := [file for file in files if file.suffix in endings]:
                return weight_files
        raise WeightsError(f"{self.path} lacks weights: no *.safetensors and no pytorch_model.bin")

    def _indexed(self, index: Path) -> list[Path]:
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{index}: no index of files of weights") from error
        for name in names:
            if not isinstance(name, str) or not name.endswith(ENDINGS) or Path(name).name != name:
                raise WeightsError(f"{index}: it names {str(name)[:80]!r}, which is no file of weights beside it")
        missing = sorted(name for name in names if not (self.path / name).is_file())
        if missing:
            raise WeightsError(f"{self.path} lacks {', '.join(missing)}, which {index.name} names")
        return [self.path / name for name in sorted(names)]

    def _read_config(self) -> dict:
        file = self.folder / "config.json"
        if not file.is_file() and (self.folder / "open_clip_config.json").is_file():
            settings = read_settings(self.folder / "open_clip_config.json", OPEN_CLIP).get("model_cfg") or {}
            return {"vision_config": {"hidden_act": "quick_gelu" if settings.get("quick_gelu") else "gelu"}}
        if not file.is_file():
            return {}
        config = read_settings(file, {})
        return read_settings(file, OURS if "vocabulary_config" in config else FOREIGN)


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """Context: a new folder, which is removed again if writing to it fails.

    Raises:
        WeightsError: it exists and is not empty, or cannot be written, as on a full disk.
    """
    out = Path(out)
    try:
        existed = out.is_dir()
        if out.exists() and (not existed or any(out.iterdir())):
            raise WeightsError(f"{out} is there already: name a new folder")
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{out} cannot be made: {error.strerror}") from error
    try:
        yield out
    except BaseException as error:
        for entry in out.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not existed:
            out.rmdir()
        if (
            isinstance(error, (OSError, SafetensorError)) or type(error) is Exception
        ):  # the tokenizers library raises a bare Exception
            raise WeightsError(f"{out} cannot be written: {error}; what was begun is removed") from error
        raise


def write_shards(out: Path, metas: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write tensors as they arrive into files of half a GiB, with an index where there are several.

    Args:
        metas: every tensor that will be written, in this order; only shapes and dtypes are used.
    """
    shards = split_torch_state_dict_into_shards(
        dict(metas), filename_pattern="model{suffix}.safetensors", max_shard_size=_SHARD
    )
    left = {file: set(names) for file, names in shards.filename_to_tensors.items()}
    ready: dict[str, dict[str, Tensor]] = {file: {} for file in left}
    for name, tensor in tensors:
        file = shards.tensor_to_filename[name]
        ready[file][name] = tensor.contiguous()
        if ready[file].keys() == left[file]:
            save_file(ready.pop(file), out / file, metadata={"format": "pt"})
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _pickled(file: Path) -> dict[str, Tensor]:
    """The tensors of a torch.save file, loaded without executing code."""
    try:
        try:
            tree = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:  # the format from before torch 1.6 cannot be mapped
            if "mmap" not in str(error):
                raise
            tree = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types here, some of them from the unpickler
        raise WeightsError(f"{file}: cannot be read as weights: it is cut short, or holds more than tensors") from error
    for wrapper in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
            break
    tree = tree if isinstance(tree, dict) else {}
    tensors = {name: value for name, value in tree.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{file}: holds no tensors")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(f"{file}: {name} is no plain tensor, but one of another layout or of repeated numbers")
    return tensors


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
