"""Bootstrap intervals of the metrics."""

import math
from pathlib import Path

import numpy as np
import pytest

from varytoy.data.boxes import Box
from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Mean, bootstrap, interval
from varytoy.evaluation.metrics import boxes

CASE = Case("1", "detect", Path("page.png"), boxes=(Box("cat", (0, 0, 100, 100)),))
LENGTH = Mean("length", lambda prediction, case: float(prediction.text))


def drawn(values: np.ndarray) -> np.ndarray:
    predictions = [Prediction(str(each)) for each in values]
    return LENGTH.rows(predictions, [CASE] * len(values))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        low, high = interval(LENGTH, drawn(rng.random(60)), range(60), seed=trial, resamples=300)
        hits += low <= 0.5 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_intervals_are_the_same_for_the_same_seed():
    rows = drawn(np.random.default_rng(0).random(30))
    assert interval(LENGTH, rows, range(30), seed=3) == interval(LENGTH, rows, range(30), seed=3)
    assert interval(LENGTH, rows, range(30), seed=3) != interval(LENGTH, rows, range(30), seed=4)


def test_intervals_draw_whole_clusters():
    values = np.repeat(np.random.default_rng(0).random(16), 16)  # 16 files with 16 equal cases each
    files = np.repeat(np.arange(16), 16)
    low, high = interval(LENGTH, drawn(values), files)
    alone = interval(LENGTH, drawn(values), range(256))
    assert (high - low) / (alone[1] - alone[0]) == pytest.approx(4, rel=0.15)  # the root of 16
    assert interval(LENGTH, drawn(values), ["one"] * 256) == pytest.approx([values.mean()] * 2)


def test_average_precision_is_computed_again_on_resamples():
    truth, miss = CASE.boxes[0], Box("cat", (800, 800, 900, 900))
    cases = [CASE] * 8
    predictions = [Prediction("", (truth,))] * 4 + [Prediction("", (miss,))] * 4
    metric, files = boxes.average_precision(), [0, 0, 1, 1, 2, 2, 3, 3]
    low, high = bootstrap(metric, predictions, cases, files, resamples=60)
    assert 0 <= low < metric.measure(predictions, cases) < high <= 1
    assert (low, high) == bootstrap(metric, predictions, cases, files, resamples=60)
    perfect = [Prediction("", (truth,))] * 8
    assert bootstrap(metric, perfect, cases, files, resamples=5) == pytest.approx((1, 1))
    assert np.isnan(metric.value(metric.rows(predictions, cases).sum(0)))  # no sums give it


def test_bootstrap_is_the_interval_of_what_sums_give():
    values = np.random.default_rng(0).random(20)
    predictions, cases = [Prediction(str(each)) for each in values], [CASE] * 20
    assert bootstrap(LENGTH, predictions, cases, range(20)) == interval(LENGTH, drawn(values), range(20))
    assert np.isnan(bootstrap(LENGTH, [], [], [])).all() and math.isnan(LENGTH.measure([], []))
