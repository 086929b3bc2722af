"""Metrics as sums over cases, from which values and bootstrap intervals follow."""

from collections.abc import Callable, Sequence

import numpy as np

from varytoy.evaluation.case import Case, Prediction

RESAMPLES = 1000
Score = Callable[[Prediction, Case], float]


class Metric:
    """A metric of a set of cases. Each case gives a row of numbers; the sums of the rows give the value.

    Attributes:
        name: with its unit or rule where that is not plain.
        is_error: whether less is better.
    """

    name: str = ""
    is_error: bool = False

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> np.ndarray:
        """[cases, k] numbers of each case."""
        raise NotImplementedError

    def value(self, sums: np.ndarray) -> np.ndarray:
        """[..., k] sums -> [...] values; NaN where the metric is not defined."""
        raise NotImplementedError


class Mean(Metric):
    """The mean of a score of each case; NaN leaves a case out."""

    def __init__(self, name: str, score: Score, is_error: bool = False):
        self.name, self.score, self.is_error = name, score, is_error

    def rows(self, predictions, cases):
        scores = np.array([self.score(*pair) for pair in zip(predictions, cases, strict=True)], float)
        counted = ~np.isnan(scores)
        return np.stack([np.where(counted, scores, 0.0), counted.astype(float)], 1)

    def value(self, sums):
        return ratio(sums[..., 0], sums[..., 1])


class Ratio(Metric):
    """A sum over another, such as edits over characters. ``count`` gives both for a case."""

    def __init__(self, name: str, count: Callable[[Prediction, Case], tuple[float, float]], is_error: bool = False):
        self.name, self.count, self.is_error = name, count, is_error

    def rows(self, predictions, cases):
        return np.array([self.count(*pair) for pair in zip(predictions, cases, strict=True)], float).reshape(-1, 2)

    def value(self, sums):
        return ratio(sums[..., 0], sums[..., 1])


class F1(Metric):
    """F1 of hits over predicted and true items of the whole set. ``count`` gives (hits, predicted, true) of a case."""

    def __init__(self, name: str, count: Callable[[Prediction, Case], tuple[float, float, float]]):
        self.name, self.count = name, count

    def rows(self, predictions, cases):
        return np.array([self.count(*pair) for pair in zip(predictions, cases, strict=True)], float).reshape(-1, 3)

    def value(self, sums):
        return ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def ratio(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``first / second``; NaN where ``second`` is 0."""
    whole = np.asarray(second, float)
    return np.divide(first, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def interval(
    metric: Metric, rows: np.ndarray, clusters: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 95 % bootstrap interval of a metric (percentiles), resampling whole clusters: questions about one picture
    are not independent.

    Args:
        rows: [cases, k], as the metric gives them.
        clusters: what each case belongs to, such as its file.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, [numbers[name] for name in clusters], rows)
    count = len(numbers)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    low, high = np.nanpercentile(metric.value(drawn @ sums), [2.5, 97.5])
    return float(low), float(high)
