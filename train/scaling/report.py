"""Fitted laws as a markdown table with sentences, as JSON, and drawn."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from train.intervals import Interval
from train.report_text import aligned
from train.run_folder import writing
from train.scaling.fit import EXPONENTS, RESAMPLES, Fit, Law

CLEAR = 2.0
"""Difference of AICc below which neither law is called better (Burnham and Anderson, 2002, section 2.6)."""


def text(fits: Sequence[Fit], seed: int) -> str:
    """A table of all laws, and for each quantity which is better and where they hold."""
    rows = [["of", "law", "coefficients, 95 % interval", "R²", "AICc", "error at the largest n, held out"]]
    rows.append(["---"] * len(rows[0]))
    for fit in fits:
        for law in (fit.log, fit.power):
            coefficients = ", ".join(f"{name} = {_interval(value)}" for name, value in law.coefficients.items())
            rows.append(
                [fit.quantity, law.formula, coefficients, f"{law.r2:.4f}", f"{law.aicc:.1f}", f"{law.error:+.4g}"]
            )
    seeds = Counter(fits[0].sizes)
    fewest, most = min(seeds.values()), max(seeds.values())
    head = (
        f"{len(seeds)} sizes from {min(seeds):,.0f} to {max(seeds):,.0f} samples, {fewest}"
        f"{f' to {most}' if most > fewest else ''} seeds each; intervals: seeds resampled within each size "
        f"({RESAMPLES:,} times, seed {seed})"
    )
    return "\n\n".join([head, aligned(rows), *("\n".join([*verdict(fit), *limits(fit)]) for fit in fits)])


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def verdict(fit: Fit) -> list[str]:
    """Sentences on which law is better by each criterion."""
    log, power = fit.log, fit.power
    by_r2 = max(fit.log, fit.power, key=lambda law: law.r2)
    lines = [
        f"{fit.quantity}, R²: the {by_r2.name} law is closer to the rows ({log.r2:.4f} log, {power.r2:.4f} power); the "
        "power law has one coefficient more."
    ]
    scores = f"({log.aicc:.1f} log, {power.aicc:.1f} power; less is better)"
    if abs(log.aicc - power.aicc) < CLEAR:
        lines.append(f"{fit.quantity}, AICc: neither law is better by {CLEAR:g} or more {scores}.")
    else:
        better = min(log, power, key=lambda law: law.aicc)
        lines.append(f"{fit.quantity}, AICc: the {better.name} law is better {scores}.")
    errors = f"({abs(log.error):.2g} log, {abs(power.error):.2g} power)"
    chance = "the standard error of the mean there"
    start = f"{fit.quantity}, held-out n = {fit.sizes.max():,.0f}:"
    if abs(abs(log.error) - abs(power.error)) < fit.spread:
        lines.append(
            f"{start} neither law is better, the errors {errors} differ by less than {chance} ({fit.spread:.2g})."
        )
    else:
        better = min(log, power, key=lambda law: abs(law.error))
        lines.append(f"{start} the {better.name} law predicts it better {errors}; {chance} is {fit.spread:.2g}.")
    return lines


def limits(fit: Fit) -> list[str]:
    """Sentences on the range in which the laws hold."""
    smallest, largest = fit.sizes.min(), fit.sizes.max()
    slope, exponent = list(fit.log.coefficients.values())[1], fit.power.coefficients["g"].value
    start = f"{fit.quantity}: valid from n = {smallest:,.0f} to {largest:,.0f}"
    end = "the loss would be 0" if fit.quantity == "loss" else f"the score would pass {best(fit):g}"
    breaks = breaks_at(fit, fit.log)
    if slope.low <= 0 <= slope.high:
        lines = [f"{start}; the interval of the log law's slope holds 0, so no dependence on n is shown."]
    elif breaks is None:
        lines = [f"{start}; the {fit.quantity} gets worse with n."]
    else:
        lines = [f"{start}; the log law must break before n = {_power_of_ten(breaks)}, where {end}."]
    power = f"{fit.quantity}: the power law's limit is e = {fit.power.curve.offset:.4g}"
    breaks = breaks_at(fit, fit.power)
    power += f"; it must break before n = {_power_of_ten(breaks)}, where {end}." if breaks is not None else "."
    if exponent < EXPONENTS[0] * 1.01:
        power += " Its g is the smallest that is tried, where it is a log law."
    elif exponent > EXPONENTS[1] / 1.01:
        power += " Its g is the largest that is tried: only the smallest sizes stand apart."
    return [*lines, power]


def best(fit: Fit) -> float:
    """The end of the scale: a loss of 0; a score of 1, or of 100 where scores are above 1."""
    return 0.0 if fit.quantity == "loss" else 1.0 if fit.values.max() <= 1 else 100.0


def breaks_at(fit: Fit, law: Law) -> float | None:
    """log10 of the n at which the law passes ``best``; None if it never does."""
    offset, slope, exponent = law.curve.offset, law.curve.slope, law.curve.exponent
    falls = slope < 0 if exponent is None else slope > 0
    if slope == 0 or falls != (fit.quantity == "loss"):
        return None
    reached = (best(fit) - offset) / slope  # log10 n, or n^-g
    if exponent is None:
        return reached
    return -math.log10(reached) / exponent if reached > 0 else None


def _power_of_ten(exponent: float) -> str:
    return f"{10**exponent:.2g}" if abs(exponent) < 300 else f"10^{exponent:.0f}"


def values(fits: Sequence[Fit]) -> dict:
    """All figures, for JSON."""
    return {fit.quantity: _values(fit) for fit in fits}


def _values(fit: Fit) -> dict:
    laws = {
        law.name: {
            "formula": law.formula,
            "coefficients": {name: asdict(value) for name, value in law.coefficients.items()},
            "R2": law.r2,
            "AICc": law.aicc,
            "held-out error": law.error,
        }
        for law in (fit.log, fit.power)
    }
    rows = [[int(n), float(value)] for n, value in zip(fit.sizes, fit.values, strict=True)]
    return {
        **laws,
        "rows": rows,
        "log law breaks at log10 n": breaks_at(fit, fit.log),
        "in words": verdict(fit) + limits(fit),
    }


def draw(fits: Sequence[Fit], target: Path) -> None:
    """A panel for each quantity: a dot for each row, both laws, and what they predict for the held-out size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(fits), 4.8), layout="constrained")
    for axes, fit in zip(np.atleast_1d(figure.subplots(1, len(fits))), fits, strict=True):
        largest = fit.sizes.max()
        n = np.geomspace(fit.sizes.min(), largest, 200)
        for number, law in enumerate((fit.log, fit.power)):
            axes.plot(n, law.curve(n), color=f"C{number}", label=f"{law.name} law: {law.formula}")
            axes.plot(n, law.without_largest(n), color=f"C{number}", linewidth=0.9, linestyle="--")
            label = f"{law.name} law, fitted without the largest n"
            axes.plot(largest, law.without_largest(largest), "D", color=f"C{number}", fillstyle="none", label=label)
        axes.plot(fit.sizes, fit.values, ".", color="0.2", label="a seed", zorder=3)
        axes.set(xlabel="training samples n", ylabel=fit.quantity, xscale="log")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, dpi=110)
