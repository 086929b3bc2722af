"""Metrics of drawn pictures, by values worked out by hand."""

import math

import numpy as np
import pytest

from varytoy.evaluation.metrics.pictures import frechet_distance, likeness


def grey(value: int, side: int = 9) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_equal_pictures():
    found = likeness(grey(90), grey(90))
    assert (found.mse, found.psnr, found.ssim) == (0, math.inf, pytest.approx(1))
    assert (found.age, found.p_eps, found.p_ceps) == (0, 0, 0)


def test_a_constant_difference():
    """51 of 255 is a fifth: mse 0.04, 13.98 dB. In SSIM the means alone differ: (2ab + c1) / (a² + b² + c1)."""
    found = likeness(grey(151), grey(100))
    assert found.mse == pytest.approx(0.04) and found.psnr == pytest.approx(10 * math.log10(25))
    constant = (0.01 * 255) ** 2
    assert found.ssim == pytest.approx((2 * 100 * 151 + constant) / (100**2 + 151**2 + constant))
    assert found.age == pytest.approx(51) and found.p_eps == 1
    assert found.p_ceps == pytest.approx(49 / 81)  # pixels at the border lack a neighbour


def test_only_the_mask_counts():
    picture = grey(100)
    picture[4, 4] = (130, 130, 130)  # by 30
    picture[0, 0] = (115, 115, 115)  # by 15: no wrong pixel
    mask = np.zeros((9, 9), bool)
    mask[4, 3:5] = True
    found = likeness(picture, grey(100), mask)
    assert found.mse == pytest.approx((30 / 255) ** 2 / 2) and found.age == pytest.approx(15)
    assert found.p_eps == 0.5 and found.p_ceps == 0
    assert likeness(picture, grey(100)).p_eps == pytest.approx(1 / 81)


def test_grey_values_have_the_weights_of_the_standard():
    picture = grey(0)
    picture[..., 0] = 100
    assert likeness(picture, grey(0)).age == pytest.approx(29.9)


def test_what_cannot_be_compared_is_one_sentence():
    with pytest.raises(ValueError, match="cannot be compared"):
        likeness(grey(1), grey(1, 10))
    with pytest.raises(ValueError, match="the mask is empty"):
        likeness(grey(1), grey(1), np.zeros((9, 9), bool))


def test_frechet_distance():
    """Means 3 apart, variances 1 and 4 (unbiased): 9 + 1 + 4 - 2 * sqrt(4) = 10."""
    first = np.array([[-1.0], [0.0], [1.0]])
    assert frechet_distance(first, 2 * first + 3) == pytest.approx(10)
    assert frechet_distance(first, first) == pytest.approx(0)
    with pytest.raises(ValueError, match="two vectors are the least"):
        frechet_distance(first[:1], first)
