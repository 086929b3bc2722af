"""Tables as strips: the widths of columns, the heights of rows, rules and merged cells."""

import re

from data_tools.render.document import Cell, Table, Word
from data_tools.render.glyphs import Style, face
from data_tools.render.strips import DoesNotFit, Strip, base_line, set_lines, shade
from data_tools.render.themes import Theme

_NUMBER = re.compile(r"[-+(]?[$\u20ac\u00a3]?\d[\d.,:/ ]*%?\)?")


def table_strip(table: Table, theme: Theme, width: float, scale: float = 0.92) -> Strip:
    """A table as one strip. Raises DoesNotFit."""
    pad = max(round(0.45 * theme.size), 3)
    pitch = min(theme.pitch, 1.35 * theme.size) * scale
    places = list(table.places())
    columns = _widths(table, theme, width - 1, pad, scale)
    edges = [0.0]
    for column in columns:
        edges.append(edges[-1] + column)
    set_cells = []
    for row, column, cell in places:
        room = edges[column + cell.across] - edges[column] - 2 * pad
        words = [(Word(text), _style(cell, theme, scale)) for text in cell.text.split()]
        set_cells.append((row, column, cell, set_lines(words, room + 1) if words else []))
    heights = _heights(len(table.rows), set_cells, pitch, pad)
    tops = [0.0]
    for height in heights:
        tops.append(tops[-1] + height)
    strip = Strip(tops[-1] + 0.6 * theme.pitch, gap=0.6 * theme.pitch, width=edges[-1])
    strip.shapes = _shapes(table, theme, set_cells, edges, tops)
    right = _number_columns(table)
    filled: set[int] = set()
    for row, column, cell, lines in set_cells:
        x1, x2 = edges[column], edges[column + cell.across]
        top = tops[row] + (tops[row + cell.down] - tops[row] - pitch * len(lines)) / 2
        for number, line in enumerate(lines):
            style = line[-1][2]
            wide = line[-1][1] + face(style.path, style.number).width(line[-1][0]) * style.size
            free = x2 - x1 - 2 * pad - wide
            shift = free / 2 if cell.across > 1 or (cell.head and theme.centred) else free if column in right else 0.0
            x, y = round(x1 + pad + max(shift, 0.0)), round(top + number * pitch) + base_line(pitch, style.size)
            joint = " " if row in filled else "\n"
            filled.add(row)
            strip.lines.append(([(text, x + dx, y, *rest) for text, dx, *rest in line], joint))
    return strip


def _style(cell: Cell, theme: Theme, scale: float) -> Style:
    return theme.style(bold=cell.head and theme.has_bold, scale=scale)


def _number_columns(table: Table) -> set[int]:
    """Columns whose cells below the head are all numbers."""
    found: dict[int, bool] = {}
    for _, column, cell in table.places():
        if not cell.head and cell.text and cell.across == 1:
            found[column] = found.get(column, True) and bool(_NUMBER.fullmatch(cell.text))
    return {column for column, numbers in found.items() if numbers}


def _widths(table: Table, theme: Theme, width: float, pad: int, scale: float) -> list[float]:
    """Column widths: natural ones where there is room, else narrower, but no word is cut."""
    least, natural = [2.0 * pad] * table.width, [2.0 * pad] * table.width
    for _, column, cell in table.places():
        style = _style(cell, theme, scale)
        known = face(style.path, style.number)
        if not cell.text:
            continue
        word = max(known.widths(cell.text.split())) * style.size + 2 * pad + 2
        whole = known.width(cell.text) * style.size + 2 * pad + 2
        if cell.across == 1:
            least[column], natural[column] = max(least[column], word), max(natural[column], whole)
        else:
            span = range(column, column + cell.across)
            lacking = word - sum(least[each] for each in span)
            for each in span:
                least[each] += max(lacking, 0) / cell.across
                natural[each] = max(natural[each], least[each])
    if sum(least) > width:
        raise DoesNotFit("a table is wider than the column")
    if sum(natural) <= width:
        spread = min(1.0 if theme.table == "plain" else 1.6, width / sum(natural))
        return [each * spread for each in natural]
    free, wanted = width - sum(least), sum(natural) - sum(least)
    return [low + (high - low) * free / wanted for low, high in zip(least, natural, strict=True)]


def _heights(rows: int, cells: list, pitch: float, pad: int) -> list[float]:
    heights = [pitch + pad] * rows
    for row, _, cell, lines in cells:
        if cell.down == 1:
            heights[row] = max(heights[row], pitch * len(lines) + pad)
    for row, _, cell, lines in cells:
        lacking = pitch * len(lines) + pad - sum(heights[row : row + cell.down])
        heights[row + cell.down - 1] += max(lacking, 0)
    return heights


def _shapes(table: Table, theme: Theme, cells: list, edges: list[float], tops: list[float]) -> list:
    shapes: list = []
    heads = sum(all(cell.head for cell in row) for row in table.rows)
    colour = theme.faint if theme.table in ("ruled", "striped") else theme.ink
    if theme.table == "striped":
        shade_of = shade(theme)
        spanned = {row + each for row, _, cell, _ in cells for each in range(cell.down) if cell.down > 1}
        shapes += [
            ("fill", (0, tops[row], edges[-1], tops[row + 1]), shade_of, 0)
            for row in range(len(table.rows))
            if row % 2 == 0 and row not in spanned
        ]
    if theme.table == "ruled":
        for row, column, cell, _ in cells:
            x1, y1, x2, y2 = edges[column], tops[row], edges[column + cell.across], tops[row + cell.down]
            sides = ((x1, y1, x2, y1), (x1, y2, x2, y2), (x1, y1, x1, y2), (x2, y1, x2, y2))
            shapes += [("rule", side, colour, 1) for side in sides]
    if theme.table == "lines":
        for row, column, cell, _ in cells:
            y = tops[row + cell.down]
            shapes.append(("rule", (edges[column], y, edges[column + cell.across], y), colour, 1))
        shapes.append(("rule", (0, 0, edges[-1], 0), colour, 1))
    if theme.table == "booktabs":
        for y, wide in ((0, 2), (tops[max(heads, 1)], 1), (tops[-1], 2)):
            shapes.append(("rule", (0, y, edges[-1], y), theme.ink, wide))
    return shapes
