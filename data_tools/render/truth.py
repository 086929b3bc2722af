"""What a rendered page is known to say, as fields and a grid of values, and the questions that this answers.

Questions are made from templates, each with its answers, its kind and the reason for the answer; no model is asked.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from varytoy.data.spots import UNANSWERABLE

_NUMBER = re.compile(r"\s*(?:[$\u20ac\u00a3]|RM|USD|EUR)?\s*([-\u2212]?\d[\d,]*(?:\.\d+)?|[-\u2212]?\.\d+)\s*%?\s*")
_TRIES = 20


@dataclass(frozen=True)
class Grid:
    """Values of rows in columns.

    Attributes:
        head: names of the columns; the first is that of the rows' names.
        rows: name and values of each row, as they are printed.
        rows_are: what the rows are, as a plural.
        joint: what stands before the name of a row, e.g. ``of`` or ``in``.
        absent: names of rows that are not there.
        unit: that the values have beside what is printed, e.g. ``%``.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    rows_are: str = "rows"
    joint: str = "of"
    absent: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Truth:
    """What a page says.

    Attributes:
        subject: what the page is: form, receipt, chart, table.
        fields: name -> its value, and other ways to write it.
        absent: names of fields that are not there.
    """

    subject: str
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    grid: Grid | None = None
    absent: tuple[str, ...] = ()

    def to_json(self) -> dict:
        return asdict(self)

    def mapped(self, change: Callable[[str], str]) -> "Truth":
        """With a function applied to all that is printed."""
        grid = self.grid and replace(self.grid, rows=tuple(tuple(map(change, row)) for row in self.grid.rows))
        fields = {name: tuple(map(change, values)) for name, values in self.fields.items()}
        return replace(self, fields=fields, grid=grid)

    @classmethod
    def from_json(cls, tree: Mapping) -> "Truth":
        """Raises KeyError, TypeError if the tree has another form."""
        grid = tree["grid"] and Grid(
            tuple(tree["grid"]["head"]),
            tuple(tuple(row) for row in tree["grid"]["rows"]),
            tree["grid"]["rows_are"],
            tree["grid"]["joint"],
            tuple(tree["grid"]["absent"]),
            tree["grid"]["unit"],
        )
        fields = {name: tuple(values) for name, values in tree["fields"].items()}
        return cls(tree["subject"], fields, grid, tuple(tree["absent"]))


@dataclass(frozen=True)
class Question:
    """A question with its right answers, each as good as the others; ``kind``: of ``KINDS``."""

    text: str
    answers: tuple[str, ...]
    kind: str
    reason: str


def as_number(text: str) -> float | None:
    """The number that a text is, without the sign of a currency, commas and per cent; None if it is no number."""
    found = _NUMBER.fullmatch(text)
    return float(found[1].replace(",", "").replace("\u2212", "-")) if found else None


def ways_to_write(value: str, unit: str = "") -> tuple[str, ...]:
    """A value as it is printed and, if it is a number, without currency, per cent and commas, and with its unit."""
    found = _NUMBER.fullmatch(value)
    more = (found[1], found[1].replace(",", ""), f"{value}{unit}") if found else ()
    return tuple(dict.fromkeys((value, *more)))


def questions(truth: Truth, rng: random.Random, count: int, kinds: Sequence[str] = ()) -> list[Question]:
    """At most ``count`` different questions of random kinds; ``kinds``: of these alone."""
    left = [KINDS[kind] for kind in kinds or KINDS]
    found: dict[str, Question] = {}
    for _ in range(_TRIES * count):
        if len(found) == count or not left:
            break
        make = rng.choice(left)
        question = make(truth, rng)
        if question is None:
            left.remove(make)
        else:
            found.setdefault(question.text, question)
    return list(found.values())


def _field(truth: Truth, rng: random.Random) -> Question | None:
    if not truth.fields:
        return None
    name = rng.choice(list(truth.fields))
    texts = (f"What is the {name}?", f"What does the {truth.subject} show as the {name}?", f"Give the {name}.")
    values = truth.fields[name]
    return Question(rng.choice(texts), values, "field", f"The {truth.subject} shows the {name} as {values[0]}.")


def _cell(truth: Truth, rng: random.Random) -> Question | None:
    grid = truth.grid
    cells = [] if grid is None else [(row, column) for row in _named(grid) for column in _columns(grid) if row[column]]
    if not grid or not cells:
        return None
    row, column = rng.choice(cells)
    text, value = _of(grid, rng, column, row[0]), row[column]
    reason = f"The {grid.head[column]} {grid.joint} {row[0]} is shown as {value}."
    return Question(text, ways_to_write(value, grid.unit), "cell", reason)


