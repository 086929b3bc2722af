"""Random tables: names, numbers, dates and codes under a head, some with merged cells."""

import random
from collections.abc import Callable
from datetime import date, timedelta

from data_tools.render.document import Cell, Table

Words = Callable[[int, int], str]
"""A few words of text: at least and at most how many."""


def random_table(
    rng: random.Random,
    words: Words,
    merged: bool = False,
    columns: tuple[int, int] = (2, 5),
    rows: tuple[int, int] = (2, 8),
) -> Table:
    """A table with a head; the first column is names. With ``merged`` some cells of head or body span others."""
    width, height = rng.randint(*columns), rng.randint(*rows)
    kinds = [_names, *(rng.choice(_COLUMNS) for _ in range(width - 1))]
    makers = [kind(rng, words) for kind in kinds]
    body = [[Cell(make()) for make in makers] for _ in range(height)]
    for row in body:
        for number in range(1, width):
            if rng.random() < 0.03:
                row[number] = Cell("")
    head = [Cell(words(1, 2), head=True) for _ in range(width)]
    if not merged or width < 3:
        return Table((tuple(head), *map(tuple, body)))
    return _merged(rng, words, head, body)


def _merged(rng: random.Random, words: Words, head: list[Cell], body: list[list[Cell]]) -> Table:
    rows: list[list[Cell]] = []
    width = len(head)
    group_head = rng.random() < 0.6
    if group_head:  # a row of groups above some columns; the other heads go through both rows
        start = rng.randint(1, width - 2)
        across = rng.randint(2, width - start)
        above = [Cell(cell.text, 1, 2, True) for cell in head]
        above[start : start + across] = [Cell(words(1, 2), across, 1, True)]
        rows += [above, head[start : start + across]]
    else:
        rows.append(head)
    if len(body) > 2 and (not group_head or rng.random() < 0.6):  # a name that several rows share
        start = rng.randrange(len(body) - 1)
        down = rng.randint(2, min(4, len(body) - start))
        body[start][0] = Cell(body[start][0].text, 1, down)
        for row in body[start + 1 : start + down]:
            row.pop(0)
    if rng.random() < 0.3:
        wide = rng.randint(2, width)
        last = [Cell(words(1, 3), wide), *(Cell(str(rng.randint(1, 9999))) for _ in range(width - wide))]
        body.append(last)
    return Table(tuple(map(tuple, [*rows, *body])))


def _names(rng: random.Random, words: Words) -> Callable[[], str]:
    longest = rng.choice((1, 2, 3))
    return lambda: words(1, longest)


def _integers(rng: random.Random, words: Words) -> Callable[[], str]:
    top, form = 10 ** rng.randint(1, 6), rng.choice(("{}", "{:,}"))
    return lambda: form.format(rng.randint(0, top))


def _decimals(rng: random.Random, words: Words) -> Callable[[], str]:
    places, top = rng.randint(1, 3), 10 ** rng.randint(0, 3)
    return lambda: f"{rng.uniform(-top if top < 100 else 0, top):.{places}f}"


def _percents(rng: random.Random, words: Words) -> Callable[[], str]:
    places = rng.randint(0, 1)
    return lambda: f"{rng.uniform(0, 100):.{places}f}%"


def _amounts(rng: random.Random, words: Words) -> Callable[[], str]:
    sign = rng.choice("$$\u20ac")
    return lambda: f"{sign}{rng.uniform(1, 20000):,.2f}"


def _dates(rng: random.Random, words: Words) -> Callable[[], str]:
    form = rng.choice(("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d %b %Y"))
    return lambda: random_date(rng).strftime(form)


def _codes(rng: random.Random, words: Words) -> Callable[[], str]:
    prefix = "".join(rng.choice("ABCDEFGHKLMNPRSTVX") for _ in range(rng.randint(1, 3)))
    return lambda: f"{prefix}-{rng.randint(100, 99999)}"


def _notes(rng: random.Random, words: Words) -> Callable[[], str]:
    return lambda: words(2, 6)


_COLUMNS = (_names, _integers, _integers, _decimals, _decimals, _percents, _amounts, _dates, _codes, _notes)


def random_date(rng: random.Random) -> date:
    return date(1990, 1, 1) + timedelta(days=rng.randrange(14600))
