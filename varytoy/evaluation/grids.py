"""Tables in markdown and HTML: their cells and which stand beside each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from varytoy.evaluation.metrics.tables import elements

_MOST = 1000
"""Rows or columns that a cell may span."""


@dataclass(frozen=True)
class Cell:
    """``rows`` and ``columns``: those that it covers. ``heading``: whether it is ``<th>``, as markdown's first row."""

    text: str
    rows: range
    columns: range
    heading: bool


@dataclass(frozen=True)
class Grid:
    """A table. ``places``: the cell at each row and column."""

    cells: list[Cell]
    places: dict[tuple[int, int], Cell]

    def beside(self, cell: Cell, side: str) -> list[Cell]:
        """The cells next to one.

        Args:
            side: up, down, left or right; top_heading or left_heading for the headings on the way up or left, and where
                there are none, the cells at the end of the way.
        """
        if side.endswith("_heading"):
            return self._headings(cell, {"top_heading": "up", "left_heading": "left"}[side])
        row, column = cell.rows[0], cell.columns[0]
        if side in ("up", "down"):
            row = cell.rows[0] - 1 if side == "up" else cell.rows[-1] + 1
            found = [self.places.get((row, each)) for each in cell.columns]
        else:
            column = cell.columns[0] - 1 if side == "left" else cell.columns[-1] + 1
            found = [self.places.get((each, column)) for each in cell.rows]
        return list(dict.fromkeys(each for each in found if each is not None))

    def _headings(self, cell: Cell, side: str) -> list[Cell]:
        passed, ends, left = [], [], [cell]
        seen = {cell}
        while left:
            current = left.pop()
            ahead = self.beside(current, side)
            if current is not cell:
                passed.append(current)
                ends += [] if ahead else [current]
            left += [each for each in ahead if each not in seen]
            seen.update(ahead)
        return [each for each in passed if each.heading] or ends


def grids(text: str, with_markdown: bool = True) -> Iterator[Grid]:
    """The tables of a text in their order; not tables in tables."""
    for table in elements(text, with_markdown):
        places: dict[tuple[int, int], Cell] = {}
        cells = []
        for row, line in enumerate(table.xpath(".//tr[count(ancestor::table) = 1]")):
            column = 0
            for element in line.xpath("./td | ./th"):
                while (row, column) in places:
                    column += 1
                width, height = _span(element, "colspan"), _span(element, "rowspan")
                rows, columns = range(row, row + height), range(column, column + width)
                cell = Cell(_text(element), rows, columns, element.tag == "th")
                cells.append(cell)
                places |= {(i, j): cell for i in rows for j in columns if (i, j) not in places}
        yield Grid(cells, places)


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return max(1, min(int(value), _MOST)) if value.isascii() and value.isdigit() else 1


def _text(cell: Any) -> str:
    for line_break in cell.iter("br"):
        line_break.tail = f" {line_break.tail or ''}"
    return " ".join(cell.text_content().split())
