"""Bootstrap intervals of metrics that are made of sums over samples (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13: percentile intervals)."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from varytoy.data.boxes import parse_boxes
from varytoy.data.sample import Sample
from varytoy.evaluation.metric import cluster_sums
from varytoy.tasks import Task, metrics

Combine = Callable[[np.ndarray], np.ndarray]
"""Sums over samples [..., K] -> the metric's value [...]."""


@dataclass
class Interval:
    """A value of all samples, and the bounds between which 95 % of the values of resampled sets lie."""

    value: float
    low: float
    high: float


def sums_of(task: Task, texts: Sequence[str], samples: Sequence[Sample]) -> tuple[np.ndarray, Combine]:
    """For each sample the numbers [N, K] whose sums give the task's score, and the function that makes it of them."""
    if task.name == "ocr":
        truths = [metrics.normalise(sample.answer) for sample in samples]
        edits = [
            metrics.edit_distance(metrics.normalise(text), truth) for text, truth in zip(texts, truths, strict=True)
        ]
        return _rows(edits, [len(truth) for truth in truths]), _ratio
    if task.name == "detect":
        # 2 hits / (predicted + true); a sample's own F1 and its number of boxes give its hits.
        pairs = [
            (len(parse_boxes(text)), len(sample.boxes or parse_boxes(sample.answer)))
            for text, sample in zip(texts, samples, strict=True)
        ]
        boxes = [predicted + true for predicted, true in pairs]
        hits = [score * number for score, number in zip(task.scores(texts, samples), boxes, strict=True)]
        return _rows(hits, boxes), _f1
    scores = task.scores(texts, samples)
    return _rows(scores, [1.0] * len(scores)), _ratio


def _rows(*columns: Sequence[float]) -> np.ndarray:
    return np.array(columns, dtype=np.float64).T.reshape(-1, len(columns))


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _f1(sums: np.ndarray) -> np.ndarray:
    return np.where(sums[..., 1] > 0, _ratio(sums), 1.0)


def paired(
    first: np.ndarray,
    second: np.ndarray,
    combine: Combine,
    groups: Sequence[Hashable],
    rounds: int = 2000,
    seed: int = 0,
) -> tuple[Interval, Interval, Interval]:
    """Intervals of two models' values on the same samples, and of the second's less the first's.

    Args:
        first, second: the samples' numbers [N, K], see ``sums_of``.
        groups: of each sample; samples of one group, as questions about one image, are drawn together.
    """
    summed = [cluster_sums(rows, groups) for rows in (first, second)]
    count = len(summed[0])
    drawn = np.random.default_rng(seed).integers(0, count, (rounds, count))
    values = np.stack([combine(own[drawn].sum(1)) for own in summed])
    whole = [float(combine(own.sum(0))) for own in summed]
    spread = (*values, values[1] - values[0])
    return tuple(
        Interval(value, *map(float, np.percentile(row, (2.5, 97.5))))
        for value, row in zip((*whole, whole[1] - whole[0]), spread, strict=True)
    )
