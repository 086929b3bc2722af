"""Metrics of pictures that were drawn, against the true picture, inside a mask or of all pixels.

Pictures are uint8 [H, W, 3], masks bool [H, W]. Definitions of the erasing literature (SCUT-EnsText's script), with its
faults left out: pixels are counted in the mask, not divided by 512 x 512.
"""

import math
from dataclasses import dataclass

import numpy as np

_ERROR = 20
"""Difference of grey values, of 255, from which on a pixel is wrong."""
_GREY = np.array([0.299, 0.587, 0.114])
"""Weights of ITU-R BT.601."""


@dataclass(frozen=True)
class Likeness:
    """How near a picture is to the true one.

    Attributes:
        mse: mean squared error of the channels, of 1.
        psnr: 10 log10(1 / mse), decibels; infinite for equal pictures.
        ssim: structural similarity (Wang et al. 2004), mean over the channels and pixels, windows of 7 x 7.
        age: mean absolute difference of grey values, of 255.
        p_eps: share of pixels whose grey value differs by more than 20 of 255.
        p_ceps: share of pixels that differ so together with their four neighbours.
    """

    mse: float
    psnr: float
    ssim: float
    age: float
    p_eps: float
    p_ceps: float


def likeness(picture: np.ndarray, true: np.ndarray, mask: np.ndarray | None = None) -> Likeness:
    """Compare a picture with the true one.

    Args:
        mask: pixels that count; None: all.

    Raises:
        ValueError: the pictures or the mask differ in size, are smaller than a window, or no pixel counts.
    """
    from skimage.metrics import structural_similarity

    mask = np.ones(true.shape[:2], bool) if mask is None else mask
    if picture.shape != true.shape or mask.shape != true.shape[:2]:
        raise ValueError(f"pictures of {picture.shape} and {true.shape} and a mask of {mask.shape} cannot be compared")
    if not mask.any():
        raise ValueError("the mask is empty: no pixel can be compared")
    difference = (picture.astype(float) - true.astype(float))[mask] / 255
    mse = float(np.mean(difference**2))
    _, similar = structural_similarity(picture, true, channel_axis=2, data_range=255, full=True)
    grey = np.abs((picture.astype(float) - true.astype(float)) @ _GREY)
    wrong = grey > _ERROR
    padded = np.pad(wrong, 1)
    together = wrong & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return Likeness(
        mse,
        -10 * math.log10(mse) if mse else math.inf,
        float(similar[mask].mean()),
        float(grey[mask].mean()),
        float(wrong[mask].mean()),
        float(together[mask].mean()),
    )


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of two sets of feature vectors, [N, D] and [M, D], each taken for normally distributed (Heusel
    et al. 2017). It is named by the net that made the features, and is only an FID with Inception's.

    Raises:
        ValueError: fewer than two vectors in a set, or of different lengths.
    """
    from scipy.linalg import sqrtm

    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            f"sets of {first.shape} and {second.shape} have no Fréchet distance: two vectors are the least"
        )
    means = first.mean(0) - second.mean(0)
    covariances = [np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second)]
    root = sqrtm(covariances[0] @ covariances[1])
    return float(means @ means + sum(np.trace(each) for each in covariances) - 2 * np.trace(root.real))
