"""``python -m train features RECIPE``: write the features of frozen towers (train.data.feature_cache)."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from train.data.bad_samples import fault
from train.data.dataset import view_of
from train.data.feature_cache import FeatureStore, image_key
from train.recipe import Recipe, RecipeError
from train.run import Run
from train.run_folder import write_aside, writing
from varytoy.data.sample import Sample, open_image

_SHARD = 256  # pictures a file


@torch.no_grad()
def write(recipe: Recipe, batch_size: int = 8) -> int:
    """Compute the features of all pictures of the recipe's data that are not there yet. Returns how many there are.

    Raises:
        RecipeError, SampleError: what is wrong and how to mend it.
    """
    if not recipe.features:
        raise RecipeError("features: name a folder for them, e.g. features=runs/features")
    folder = Path(recipe.features)
    run = Run(recipe, with_towers=True)
    bad, data, model, processor = run.bad, run.data, run.model, run.processor
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
            keys, made = [], []
            for key in part[begin : begin + batch_size]:
                path, sample = wanted[key]
                try:
                    image = open_image(path)
                    plan = processor.image_processor.plan(image.size, view_of(sample))
                    made.append(processor.image_processor([image], [plan]))
                except Exception as error:  # Pillow raises any kind for a damaged file; one must not end the others
                    bad(fault(sample, error))
                    index["unreadable"].append(key)
                    continue
                keys.append(key)
            if not made:
                continue
            pixels = {name: torch.cat([each[name] for each in made]).to(device) for name in made[0]}
            found = {"vocabulary": model.vision_vocabulary(pixels["pixel_values"])}
            if model.clip is not None:
                found["clip"] = model.clip(pixels["clip_pixel_values"])
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
