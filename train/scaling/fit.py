"""Two laws of the number of training samples n, fitted by least squares.

- log law: loss = a - b log10 n, score = c + d log10 n;
- power law: loss = e + f n^-g, score = e - f n^-g, with g from 0.01 to 5. For a given g it is linear in e and f, so
  the exponent is searched on a grid that is narrowed round by round, and e and f are solved for.

For g near 0 the power law is a log law, so its R² is at least as high wherever the best g is in the range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.intervals import Interval

RESAMPLES = 2000
EXPONENTS = (0.01, 5.0)
"""Range in which g is searched."""
_GRID, _ROUNDS = 41, 4
_TINY = 1e-12
"""Residuals below this share of the largest value count as rounding, so that AICc stays finite."""


@dataclass(frozen=True)
class Curve:
    """``offset + slope * log10(n)``, or with an exponent ``offset + slope * n^-exponent``."""

    offset: float
    slope: float
    exponent: float | None = None

    def __call__(self, n: np.ndarray | float) -> np.ndarray:
        n = np.asarray(n, float)
        return self.offset + self.slope * (np.log10(n) if self.exponent is None else n**-self.exponent)


@dataclass
class Law:
    """A fitted law.

    Attributes:
        formula: in the letters of ``coefficients``.
        aicc: N ln(RSS / N) + 2k + 2k(k + 1) / (N - k - 1), of N rows and k parameters, the variance among them: 3 of
            the log law, 4 of the power law (Hurvich and Tsai, Biometrika 76, 1989).
        without_largest: fitted to all sizes but the largest.
        error: what that predicts for the largest size, less the mean there.
    """

    name: str
    formula: str
    coefficients: dict[str, Interval]
    r2: float
    aicc: float
    curve: Curve
    without_largest: Curve
    error: float


@dataclass
class Fit:
    """Both laws of one quantity.

    Attributes:
        sizes, values: of all rows.
        spread: standard error of the mean at the largest size.
    """

    quantity: str
    sizes: np.ndarray
    values: np.ndarray
    spread: float
    log: Law
    power: Law


def fit(quantity: str, sizes: Sequence[int], values: Sequence[float], seed: int = 0) -> Fit:
    """Fit both laws; several values of each size are needed.

    Intervals are of 95 % (percentiles), of resampled seeds within each size. A resampled mean of m seeds varies too
    little by the factor (m - 1) / m of its variance, so its distance from the mean is scaled by sqrt(m / (m - 1)), as
    by Rao and Wu (JASA 83, 1988). They say nothing of a law that is wrong.

    Args:
        quantity: ``loss`` or ``score``.
        seed: of the resamples.
    """
    n, y = np.asarray(sizes, float), np.asarray(values, float)
    groups = [y[n == size] for size in np.unique(n)]
    means = np.array([group.mean() for group in groups])
    rng = np.random.default_rng(seed)
    drawn = [means]
    columns = []
    for group, mean in zip(groups, means, strict=True):
        count = len(group)
        resampled = group[rng.integers(0, count, (RESAMPLES, count))].mean(1)
        columns.append(mean + (resampled - mean) * np.sqrt(count / (count - 1)))
    drawn = np.concatenate([means[None], np.stack(columns, 1)])
    counts = np.array([len(group) for group in groups])
    within = sum(((group - mean) ** 2).sum() for group, mean in zip(groups, means, strict=True))
    data = (np.unique(n), drawn, counts)
    sign = -1 if quantity == "loss" else 1

    offset, slope, rss = _log_law(*data)
    letters = ("a", "b") if quantity == "loss" else ("c", "d")
    coefficients = dict(zip(letters, (offset, sign * slope), strict=True))
    formula = f"{letters[0]} {'-' if sign < 0 else '+'} {letters[1]} log10 n"
    kept = _first(_log_law(*_without_largest(*data)))
    log = _law("log", formula, coefficients, (offset[0], slope[0]), kept[:2], rss[0] + within, n, y)

    offset, slope, exponent, rss = _power_law(*data)
    coefficients = {"e": offset, "f": -sign * slope, "g": exponent}
    formula = f"e {'+' if sign < 0 else '-'} f n^-g"
    kept = _first(_power_law(*_without_largest(*data)))
    curve = (offset[0], slope[0], exponent[0])
    power = _law("power", formula, coefficients, curve, kept[:3], rss[0] + within, n, y)
    spread = float(groups[-1].std(ddof=1) / np.sqrt(len(groups[-1])))
    return Fit(quantity, n, y, spread, log, power)


def _law(name, formula, coefficients, curve, kept, rss: float, n: np.ndarray, y: np.ndarray) -> Law:
    count, parameters = len(y), len(curve) + 1
    rss = max(float(rss), count * (_TINY * np.abs(y).max()) ** 2)
    aicc = count * np.log(rss / count) + 2 * parameters
    aicc += 2 * parameters * (parameters + 1) / (count - parameters - 1)
    r2 = 1 - rss / ((y - y.mean()) ** 2).sum()
    intervals = {
        letter: Interval(float(values[0]), *map(float, np.percentile(values[1:], (2.5, 97.5))))
        for letter, values in coefficients.items()
    }
    without_largest = Curve(*map(float, kept))
    error = float(without_largest(n.max()) - y[n == n.max()].mean())
    return Law(name, formula, intervals, float(r2), float(aicc), Curve(*map(float, curve)), without_largest, error)


def _first(found: tuple[np.ndarray, ...]) -> tuple[float, ...]:
    return tuple(values[0] for values in found)


def _without_largest(sizes: np.ndarray, means: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """The means themselves, without resamples, of all sizes but the largest."""
    return sizes[:-1], means[:1, :-1], counts[:-1]


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offset, slope and weighted sum of squared residuals [...] of lines through the points [..., K]."""
    shares = weights / weights.sum()
    middle, level = (x * shares).sum(-1), (y * shares).sum(-1)
    dx, dy = x - middle[..., None], y - level[..., None]
    slope = (shares * dx * dy).sum(-1) / (shares * dx**2).sum(-1)
    return level - slope * middle, slope, (weights * (dy - slope[..., None] * dx) ** 2).sum(-1)


def _log_law(sizes: np.ndarray, means: np.ndarray, counts: np.ndarray):
    """Offset, slope and residuals [B] of means [B, K] of the sizes [K]."""
    return _line(np.log10(sizes), means, counts)


def _power_law(sizes: np.ndarray, means: np.ndarray, counts: np.ndarray):
    """Offset, slope, exponent and residuals [B] of means [B, K] of the sizes [K]."""
    rows = np.arange(len(means))
    low, high = (np.full(len(means), np.log(bound)) for bound in EXPONENTS)
    relative = sizes / sizes[0]  # so that no power is too small
    for _ in range(_ROUNDS):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, _GRID)
        powers = relative ** -np.exp(grid)[..., None]
        offset, slope, rss = _line(powers, means[:, None], counts)
        best = rss.argmin(1)
        exponent = np.exp(grid[rows, best])
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, _GRID - 1)]
    return offset[rows, best], slope[rows, best] * sizes[0] ** exponent, exponent, rss[rows, best]