def _count(truth: Truth, rng: random.Random) -> Question | None:
    grid = truth.grid
    if not grid:
        return None
    texts = (f"How many {grid.rows_are} are there?", f"How many {grid.rows_are} does the {truth.subject} list?")
    names = ", ".join(row[0] for row in grid.rows)
    reason = f"The {grid.rows_are} are {names}; these are {len(grid.rows)}."
    return Question(rng.choice(texts), (str(len(grid.rows)),), "count", reason)


def _order(truth: Truth, rng: random.Random) -> Question | None:
    grid = truth.grid
    for column in _numeric(grid, rng):
        assert grid is not None
        word, pick = rng.choice((("highest", max), ("lowest", min)))
        rows = _named(grid)
        if not rows or len(rows) != len(grid.rows):
            continue
        values = [_value(row[column]) for row in rows]
        best = pick(values)
        if values.count(best) > 1:
            continue
        row = rows[values.index(best)]
        texts = (
            f"Which {grid.head[0]} has the {word} {grid.head[column]}?",
            f"What is the {grid.head[0]} with the {word} {grid.head[column]}?",
        )
        shown = ", ".join(f"{each[0]}: {each[column]}" for each in rows)
        reason = f"The {grid.head[column]} is {shown}. The {word} is {row[column]}, {grid.joint} {row[0]}."
        return Question(rng.choice(texts), (row[0],), "order", reason)
    return None


def _difference(truth: Truth, rng: random.Random) -> Question | None:
    grid = truth.grid
    for column in _numeric(grid, rng):
        assert grid is not None
        rows = _named(grid)
        if len(rows) < 2:
            continue
        first, second = rng.sample(rows, 2)
        places = max(len(row[column].rstrip("%").partition(".")[2]) for row in (first, second))
        gap = abs(_value(first[column]) - _value(second[column]))
        name, names = grid.head[column], f"{first[0]} and {second[0]}"
        texts = (f"What is the difference of {name} between {names}?", f"By how much does {name} differ for {names}?")
        answer = f"{gap:.{places}f}"
        shown = " and ".join(f"{row[column]} {grid.joint} {row[0]}" for row in (first, second))
        unit = grid.unit or "%" * first[column].endswith("%")
        answers = dict.fromkeys((answer, f"{gap:g}", f"{gap:,.{places}f}", f"{answer}{unit}"))
        return Question(
            rng.choice(texts), tuple(answers), "difference", f"The {name} is {shown}; they differ by {answer}."
        )
    return None


def _unanswerable(truth: Truth, rng: random.Random) -> Question | None:
    grid, name = truth.grid, ""
    if truth.absent and (rng.random() < 0.5 or not (grid and grid.absent)):
        name = rng.choice(truth.absent)
        text = rng.choice((f"What is the {name}?", f"What does the {truth.subject} show as the {name}?"))
    elif grid and grid.absent and _columns(grid):
        name, column = rng.choice(grid.absent), rng.choice(_columns(grid))
        text = _of(grid, rng, column, name)
    else:
        return None
    return Question(text, (UNANSWERABLE,), "unanswerable", f"The {truth.subject} shows no {name}.")


KINDS: dict[str, Callable[[Truth, random.Random], Question | None]] = {
    "field": _field,
    "cell": _cell,
    "count": _count,
    "order": _order,
    "difference": _difference,
    "unanswerable": _unanswerable,
}


def _of(grid: Grid, rng: random.Random, column: int, row: str) -> str:
    name = grid.head[column]
    return rng.choice((f"What is the {name} {grid.joint} {row}?", f"What is shown as the {name} {grid.joint} {row}?"))


def _named(grid: Grid) -> list[tuple[str, ...]]:
    """The rows with names of their own."""
    names = [row[0].lower() for row in grid.rows]
    return [row for row, name in zip(grid.rows, names, strict=True) if name and names.count(name) == 1]


def _columns(grid: Grid) -> list[int]:
    """The columns of values with names of their own."""
    names = [name.lower() for name in grid.head]
    return [place for place in range(1, len(names)) if names[place] and names.count(names[place]) == 1]


def _numeric(grid: Grid | None, rng: random.Random) -> Iterator[int]:
    """The columns of numbers alone, in random order."""
    if grid is None:
        return
    columns = _columns(grid)
    for column in rng.sample(columns, len(columns)):
        if all(as_number(row[column]) is not None for row in grid.rows):
            yield column


def _value(text: str) -> float:
    value = as_number(text)
    assert value is not None
    return value
