"""Ruling lines, large images and tables of a PDF page."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from data_tools.pdf.characters import Word
from varytoy.data.pdfium import address_of, fast

_THIN, _SHORT = 2.5, 8.0
"""Points: a rule is at most this thick and at least this long."""
_NEAR = 3.0
"""Points: rules that are no further apart touch, and ends that differ by less are the same."""
_MOST = 4000
"""Objects of a page that are looked at: what has more is a drawing."""
_SEGMENTS = 60
_FILLED = 0.3
"""Share of cells with text, at least, in a grid that is a table."""
_LARGE = 0.8
"""Share of the page that the image of a scan covers at least."""
_HEAD, _CELL = 6.0, 30
"""Ems from the first rule to the second at most, and letters of a cell on average, in a table without vertical
rules."""
Rule = tuple[float, float, float]
"""Place across, start and end along, in points of the page as it is shown."""


@dataclass
class Drawing:
    """``across``: horizontal rules (y, x1, x2); ``down``: vertical ones (x, y1, y2); ``covered``: whether an image
    covers the page, and ``over_text`` whether it is drawn after most of the text."""

    across: list[Rule] = field(default_factory=list)
    down: list[Rule] = field(default_factory=list)
    covered: bool = False
    over_text: bool = False


@dataclass
class Table:
    """``cells``: words of each row and column, in the file's order; ``box``: xyxy, points. ``whole``: whether all
    cells are single; ``head``: number of rows above the first inner rule."""

    box: tuple[float, float, float, float]
    cells: list[list[list[Word]]]
    whole: bool = True
    head: int = 1


def read_drawing(page, at: tuple[float, ...], width: float, height: float) -> Drawing:
    """Of a pypdfium2 page; ``at``: ``pdfium.shown`` of it, in points."""
    import pypdfium2.raw as pdfium

    drawing, texts, before = Drawing(), 0, 0
    a, b, c, d, e, f = at

    def place(left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        xs, ys = (
            (a * left + b * bottom + c, a * right + b * top + c),
            (d * left + e * bottom + f, d * right + e * top + f),
        )
        return min(xs), min(ys), max(xs), max(ys)

    sides = [ctypes.c_float() for _ in range(4)]
    pointers = [ctypes.byref(side) for side in sides]
    for element, kind in _objects(page):
        if kind == pdfium.FPDF_PAGEOBJ_TEXT:
            texts += 1
            continue
        if kind not in (pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE):
            continue
        if not pdfium.FPDFPageObj_GetBounds(element, *pointers):
            continue
        x1, y1, x2, y2 = box = place(*(side.value for side in sides))
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            seen = max(min(x2, width) - max(x1, 0), 0) * max(min(y2, height) - max(y1, 0), 0)
            if seen > _LARGE * width * height:
                drawing.covered, before = True, texts
        elif min(x2 - x1, y2 - y1) <= _THIN:
            _add(drawing, box)
        elif _stroked(element):
            for rule in _segments(element, place):
                _add(drawing, rule)
    drawing.over_text = drawing.covered and before > texts / 2
    return drawing


def _objects(page) -> Iterator[tuple]:
    """The objects of the page and of forms that are drawn in place, with their kinds."""
    import pypdfium2.raw as pdfium

    count = min(pdfium.FPDFPage_CountObjects(page), _MOST)
    get, get_kind, address = fast("FPDFPage_GetObject"), fast("FPDFPageObj_GetType"), address_of(page)
    for number in range(count):
        element = get(address, number)
        kind = get_kind(element)
        if kind == pdfium.FPDF_PAGEOBJ_TEXT:
            yield None, kind
            continue
        element = ctypes.cast(element, pdfium.FPDF_PAGEOBJECT)
        if kind == pdfium.FPDF_PAGEOBJ_FORM:
            matrix = pdfium.FS_MATRIX()
            pdfium.FPDFPageObj_GetMatrix(element, matrix)
            if (matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f) == (1, 0, 0, 1, 0, 0):
                for inner in range(min(pdfium.FPDFFormObj_CountObjects(element), _MOST)):
                    found = pdfium.FPDFFormObj_GetObject(element, inner)
                    yield found, pdfium.FPDFPageObj_GetType(found)
        yield element, kind


def _add(drawing: Drawing, box: Sequence[float]) -> None:
    x1, y1, x2, y2 = box
    if y2 - y1 <= _THIN and x2 - x1 >= _SHORT:
        drawing.across.append(((y1 + y2) / 2, x1, x2))
    elif x2 - x1 <= _THIN and y2 - y1 >= _SHORT:
        drawing.down.append(((x1 + x2) / 2, y1, y2))


def _stroked(element) -> bool:
    import pypdfium2.raw as pdfium

    fill, stroke = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDFPath_GetDrawMode(element, fill, stroke)
    return bool(stroke.value) and pdfium.FPDFPath_CountSegments(element) <= _SEGMENTS


def _segments(element, place) -> Iterator[tuple]:
    """The boxes of a path's straight lines."""
    import pypdfium2.raw as pdfium

    matrix, x, y = pdfium.FS_MATRIX(), ctypes.c_float(), ctypes.c_float()
    pdfium.FPDFPageObj_GetMatrix(element, matrix)
    start = last = None
    for number in range(pdfium.FPDFPath_CountSegments(element)):
        segment = pdfium.FPDFPath_GetPathSegment(element, number)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        point = (
            matrix.a * x.value + matrix.c * y.value + matrix.e,
            matrix.b * x.value + matrix.d * y.value + matrix.f,
        )
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_MOVETO:
            start = point
        elif kind == pdfium.FPDF_SEGMENT_LINETO and last:
            yield place(*last, *point)
        if pdfium.FPDFPathSegment_GetClose(segment) and start:
            yield place(*point, *start)
        last = point


