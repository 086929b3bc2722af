"""Cached features of frozen towers: ``python -m train features RECIPE`` writes them, a run reads them.

A frozen tower gives the same features of an image at every step. With ``features: FOLDER`` in the recipe a run neither
loads nor runs the towers, but reads their features from FOLDER. Images are identified by their files' SHA-256, towers
by that of their weights and settings: if either has changed, a run refuses to start.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from train.data.mirror import is_mirrored
from train.recipe import RecipeError
from varytoy.data.sample import Sample, image_file


def image_key(path: Path) -> str:
    source = image_file(path)
    return hashlib.sha256(source.read_bytes() if isinstance(source, Path) else source.getvalue()).hexdigest()


def feature_key(image: str, sample: Sample) -> str:
    """Key of a sample's features, from that of its image."""
    return f"{image}-mirrored" if is_mirrored(sample) else image


class FeatureStore:
    """Reads the features that ``features`` wrote to a folder.

    Raises:
        RecipeError: there are none, or they were made with other towers.
    """

    def __init__(self, folder: Path, towers: str):
        index = folder / "index.json"
        fix = "run `python -m train features` with this recipe"
        if not index.is_file():
            raise RecipeError(f"features: {folder} holds none: {fix}")
        try:
            stored = json.loads(index.read_text(encoding="utf-8"))
            self.shards, self.unreadable = dict(stored["shards"]), set(stored["unreadable"])
            stored_towers = stored["towers"]
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(f"features: {index} is damaged: {fix}") from error
        if stored_towers != towers:
            raise RecipeError(f"features: {folder} was made with other towers or settings: {fix}")
        self.folder = folder
        self._files: dict[str, object] = {}
        self._keys: dict[Path, str] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.shards

    def key(self, path: Path) -> str:
        """The image's key; its file is read once per run."""
        if path not in self._keys:
            self._keys[path] = image_key(path)
        return self._keys[path]

    def get(self, key: str) -> dict[str, Tensor]:
        """``vocabulary`` [h, w, D1] and, with a CLIP branch, ``clip`` [h2, w2, D2] of an image, fp16."""
        if key not in self.shards:
            raise ValueError("its image has no features: the towers could not process it")
        shard = self.shards[key]
        if shard not in self._files:
            self._files[shard] = safe_open(self.folder / shard, "pt").__enter__()
        file = self._files[shard]
        names = [name for name in ("vocabulary", "clip") if f"{key}.{name}" in file.keys()]
        return {name: file.get_tensor(f"{key}.{name}") for name in names}


def check_all(store: FeatureStore, samples: Sequence[Sample]) -> None:
    """Raises RecipeError for the first image without features, because it is new or has changed. An image that
    cannot be opened needs none: its sample is a bad sample."""
    images = {(path, is_mirrored(sample)): sample for sample in samples for path in sample.image_paths()}
    for (path, _), sample in sorted(images.items(), key=lambda item: item[0]):
        try:
            key = feature_key(store.key(path), sample)
        except (OSError, ValueError):
            continue
        if key not in store and key not in store.unreadable:
            raise RecipeError(f"features: none for {path}, which is new or has changed: run `python -m train features`")
