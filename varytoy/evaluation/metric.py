"""Metrics as sums over cases, from which values and bootstrap intervals follow."""

from collections.abc import Callable, Sequence

import numpy as np

from varytoy.evaluation.case import Case, Prediction

RESAMPLES = 1000
WHOLE_RESAMPLES = 200
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

    def measure(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> float:
        """The value of a set of cases; NaN where the metric is not defined."""
        return float(self.value(self.rows(predictions, cases).sum(0)))


class Whole(Metric):
    """A metric of the whole set that no sums give, such as average precision. Its rows are empty and the value of their
    sums is NaN; ``measure`` has the value, ``bootstrap`` computes it again on each resample.

    Args:
        prepare: given a set, a function of the numbers of chosen cases, some of them repeated, that gives their value.
    """

    def __init__(
        self,
        name: str,
        prepare: Callable[[Sequence[Prediction], Sequence[Case]], Callable[[Sequence[int]], float]],
        is_error: bool = False,
    ):
        self.name, self.prepare, self.is_error = name, prepare, is_error

    def rows(self, predictions, cases):
        return np.zeros((len(cases), 0))

    def value(self, sums):
        return np.full(np.shape(sums)[:-1], np.nan)

    def measure(self, predictions, cases):
        return self.prepare(predictions, cases)(range(len(cases)))


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
    are not independent. NaN if there are no cases, or the metric is defined on no resample.

    Args:
        rows: [cases, k], as the metric gives them.
        clusters: what each case belongs to, such as its file.
    """
    if not len(rows):
        return _percentiles(np.zeros(0))
    sums = cluster_sums(rows, clusters)
    return _percentiles(metric.value(_draws(len(sums), seed, resamples) @ sums))


def bootstrap(
    metric: Metric,
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    clusters: Sequence[object],
    seed: int = 0,
    resamples: int | None = None,
) -> tuple[float, float]:
    """As ``interval``, of any metric: a ``Whole`` is computed again on each resample, of which it has fewer."""
    if not isinstance(metric, Whole) or not cases:
        return interval(metric, metric.rows(predictions, cases), clusters, seed, resamples or RESAMPLES)
    members: dict[int, list[int]] = {}
    for case, number in enumerate(_numbers(clusters)):
        members.setdefault(number, []).append(case)
    of_choice, values = metric.prepare(predictions, cases), []
    for counts in _draws(len(members), seed, resamples or WHOLE_RESAMPLES):
        values.append(of_choice([case for number, count in enumerate(counts) for case in members[number] * count]))
    return _percentiles(np.array(values))


def cluster_sums(rows: np.ndarray, clusters: Sequence[object]) -> np.ndarray:
    """[clusters, k] sums of the rows [cases, k] of each cluster, in the order in which they appear."""
    sums = np.zeros((len(set(clusters)), rows.shape[1]))
    np.add.at(sums, _numbers(clusters), rows)
    return sums


def _numbers(clusters: Sequence[object]) -> list[int]:
    """The number of each case's cluster, from 0 in the order in which they appear."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return [numbers[name] for name in clusters]


def _draws(clusters: int, seed: int, resamples: int) -> np.ndarray:
    """[resamples, clusters] how often each cluster is drawn."""
    return np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