def find_tables(drawing: Drawing, words: Sequence[Word]) -> list[Table]:
    """Tables with a grid of rules, and those with horizontal rules only (one above, one below, one under the head)."""
    across, down = _merged(drawing.across), _merged(drawing.down)
    tables: list[Table] = []
    for group in _groups(across):
        x1, x2 = min(rule[1] for rule in group) - _NEAR, max(rule[2] for rule in group) + _NEAR
        inner = [rule for rule in down if x1 <= rule[0] <= x2]
        found = [word for word in words if x1 <= _middle(word)[0] <= x2]
        loose: list[Rule] = []
        for part in _parts(group, inner):
            box = (x1 + _NEAR, part[0][0], x2 - _NEAR, part[-1][0])
            table = _of_grid(part, inner, found, box) if len(part) > 1 else None
            if table:
                tables.append(table)
            elif len(part) == 1:
                loose += part
        tables += _booked(loose, found, x1 + _NEAR, x2 - _NEAR)
    return tables


def _parts(group: list[Rule], down: list[Rule]) -> Iterator[list[Rule]]:
    """Rules across that rules down connect."""
    part = group[:1]
    for rule in group[1:]:
        middle = (part[-1][0] + rule[0]) / 2
        if rule[0] - part[-1][0] > _NEAR and not any(start <= middle <= end for _, start, end in down):
            yield part
            part = []
        part.append(rule)
    yield part


def _booked(rules: list[Rule], words: Sequence[Word], x1: float, x2: float) -> Iterator[Table]:
    """Tables among rules across that none down connects."""
    first = 0
    while first < len(rules) - 2:
        for last in range(min(first + 12, len(rules) - 1), first + 1, -1):
            table = _of_rows(rules[first : last + 1], words, (x1, rules[first][0], x2, rules[last][0]))
            if table:
                yield table
                first = last
                break
        first += 1


def _merged(rules: list[Rule]) -> list[Rule]:
    """Rules on one line that touch, as one; sorted."""
    merged: list[Rule] = []
    for place, start, end in sorted((round(rule[0], 1), *rule[1:]) for rule in rules):
        for number in range(len(merged) - 1, -1, -1):
            other, first, last = merged[number]
            if place - other > 1.0:
                merged.append((place, start, end))
                break
            if start <= last + _NEAR and end >= first - _NEAR:
                merged[number] = (other, min(first, start), max(last, end))
                break
        else:
            merged.append((place, start, end))
    return merged


def _groups(across: list[Rule]) -> Iterator[list[Rule]]:
    """Rules of the same table: most of the widest is above one another."""
    left = list(across)
    while left:
        widest = max(left, key=lambda rule: rule[2] - rule[1])
        group = [rule for rule in left if rule[1] >= widest[1] - _NEAR and rule[2] <= widest[2] + _NEAR]
        left = [rule for rule in left if rule not in group]
        full = [rule for rule in group if rule[2] - rule[1] >= 0.95 * (widest[2] - widest[1])]
        if len(full) >= 2:
            yield [rule for rule in group if full[0][0] <= rule[0] <= full[-1][0]]


def _places(values) -> list[float]:
    """Different places among the values."""
    found: list[float] = []
    for value in sorted(values):
        if not found or value - found[-1] > _NEAR:
            found.append(value)
    return found


def _middle(word: Word) -> tuple[float, float]:
    return (word.box[0] + word.box[2]) / 2, (word.box[1] + word.box[3]) / 2


def _at(edges: Sequence[float], value: float) -> int:
    """Number of the interval."""
    return max(sum(edge <= value for edge in edges) - 1, 0)


