"""Features of frozen towers, once a picture: ``python -m train features RECIPE`` writes them, a run reads them.

A frozen tower says the same of a picture at every step. With ``features: FOLDER`` in the recipe a run neither computes
nor loads the towers; it takes from FOLDER what ``features`` has put there. Pictures are known by their files' SHA-256,
towers by that of their weights and settings: where either has changed, a run refuses to begin.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from train.recipe import Recipe, RecipeError
from varytoy.config import VaryConfig
from varytoy.processing import VaryProcessor
from varytoy.samples import Sample, SampleError

TOWERS = ("vision_vocabulary.", "clip.")
_SHARD = 256  # pictures a file


def tower_tensors(folders: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The towers' tensors in a recipe's ``init``, under the model's names; where one is there twice, the last."""
    homes: dict[str, tuple[Path, str]] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for stored in file.keys():
                    name = f"clip.{stored}" if stored.startswith("visual.") else stored
                    if name.startswith(TOWERS):
                        homes[name] = (path, stored)
    for name, (path, stored) in sorted(homes.items()):
        with safe_open(path, "pt") as file:
            yield name, file.get_tensor(stored)


def tower_hash(recipe: Recipe, config: VaryConfig, processor: VaryProcessor) -> str:
    """SHA-256 of all that features depend on beside the picture."""
    digest = hashlib.sha256()
    settings = [config.vocabulary_config.to_dict(), config.clip_config and config.clip_config.to_dict()]
    settings.append(processor.image_processor.to_dict())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    found = False
    for name, tensor in tower_tensors(recipe.model.init):
        found = True
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    if not found:
        raise RecipeError("features: the towers have no weights yet: name a checkpoint that holds them in model.init")
    return digest.hexdigest()


def image_key(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class FeatureStore:
    """What ``features`` wrote to a folder.

    Raises:
        RecipeError: nothing is there, or it was made with other towers.
    """

    def __init__(self, folder: Path, towers: str):
        index = folder / "index.json"
        again = "run `python -m train features` with this recipe"
        if not index.is_file():
            raise RecipeError(f"features: {folder} holds none: {again}")
        found = json.loads(index.read_text(encoding="utf-8"))
        if found["towers"] != towers:
            raise RecipeError(f"features: {folder} was made with other towers or settings: {again}")
        self.folder, self.shards = folder, found["shards"]
        self._files: dict[str, object] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.shards

    def get(self, key: str) -> dict[str, Tensor]:
        """``vocabulary`` [h, w, D1] and, with a CLIP branch, ``clip`` [h2, w2, D2] of a picture, fp16."""
        shard = self.shards[key]
        if shard not in self._files:
            self._files[shard] = safe_open(self.folder / shard, "pt").__enter__()
        file = self._files[shard]
        names = [name for name in ("vocabulary", "clip") if f"{key}.{name}" in file.keys()]
        return {name: file.get_tensor(f"{key}.{name}") for name in names}


def check_all(store: FeatureStore, samples: Sequence[Sample]) -> None:
    """Raises RecipeError for the first picture that has no features, because it is new or was changed. Pictures that
    could not be opened count as known: their samples are bad ones."""
    for path in sorted({path for sample in samples for path in sample.image_paths()}):
        if path.is_file() and image_key(path) not in store:
            raise RecipeError(f"features: none for {path}, which is new or has changed: run `python -m train features`")


def _open(entries: Sequence[tuple[str, Sample, int]], bad: Callable[[Exception], None]) -> tuple[list, list[str]]:
    """The pictures that can be opened, and their keys."""
    images, keys = [], []
    for key, sample, number in entries:
        try:
            images.append(sample.open_images()[number])
            keys.append(key)
        except SampleError as error:
            bad(error)
    return images, keys


@torch.no_grad()
def write(recipe: Recipe, batch_size: int = 8) -> int:
    """Compute the features of all pictures of the recipe's data that are not there yet. Returns how many there are.

    Raises:
        RecipeError, SampleError: what is wrong and how to mend it.
    """
    from train.data import BadSamples, SampleDataset, view_of
    from train.model import build

    if not recipe.features:
        raise RecipeError("features: name a folder for them, e.g. features=runs/features")
    folder = Path(recipe.features)
    bad = BadSamples()
    data = SampleDataset(recipe.data, recipe.train.seed, bad)
    model, processor, _ = build(recipe, with_towers=True)
    if processor.image_processor.mode == "fit":
        raise RecipeError("features: this model sees pictures in their own sizes; features are for those of one size")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.vision_vocabulary.to(device).eval()
    if model.clip is not None:
        model.clip.to(device).eval()
    towers = tower_hash(recipe, model.config, processor)
    index = {"towers": towers, "shards": {}}
    try:
        index["shards"] = FeatureStore(folder, towers).shards
    except RecipeError:
        pass  # none, or of other towers: all are made anew
    wanted: dict[str, tuple[Sample, int]] = {}
    for sample in data.samples:
        for number, path in enumerate(sample.image_paths()):
            if path.is_file():
                wanted.setdefault(image_key(path), (sample, number))
    missing = [key for key in wanted if key not in index["shards"]]
    folder.mkdir(parents=True, exist_ok=True)
    first = len(set(index["shards"].values()))
    for start in tqdm(range(0, len(missing), _SHARD), unit="shard", desc="features"):
        part, tensors = missing[start : start + _SHARD], {}
        for begin in range(0, len(part), batch_size):
            keys = part[begin : begin + batch_size]
            images, keys = _open([(key, *wanted[key]) for key in keys], bad)
            if not images:
                continue
            pixels = processor.image_processor(images, [view_of(wanted[key][0]) for key in keys])
            vocabulary = model.vision_vocabulary(pixels["pixel_values"].to(device, model.dtype)).half().cpu()
            tensors |= {f"{key}.vocabulary": row.clone() for key, row in zip(keys, vocabulary, strict=True)}
            if model.clip is not None:
                clip = model.clip(pixels["clip_pixel_values"].to(device, model.dtype)).half().cpu()
                tensors |= {f"{key}.clip": row.clone() for key, row in zip(keys, clip, strict=True)}
        if not tensors:
            index["shards"] |= dict.fromkeys(part, "")
            continue
        shard = f"features-{first + start // _SHARD:05d}.safetensors"
        save_file(tensors, folder / shard)
        index["shards"] |= {key: shard if f"{key}.vocabulary" in tensors else "" for key in part}
        aside = folder / "index.json.part"
        aside.write_text(json.dumps(index), encoding="utf-8")
        aside.replace(folder / "index.json")
    return len(wanted)
