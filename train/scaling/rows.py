"""The rows of a scaling study: number of samples, seed, loss and score, from files and folders of runs."""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from train.recipe import RecipeError
from train.scaling.runs import CURE, Run, compare_settings, read_run

SIZES, SEEDS = 5, 3
"""Fewest sizes, and seeds of each, from which a law is fitted."""
QUANTITIES = ("loss", "score")
_CURE = "give CSV or JSON lines with n, seed, loss, score"


@dataclass
class Row:
    """One training.

    Attributes:
        n: distinct training samples.
        where: file and line, or the folder of the run.
        no_loss: why a run has no loss that counts.
    """

    n: int
    seed: int
    loss: float | None
    score: float | None
    where: str
    no_loss: str = ""


def read(paths: Sequence[Path], say: Callable[[str], None] = print) -> tuple[list[Row], list[str]]:
    """The rows of all paths, and which of ``loss`` and ``score`` they have. ``say``: called with each note.

    Raises:
        RecipeError: a row or run cannot be used, or there are too few of them.
    """
    rows: list[Row] = []
    runs: list[Run] = []
    for path in paths:
        if path.is_dir():
            runs.append(run := read_run(path))
            values = {"n": run.n, "seed": run.seed, "loss": run.loss, "score": run.score}
            rows.append(_row(values, str(path), run.no_loss))
        else:
            rows += [_row(values, where) for where, values in _file(path)]
    compare_settings(runs, say)
    _check_repeated(rows)
    _check_enough(rows)
    found = [quantity for quantity in QUANTITIES if _has(rows, quantity, say)]
    if not found:
        raise RecipeError(f"{rows[0].where} has neither loss nor score: " + (f"{CURE}, or {_CURE}" if runs else _CURE))
    return rows, found


def _file(path: Path) -> Iterator[tuple[str, Mapping]]:
    """The place and the values of each row."""
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise RecipeError(f"{path} is no folder of a run and does not end in .csv or .jsonl: {_CURE}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not in UTF-8: {_CURE}") from error
    found = list(_csv(path, lines) if path.suffix.lower() == ".csv" else _json_lines(path, lines))
    if not found:
        raise RecipeError(f"{path} has no rows: {_CURE}")
    yield from found


def _json_lines(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, Mapping]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                values = json.loads(line)
            except ValueError:
                values = None
            if not isinstance(values, dict):
                raise RecipeError(f"{path} line {number} is not a JSON object: {_CURE}")
            yield f"{path} line {number}", values


def _csv(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, Mapping]]:
    reader = csv.reader(lines, strict=True)
    names = [name.strip() for name in next(reader, [])]
    missing = next((name for name in ("n", "seed") if name not in names), None)
    if missing:
        raise RecipeError(
            f"{path} line 1 has no column {missing}: {_CURE}, separated by commas, named in the first line"
        )
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if len(cells) != len(names):
                raise RecipeError(f"{path} line {reader.line_num} has {len(cells)} cells, the first line {len(names)}")
            yield f"{path} line {reader.line_num}", dict(zip(names, cells, strict=True))


def _row(values: Mapping, where: str, no_loss: str = "") -> Row:
    n, seed = (_number(values, name, where) for name in ("n", "seed"))
    if n is None or n < 1 or n % 1:
        raise RecipeError(f"{where}: n must be a whole number of samples from 1, not {values.get('n')!r}")
    if seed is None or seed % 1:
        raise RecipeError(f"{where}: seed must be a whole number, not {values.get('seed')!r}")
    loss, score = (_number(values, name, where) for name in QUANTITIES)
    return Row(int(n), int(seed), loss, score, where, no_loss)


def _number(values: Mapping, name: str, where: str) -> float | None:
    """A finite number, None where there is none."""
    value = values.get(name)
    if value is None or isinstance(value, str) and not value.strip():
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RecipeError(f"{where}: {name} must be a finite number, not {value!r}")
    return number


def _check_repeated(rows: Sequence[Row]) -> None:
    first: dict[tuple[int, int], Row] = {}
    for row in rows:
        earlier = first.setdefault((row.n, row.seed), row)
        if earlier is not row:
            raise RecipeError(
                f"{row.where} repeats n={row.n} with seed={row.seed} of {earlier.where}: keep one of them, or train "
                "with another seed"
            )


def _has(rows: Sequence[Row], quantity: str, say: Callable[[str], None]) -> bool:
    """Whether all rows have a quantity; raises RecipeError if only some have."""
    without = [row for row in rows if getattr(row, quantity) is None]
    if quantity == "loss" and any(row.no_loss for row in without):
        row = next(row for row in without if row.no_loss)
        say(f"loss is left out: {row.no_loss}" + (f", and so with {len(without) - 1} more" if without[1:] else ""))
        return False
    if without and len(without) < len(rows):
        raise RecipeError(f"{without[0].where} has no {quantity}, as others have: give it to all rows or to none")
    values = {getattr(row, quantity) for row in rows}
    if not without and len(values) == 1:
        raise RecipeError(f"{rows[0].where}: every {quantity} is {values.pop():g}, so there is nothing to fit")
    return not without


def _check_enough(rows: Sequence[Row]) -> None:
    seeds = Counter(row.n for row in rows)
    few = {n: count for n, count in sorted(seeds.items()) if count < SEEDS}
    wanted = [f"{SIZES - len(seeds)} more size{'s' * (len(seeds) < SIZES - 1)}"] if len(seeds) < SIZES else []
    wanted += [f"{SEEDS - count} more seed{'s' * (SEEDS - count > 1)} at n={n:,}" for n, count in few.items()]
    if wanted:
        there = ", ".join(f"n={n:,} ({count})" for n, count in sorted(seeds.items()))
        raise RecipeError(
            f"a law needs at least {SIZES} sizes with {SEEDS} seeds each, and the rows have (seeds in brackets) "
            f"{there}; missing: {', '.join(wanted)}"
        )
