"""Features of frozen towers, once a picture: ``python -m train features RECIPE`` writes them, a run reads them.

A frozen tower says the same of a picture at every step. With ``features: FOLDER`` in the recipe a run neither computes
nor loads the towers; it takes from FOLDER what ``features`` has put there. Pictures are known by their files' SHA-256,
towers by that of their weights and settings: where either has changed, a run refuses to begin.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from train.recipe import Recipe, RecipeError
from train.run_folder import write_aside, writing
from varytoy.data.samples import Sample, open_image
from varytoy.models.config import VaryConfig
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor

TOWERS = ("vision_vocabulary.", "clip.")
_SHARD = 256  # pictures a file


class Towers:
    """The weights of a recipe's towers, as they lie in its ``init``; where one is there twice, the last.

    Raises:
        RecipeError: a tensor is nowhere, or only in another shape.
    """

    def __init__(self, folders: Sequence[str], config: VaryConfig):
        self.config = config
        with torch.device("meta"):
            whole = VaryForConditionalGeneration(config).state_dict()
        wanted = {name: tuple(tensor.shape) for name, tensor in whole.items() if name.startswith(TOWERS)}
        self.homes: dict[str, tuple[Path, str]] = {}
        for folder in folders:
            for path in sorted(Path(folder).glob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    for stored in file.keys():
                        name = f"clip.{stored}" if stored.startswith("visual.") else stored
                        if wanted.get(name) == tuple(file.get_slice(stored).get_shape()):
                            self.homes[name] = (path, stored)
        missing = sorted(wanted.keys() - self.homes.keys())
        if missing:
            raise RecipeError(
                f"features: model.init does not hold the whole towers: {len(missing)} tensors are missing, "
                f"first {missing[0]}"
            )

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Under the model's names, sorted."""
        for name, (path, stored) in sorted(self.homes.items()):
            with safe_open(path, "pt") as file:
                yield name, file.get_tensor(stored)

    def digest(self, processor: VaryProcessor) -> str:
        """SHA-256 of all that features depend on beside the picture; they are computed in 32 bits."""
        config = self.config
        digest = hashlib.sha256()
        settings = [config.vocabulary_config.to_dict(), config.clip_config and config.clip_config.to_dict()]
        settings.append(processor.image_processor.to_dict())
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, tensor in self.tensors():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
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
        try:
            found = json.loads(index.read_text(encoding="utf-8"))
            self.shards, self.unreadable = dict(found["shards"]), set(found["unreadable"])
            made_with = found["towers"]
        except (ValueError, KeyError, TypeError) as error:
            raise RecipeError(f"features: {index} is damaged: {again}") from error
        if made_with != towers:
            raise RecipeError(f"features: {folder} was made with other towers or settings: {again}")
        self.folder = folder
        self._files: dict[str, object] = {}
        self._keys: dict[Path, str] = {}

    def __contains__(self, key: str) -> bool:
        return key in self.shards

    def key(self, path: Path) -> str:
        """The picture's key; its file is read once a run."""
        if path not in self._keys:
            self._keys[path] = image_key(path)
        return self._keys[path]

    def get(self, key: str) -> dict[str, Tensor]:
        """``vocabulary`` [h, w, D1] and, with a CLIP branch, ``clip`` [h2, w2, D2] of a picture, fp16."""
        if key not in self.shards:
            raise ValueError("its picture has no features: the towers could not take it")
        shard = self.shards[key]
        if shard not in self._files:
            self._files[shard] = safe_open(self.folder / shard, "pt").__enter__()
        file = self._files[shard]
        names = [name for name in ("vocabulary", "clip") if f"{key}.{name}" in file.keys()]
        return {name: file.get_tensor(f"{key}.{name}") for name in names}


def check_all(store: FeatureStore, samples: Sequence[Sample]) -> None:
    """Raises RecipeError for the first picture that has no features, because it is new or was changed. A
    picture that cannot be opened needs none: its sample is a bad one."""
    for path in sorted({path for sample in samples for path in sample.image_paths()}):
        try:
            key = store.key(path)
        except (OSError, ValueError):
            continue
        if key not in store and key not in store.unreadable:
            raise RecipeError(f"features: none for {path}, which is new or has changed: run `python -m train features`")


@torch.no_grad()
def write(recipe: Recipe, batch_size: int = 8) -> int:
    """Compute the features of all pictures of the recipe's data that are not there yet. Returns how many there are.

    Raises:
        RecipeError, SampleError: what is wrong and how to mend it.
    """
    from train.data.bad_samples import BadSamples, fault
    from train.data.dataset import SampleDataset, view_of
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
    model.vision_vocabulary.to(device, torch.float32).eval()
    if model.clip is not None:
        model.clip.to(device, torch.float32).eval()
    towers = model.towers.digest(processor)
    index = {"towers": towers, "shards": {}, "unreadable": []}
    try:
        store = FeatureStore(folder, towers)
        index["shards"], index["unreadable"] = store.shards, sorted(store.unreadable)
    except RecipeError:  # none, or of other towers: all are made anew
        (folder / "index.json").unlink(missing_ok=True)  # first, for it would name the new towers' shards as the old's
    wanted: dict[str, tuple[Path, Sample]] = {}
    for sample in data.samples:
        for path in sample.image_paths():
            try:
                wanted.setdefault(image_key(path), (path, sample))
            except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
                bad(fault(sample, error))
    missing = [key for key in wanted if key not in index["shards"]]
    index["unreadable"] = [key for key in index["unreadable"] if key not in wanted]  # these are tried again
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    number = len(set(index["shards"].values()))
    for start in tqdm(range(0, len(missing), _SHARD), unit="shard", desc="features"):
        tensors = {}
        part = missing[start : start + _SHARD]
        for begin in range(0, len(part), batch_size):
            keys, images, plans = [], [], []
            for key in part[begin : begin + batch_size]:
                path, sample = wanted[key]
                try:
                    image = open_image(path)
                    plan = processor.image_processor.plan(image.size, view_of(sample))
                    processor.image_processor([image], [plan])
                except Exception as error:  # Pillow raises any kind for a damaged file; one must not end the others
                    bad(fault(sample, error))
                    index["unreadable"].append(key)
                    continue
                images.append(image)
                keys.append(key)
                plans.append(plan)
            if not images:
                continue
            pixels = processor.image_processor(images, plans)
            found = {"vocabulary": model.vision_vocabulary(pixels["pixel_values"].to(device))}
            if model.clip is not None:
                found["clip"] = model.clip(pixels["clip_pixel_values"].to(device))
            for name, rows in found.items():
                tensors |= {f"{key}.{name}": row.clone() for key, row in zip(keys, rows.half().cpu(), strict=True)}
        if tensors:
            shard = f"features-{number:05d}.safetensors"
            number += 1
            with writing(folder / shard):
                save_file(tensors, folder / shard)
            index["shards"] |= {key: shard for key in part if f"{key}.vocabulary" in tensors}
        write_aside(folder / "index.json", json.dumps(index))
    return sum(key in index["shards"] for key in wanted)
