"""``python -m train features RECIPE``: precompute the features of frozen towers (train.data.feature_cache)."""

import json
from pathlib import Path

import torch
from PIL import ImageOps
from safetensors.torch import save_file
from tqdm import tqdm

from train.data.bad_samples import fault
from train.data.dataset import view_of
from train.data.feature_cache import FeatureStore, feature_key, image_key
from train.data.mirror import is_mirrored
from train.recipe import Recipe, RecipeError
from train.replay import with_replay
from train.run import Run
from train.run_folder import write_aside, writing
from varytoy.data.sample import Sample, open_image

_SHARD = 256  # images per file


@torch.no_grad()
def write(recipe: Recipe, batch_size: int = 8) -> int:
    """Compute the missing features of the images of the recipe's data. Returns the number of images with features.

    Raises:
        RecipeError, SampleError: with the cause and how to fix it.
    """
    if not recipe.features:
        raise RecipeError("features: name a folder for them, e.g. features=runs/features")
    folder, recipe = Path(recipe.features), with_replay(recipe)
    run = Run(recipe, with_towers=True)
    bad, data, model, processor = run.bad, run.data, run.model, run.processor
    if processor.image_processor.mode != "squash":
        raise RecipeError("features: this model takes images in their own sizes; features need images of one size")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.vision_vocabulary.to(device, torch.float32).eval()
    if model.clip is not None:
        model.clip.to(device, torch.float32).eval()
    towers = model.towers.digest(processor)
    index = {"towers": towers, "shards": {}, "unreadable": []}
    try:
        store = FeatureStore(folder, towers)
        index["shards"], index["unreadable"] = store.shards, sorted(store.unreadable)
    except RecipeError:  # none, or of other towers: compute all of them
        (folder / "index.json").unlink(missing_ok=True)  # first: it would take the new shards for the old ones
    images: dict[str, tuple[Path, Sample]] = {}
    digests: dict[Path, str] = {}
    for sample in data.samples:
        for path in sample.image_paths():
            try:
                if path not in digests:
                    digests[path] = image_key(path)
                images.setdefault(feature_key(digests[path], sample), (path, sample))
            except (OSError, ValueError) as error:  # an invalid file name is a ValueError
                bad(fault(sample, error))
    missing = [key for key in images if key not in index["shards"]]
    index["unreadable"] = [key for key in index["unreadable"] if key not in images]  # these are tried again
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    number = len(set(index["shards"].values()))
    for start in tqdm(range(0, len(missing), _SHARD), unit="shard", desc="features"):
        tensors = {}
        part = missing[start : start + _SHARD]
        for offset in range(0, len(part), batch_size):
            keys, inputs = [], []
            for key in part[offset : offset + batch_size]:
                path, sample = images[key]
                try:
                    image = open_image(path)
                    image = ImageOps.mirror(image) if is_mirrored(sample) else image
                    plan = processor.image_processor.plan(image.size, view_of(sample))
                    inputs.append(processor.image_processor([image], [plan]))
                except Exception as error:  # Pillow raises any type for a damaged file; continue with the others
                    bad(fault(sample, error))
                    index["unreadable"].append(key)
                    continue
                keys.append(key)
            if not inputs:
                continue
            pixels = {name: torch.cat([each[name] for each in inputs]).to(device) for name in inputs[0]}
            features = model.run_branches(pixels["pixel_values"], None, pixels.get("clip_pixel_values"))
            for name, rows in features.items():
                tensors |= {f"{key}.{name}": row.clone() for key, row in zip(keys, rows.half().cpu(), strict=True)}
        if tensors:
            shard = f"features-{number:05d}.safetensors"
            number += 1
            with writing(folder / shard):
                save_file(tensors, folder / shard)
            index["shards"] |= {key: shard for key in part if f"{key}.vocabulary" in tensors}
        write_aside(folder / "index.json", json.dumps(index))
    return sum(key in index["shards"] for key in images)
