"""Variable resolution: images of any shape as a number of patches (Pix2Struct, arXiv 2210.03347)."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageStat


def patch_grid(size: tuple[int, int], patch: tuple[int, int], most: int) -> tuple[int, int]:
    """Rows and columns of the largest grid of at most ``most`` patches with the aspect ratio of an image; shapes beyond
    1 : ``most`` are squeezed to it.

    Args:
        size: (width, height) of the image in pixels.
        patch: (height, width) of a patch in pixels.
    """
    (width, height), (down, across) = size, patch
    scale = math.sqrt(most * (down / height) * (across / width))
    rows, columns = math.floor(scale * height / down), math.floor(scale * width / across)
    return min(max(rows, 1), most), min(max(columns, 1), most)


def own_scale(image: Image.Image) -> tuple[list[float], list[float]]:
    """``mean`` and ``std`` for each channel of an RGB image that standardise it: its own, over all channels; the
    standard deviation at least 1 / sqrt(values) of 255."""
    count = 3 * image.width * image.height
    stat = ImageStat.Stat(image)
    mean = sum(stat.sum) / count
    std = math.sqrt(max(sum(stat.sum2) / count - mean**2, 0.0))
    return [mean / 255] * 3, [max(std, 1 / math.sqrt(count)) / 255] * 3


def resampled(image: Image.Image, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """An RGB image, normalised and then resized to (width, height) without rounding: [3, H, W]. The filter is PIL's
    bilinear one, which is that of torch's ``interpolate`` with ``antialias``."""
    channels = []
    for channel, middle, spread in zip(image.split(), mean, std, strict=True):
        values = (np.asarray(channel, np.float32) / 255 - np.float32(middle)) / np.float32(spread)
        channels.append(np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(channels))
