"""Tables in markdown and HTML: their cells and which stand beside each other, as olmOCR-bench defines it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from varytoy.evaluation.metrics.tables import elements

_MOST = 1000
"""Rows or columns that a cell may span."""


@dataclass(frozen=True)
class Cell:
    """``rows`` and ``columns``: those that it covers. ``heading``: a ``<th>`` or a cell of ``<thead>``; in markdown one
    of the first row or column."""

    text: str
    rows: range
    columns: range
    heading: bool


@dataclass(frozen=True)
class Grid:
    """A table. ``places``: the cell at each row and column; ``height`` and ``width``: how many there are."""

    cells: list[Cell]
    places: dict[tuple[int, int], Cell]
    height: int
    width: int

    def beside(self, cell: Cell, side: str) -> list[Cell]:
        """The cells next to one, across places without a cell.

        Args:
            side: up, down, left or right; top_heading or left_heading for the headings on the way up or left, and where
                there are none, the cells at the end of the way.
        """
        if side.endswith("_heading"):
            return self._headings(cell, {"top_heading": "up", "left_heading": "left"}[side])
        across = side in ("up", "down")
        covered, lines = (cell.rows, cell.columns) if across else (cell.columns, cell.rows)
        back, most = side in ("up", "left"), self.height if across else self.width
        way = range(covered[0] - 1, -1, -1) if back else range(covered[-1] + 1, most)
        found = [self._first([(step, line) if across else (line, step) for step in way]) for line in lines]
        return list(dict.fromkeys(each for each in found if each is not None))

    def _first(self, way: Iterable[tuple[int, int]]) -> Cell | None:
        return next((self.places[place] for place in way if place in self.places), None)

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
    """The tables of a text: those of markdown, then those of HTML; not tables in tables. Two lines with ``|``, one
    after the other, are a table of markdown; lines of dashes are left out."""
    if with_markdown:
        yield from _of_markdown(text)
    for table in elements(text, with_markdown=False):
        rows = table.xpath(".//tr[count(ancestor::table) = 1]")
        yield _grid([[_spec(cell) for cell in row.xpath("./td | ./th")] for row in rows])


def _of_markdown(text: str) -> Iterator[Grid]:
    block: list[str] = []
    for line in [*text.split("\n"), ""]:
        if "|" in line:
            block.append(line)
            continue
        rows = [_cells(each) for each in block if set(each) - set("- :|\r\t")]
        if len(block) > 1 and any(rows):
            rows = [row for row in rows if row]
            yield _grid(
                [[(cell, 1, 1, not (i and j)) for j, cell in enumerate(row)] for i, row in enumerate(rows)],
            )
        block = []


def _cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in line.split("|")]
    cells = cells[1:] if not cells[0] else cells
    return cells[:-1] if cells and not cells[-1] else cells


def _grid(lines: Iterable[Iterable[tuple[str, int, int, bool]]]) -> Grid:
    """Of the text, height, width and heading of the cells of each row."""
    places: dict[tuple[int, int], Cell] = {}
    cells = []
    for row, line in enumerate(lines):
        column = 0
        for text, height, width, heading in line:
            while (row, column) in places:
                column += 1
            cell = Cell(text, range(row, row + height), range(column, column + width), heading)
            cells.append(cell)
            places |= {(i, j): cell for i in cell.rows for j in cell.columns if (i, j) not in places}
    sizes = [max(side, default=-1) + 1 for side in zip(*places, strict=True)] or [0, 0]
    return Grid(cells, places, *sizes)


def _spec(cell: Any) -> tuple[str, int, int, bool]:
    for line_break in cell.iter("br"):
        line_break.tail = f" {line_break.tail or ''}"
    heading = cell.tag == "th" or any(each.tag == "thead" for each in cell.iterancestors())
    return " ".join(cell.text_content().split()), _span(cell, "rowspan"), _span(cell, "colspan"), heading


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return max(1, min(int(value), _MOST)) if value.isascii() and value.isdigit() and len(value) < 9 else 1