def _of_grid(group: list[Rule], down: list[Rule], words: Sequence[Word], box) -> Table | None:
    """A table whose columns have rules; without those at its sides too."""
    x1, y1, x2, y2 = box
    inner = [rule for rule in down if y1 - _NEAR <= rule[1] and rule[2] <= y2 + _NEAR]
    columns = _places(rule[0] for rule in inner)
    words = [word for word in words if y1 <= _middle(word)[1] <= y2]
    if len(words) < 4 or not columns:
        return None
    edges = ([x1] if columns[0] > x1 + _NEAR else []) + columns + ([x2] if columns[-1] < x2 - _NEAR else [])
    rows = _places(rule[0] for rule in group)
    if len(edges) < 3 or len(rows) < 2 or len(edges) > 40:
        return None
    if not any(
        edges[0] + _NEAR < rule[0] < edges[-1] - _NEAR and rule[2] - rule[1] >= 0.5 * (y2 - y1) for rule in inner
    ):
        return None  # boxes in a box
    rules = [rule for rule in group if rule[2] - rule[1] < 0.95 * (x2 - x1)]
    broken = [rule for rule in inner if rule[2] - rule[1] < 0.95 * (y2 - y1)]
    # A rule that ends inside means a cell over several rows or columns, unless others go on with it.
    whole = not rules and all(
        sum(other[2] - other[1] for other in inner if abs(other[0] - rule[0]) < _NEAR) > 0.9 * (y2 - y1)
        for rule in broken
    )
    head = 1
    bands = list(zip(rows, rows[1:], strict=False))
    cells: list[list[list[Word]]] = []
    for number, (top, bottom) in enumerate(bands):
        band = [
            word
            for word in words
            if top <= _middle(word)[1] < bottom or (bottom == rows[-1] and _middle(word)[1] == bottom)
        ]
        if not band:
            continue
        lines = lines_of(band)
        # Rows without rules between them: each line is one where the first column is filled in all.
        split = (
            len(bands) <= 3
            and len(lines) > 1
            and all(any(_at(edges, _middle(word)[0]) == 0 for word in line) for line in lines)
        )
        for line in lines if split else [band]:
            row: list[list[Word]] = [[] for _ in edges[1:]]
            for word in line:
                row[min(_at(edges, _middle(word)[0]), len(row) - 1)].append(word)
                whole &= not any(word.box[0] + 1 < edge < word.box[2] - 1 for edge in edges[1:-1])
            cells.append(row)
        if number == 0:
            head = len(cells)
    filled = sum(bool(cell) for row in cells for cell in row)
    if len(cells) < 2 or filled < _FILLED * len(cells) * (len(edges) - 1):
        return None
    return Table(box, cells, whole and head == 1, head)


def _of_rows(group: list[Rule], words: Sequence[Word], box) -> Table | None:
    """A table with horizontal rules only: a row a line, columns where no word of any row is."""
    words = [word for word in words if box[1] <= _middle(word)[1] <= box[3]]
    if len(words) < 4:
        return None
    full = [rule[0] for rule in group if rule[2] - rule[1] >= 0.95 * (box[2] - box[0])]
    lines = lines_of(words)
    size = sorted(word.style.size for word in words)[len(words) // 2]
    if len(lines) < 2 or len(full) < 3 or full[1] - full[0] > _HEAD * size:
        return None
    spans = sorted((word.box[0], word.box[2]) for word in words)
    edges, end = [box[0]], spans[0][1]
    for left, right in spans[1:]:
        if left - end > 0.55 * size:
            edges.append((left + end) / 2)
        end = max(end, right)
    if len(edges) < 2 or len(edges) > 30:
        return None
    if sum(len(word.text) for word in words) > _CELL * len(lines) * len(edges):
        return None  # two columns of text between rules
    cells = []
    for line in lines:
        row: list[list[Word]] = [[] for _ in edges]
        for word in line:
            row[_at(edges, _middle(word)[0])].append(word)
        cells.append(row)
    head = max(sum(sum(_middle(word)[1] for word in line) / len(line) < full[1] for line in lines), 1)
    filled = sum(bool(cell) for row in cells for cell in row) / (len(cells) * len(edges))
    # Rules that do not reach the sides span several columns of the head; many empty cells are lines that go on.
    whole = len(full) == len(group) and head == 1 and filled > 0.75
    return Table(box, cells, whole, head)


def lines_of(words: Sequence[Word]) -> list[list[Word]]:
    """Words by baseline, from left to right; raised and lowered ones with those that they are nearest to."""
    lines: list[list[Word]] = []
    largest = max((word.style.size for word in words), default=0.0)
    small = [word for word in words if word.style.size < 0.85 * largest]
    for word in sorted(words, key=lambda word: word.base):
        if word.style.size < 0.85 * largest:
            continue
        if lines and word.base - lines[-1][0].base < 0.55 * max(word.style.size, lines[-1][0].style.size):
            lines[-1].append(word)
        else:
            lines.append([word])
    if small:
        apart = []
        for word in small:
            near = min(lines, key=lambda line: abs(line[0].base - word.base))
            (near if abs(near[0].base - word.base) < 0.6 * near[0].style.size else apart).append(word)
        lines = sorted([*lines, *lines_of(apart)], key=lambda line: line[0].base)
    return [sorted(line, key=lambda word: word.box[0]) for line in lines]
