"""The table of an evaluation: values with intervals for the whole suite and its groups."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Metric, Whole, bootstrap, interval

ALL = "all"


@dataclass
class Value:
    """A metric's value with its 95 % interval; ``low`` and ``high`` are None where a single case or the metric gives
    none."""

    value: float
    low: float | None = None
    high: float | None = None
    is_error: bool = False

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass
class Row:
    """One group of a suite.

    Attributes:
        failures: cases without an answer, scored as empty ones.
        seconds: mean of the cases'.
    """

    group: str
    cases: int
    failures: int
    seconds: float
    values: dict[str, Value] = field(default_factory=dict)

    def to_json(self) -> dict:
        return asdict(self)


def rows_of(
    cases: Sequence[Case], predictions: Sequence[Prediction], metrics: Sequence[Metric], seed: int
) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows of the table, the whole first, and the scores of each case by metric; NaN where one does not apply."""
    measured = {metric.name: metric.rows(predictions, cases) for metric in metrics}
    scores = {metric.name: metric.value(measured[metric.name]) for metric in metrics}
    clusters = [(str(case.file), case.page) for case in cases]
    groups = list(dict.fromkeys(case.group for case in cases))
    parts = [(ALL, list(range(len(cases))))]
    if len(groups) > 1:
        numbered = list(enumerate(cases))
        parts += [(group or "(none)", [n for n, case in numbered if case.group == group]) for group in groups]
    table = []
    for name, chosen in parts:
        failures = sum(bool(predictions[number].error) for number in chosen)
        seconds = float(np.mean([predictions[number].seconds for number in chosen])) if len(chosen) else 0.0
        row = Row(name, len(chosen), failures, round(seconds, 3))
        for metric in metrics:
            own = [predictions[n] for n in chosen], [cases[n] for n in chosen], [clusters[n] for n in chosen]
            value = _value(metric, measured[metric.name][chosen], *own, seed)
            if value is not None:
                row.values[metric.name] = value
        table.append(row)
    return table, scores


def _value(
    metric: Metric,
    rows: np.ndarray,
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    clusters: Sequence[object],
    seed: int,
) -> Value | None:
    whole = isinstance(metric, Whole)
    value = metric.measure(predictions, cases) if whole else float(metric.value(rows.sum(0)))
    if value != value:
        return None
    if len(set(clusters)) < 2:
        return Value(round(value, 4), is_error=metric.is_error)
    if whole:
        low, high = bootstrap(metric, predictions, cases, clusters, seed)
    else:
        low, high = interval(metric, rows, clusters, seed)
    return Value(round(value, 4), round(low, 4), round(high, 4), metric.is_error)


def markdown(rows: Sequence[Row]) -> str:
    """A table in markdown; ↓ marks metrics of which less is better."""
    values = {name: value for row in rows for name, value in row.values.items()}
    heads = [f"{name} {'↓' if value.is_error else '↑'}" for name, value in values.items()]
    lines = [["", "cases", "failed", "s a case", *heads], ["---", *["---:"] * (len(heads) + 3)]]
    for row in rows:
        cells = [str(row.values.get(name, "")) for name in values]
        lines.append([row.group, f"{row.cases:,}", str(row.failures), f"{row.seconds:.2f}", *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
