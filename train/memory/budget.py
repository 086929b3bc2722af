"""What a run needs beside the GPU: the host's memory and the disk, each part with the settings that lower it.

These are terms computed from the recipe, not measured: sizes of what is kept or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers.integrations import is_deepspeed_zero3_enabled

from train.recipe import EIGHT_BIT, Recipe, RecipeError
from varytoy.data.sample import SampleError, image_size
from varytoy.data.samples import read_samples
from varytoy.devices.precision import DTYPES
from varytoy.models.vary import count_parameters

WORKER = 100 * 2**20
"""Memory that a forked loader process does not share with the run: 70 MiB were measured after 20 batches of 8 of nano's
blocks on Linux, and it grows. Where processes are not forked, as on Windows and macOS, it is about 500 MiB."""
PREFETCHED = 2
"""Batches that a loader process makes ahead: the DataLoader's default."""
DECODED = 3 * 3 + 12
"""Bytes a pixel while an image is opened: three copies of RGB (file, upright, on white), and its floats."""
PIXELS = 12_000_000
"""Of a photograph, where the data are not here to be asked."""
_LOOKED_AT = 2000
_STATE = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"), 8.0),
    **dict.fromkeys(EIGHT_BIT, 2.1),
    **{"lion_32bit": 4.0, "lion_8bit": 1.05, "paged_lion_32bit": 4.0, "paged_lion_8bit": 1.05},
    **{"ademamix": 12.0, "ademamix_8bit": 3.15, "adagrad": 4.0, "rmsprop": 4.0, "muon": 8.0},
    **{"sgd": 0.0, "adafactor": 0.1},
}
"""Bytes of an optimizer's state for each trained parameter. Muon's matrices have 4 of them."""


@dataclass
class Need:
    """A part of what a run needs.

    Attributes:
        where: ``host`` or ``disk``; ``what``: a phrase; ``size``: bytes; ``setting``: what lowers it.
    """

    where: str
    what: str
    size: float
    setting: str


@dataclass
class Sizes:
    """Of a recipe's model and samples.

    Attributes:
        stored: bytes of the finished model's weights, or of adapters and what is saved with them.
        base: bytes of the weights that adapters are trained on.
        trained: number of trained parameters.
        batch: bytes of the tensors of a batch.
        features: bytes of an image's features in fp16; 0 without ``features``.
    """

    stored: float
    base: float
    trained: int
    batch: float
    features: float = 0.0


def sizes_of(recipe: Recipe, model: nn.Module, batch: float = 0.0) -> Sizes:
    """What ``budget`` needs to know of the recipe's model, which may be of fake tensors."""
    config = model.config
    width = torch.finfo(DTYPES[recipe.train.precision if recipe.train.deepspeed else recipe.train.weights]).bits // 8
    sizes = {id(each): getattr(each, "ds_numel", each.numel()) for each in model.parameters()}  # ZeRO-3 spreads them
    trained = sum(sizes[id(each)] for each in model.parameters() if each.requires_grad)
    zero3 = is_deepspeed_zero3_enabled()  # in whose process no model can be made without its weights
    base = (sum(sizes.values()) if zero3 else count_parameters(config)) * width
    features = 0.0
    if recipe.features:
        side = recipe.model.resolution or config.vocabulary_config.image_size
        down, across = config.vocabulary_config.stride
        grid, clip = (side // down) * (side // across), config.clip_config
        features = 2.0 * grid * config.vocabulary_config.output_size
        if clip is not None:
            features += 2.0 * (grid if config.serial else (clip.image_size // clip.patch_size) ** 2) * clip.width
    stored = 4 * trained if recipe.lora.rank else base  # adapters are saved in 32 bits
    return Sizes(stored, base, trained, batch, features)


def host_needs(recipe: Recipe, sizes: Sizes, offloaded: float, pixels: int) -> list[Need]:
    """``offloaded``: bytes of DeepSpeed's optimizer on the host; ``pixels``: of the largest image."""
    train = recipe.train
    loaders = max(train.workers, 1)
    needs = [
        Need("host", "DeepSpeed's optimizer", offloaded, "train.deepspeed=zero2.json, --overlay lora"),
        Need("host", "weights while they are loaded", sizes.base, "train.weights=bf16"),
        Need("host", f"{train.workers} loader processes", train.workers * WORKER, "train.workers"),
        Need(
            "host",
            f"{max(train.workers * PREFETCHED, 1)} batches made ahead",
            max(train.workers * PREFETCHED, 1) * sizes.batch,
            "train.workers, train.batch_size",
        ),
        Need(
            "host",
            f"{loaders} images of {pixels / 1e6:.1f} megapixels being opened",
            loaders * pixels * DECODED,
            "train.workers, smaller images",
        ),
    ]
    return [need for need in needs if need.size]


def disk_needs(recipe: Recipe, sizes: Sizes, images: int) -> list[Need]:
    """``images``: number of images, for the features."""
    train = recipe.train
    state = sizes.trained * (12 if train.deepspeed and train.optimizer not in EIGHT_BIT else _STATE[train.optimizer])
    if train.deepspeed:
        state += sizes.stored  # DeepSpeed keeps the weights a second time
    checkpoints = train.keep + 1  # a new one is whole before an old one goes
    optimizer = "train.optimizer=adamw_bnb_8bit, train.keep" if train.optimizer not in EIGHT_BIT else "train.keep"
    writes_base = recipe.lora.rank and len(recipe.model.init) != 1
    needs = [
        Need("disk", f"weights in {checkpoints} checkpoints", checkpoints * sizes.stored, "train.keep, --overlay lora"),
        Need("disk", f"optimizer state in {checkpoints} checkpoints", checkpoints * state, optimizer),
        Need("disk", "the finished model", sizes.stored, "--overlay lora"),
        Need("disk", "base of the adapters", sizes.base if writes_base else 0, "model.init=[one whole model]"),
        Need("disk", f"features of {images:,} images", images * sizes.features, "fewer images, or no features"),
    ]
    return [need for need in needs if need.size]


def look_at(recipe: Recipe) -> tuple[int, int]:
    """Number of images of the recipe's data, and pixels of the largest of the first ones; where there are no data,
    1,000 images of ``PIXELS``."""
    paths: dict[Path, None] = {}
    try:
        for source in recipe.data:
            for sample in read_samples(source.path, on_error=lambda _: None):
                paths |= dict.fromkeys(sample.image_paths())
    except (OSError, SampleError, RecipeError):
        return 1000, PIXELS
    largest = 0
    for path in list(paths)[:_LOOKED_AT]:
        try:
            width, height = image_size(path)
            largest = max(largest, width * height)
        except SampleError:
            continue
    return (len(paths), largest) if largest else (1000, PIXELS)


def rows(needs: Sequence[Need], where: str) -> list[str]:
    """A table of the needs of one place, with their sum."""
    chosen = [need for need in needs if need.where == where]
    lines = [f"  {need.what:<44} {need.size / 2**30:7.2f} GiB   lower: {need.setting}" for need in chosen]
    return [*lines, f"  {'together':<44} {total(needs, where) / 2**30:7.2f} GiB"]


def total(needs: Sequence[Need], where: str) -> float:
    return sum(need.size for need in needs if need.where == where)
