"""Tables of a page: which blocks are one, and the grid of its cells."""

import pytest
from PIL import Image, ImageDraw, ImageFont

from varytoy.inference.reader import Reader
from varytoy.layout.grid import Entry, apart
from varytoy.layout.page import PageLayout
from varytoy.layout.tables import find_tables
from varytoy.tasks.metrics import character_error_rate

HEAD = ("Name", "Colour", "Price")
ROWS = (("Apple", "red", "1.20"), ("Plum", "blue", "0.75"), ("Pear", "", "2.10"))


def table(rows, pitch: int = 44, ruled: bool = False, left: int = 40) -> Image.Image:
    """Rows of cells, each of which may have several lines."""
    image = Image.new("RGB", (760, 500), "white")
    pen, font, y = ImageDraw.Draw(image), ImageFont.load_default(size=20), 40
    for row in rows:
        lines = max(len(cell.split("\n")) for cell in row)
        for column, cell in enumerate(row):
            for number, line in enumerate(cell.split("\n")):
                pen.text((left + 230 * column, y + 26 * number), line, font=font, fill="black")
        y += pitch + 26 * (lines - 1)
        if ruled:
            pen.line((left, y - 8, 700, y - 8), fill="black")
    return image


def shape_of(image: Image.Image) -> list[list[list[int]]]:
    """For each table, row and column how many lines stand in the cell."""
    page = PageLayout(image)
    shapes = []
    for grid in find_tables(page.blocks, page.analysis)[1]:
        shapes.append([[0] * grid.columns for _ in grid.rows])
        for number, row in enumerate(grid.rows):
            for entry in row:
                shapes[-1][number][entry.columns[0]] = len(entry.cells)
    return shapes


def test_rows_and_columns_make_a_grid():
    assert shape_of(table([HEAD, *ROWS])) == [[[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1]]]


@pytest.mark.parametrize("ruled", [False, True])
def test_cells_of_several_lines_stay_together(ruled):
    rows = [HEAD, ("Apple", "red and\nshiny", "1.20"), ("Plum", "blue", "0.75"), ("Pear", "green\nor brown", "2.10")]
    assert shape_of(table(rows, 56, ruled)) == [[[1, 1, 1], [1, 2, 1], [1, 1, 1], [1, 2, 1]]]


def test_columns_close_together_part_where_all_rows_leave_them_room():
    image = Image.new("RGB", (500, 400), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    for number, (name, city, price) in enumerate(
        [HEAD, *ROWS, ("Cherry pie", "dark red", "3.00"), ("Fig", "green", "2")]
    ):
        row = 40 + 44 * number
        pen.text((40, row), name, font=font, fill="black")
        pen.text((40 + pen.textlength("Cherry pie", font) + 14, row), city, font=font, fill="black")
        pen.text((330, row), price, font=font, fill="black")
    assert shape_of(image) == [[[1, 1, 1]] * 3 + [[1, 0, 1]] + [[1, 1, 1]] * 2]


@pytest.mark.parametrize("ruled", [False, True])
def test_merged_cells_are_found(ruled):
    """A head of two columns, and a name beside two rows."""
    image = Image.new("RGB", (760, 420), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    rows = [40, 90, 140, 190, 240]
    for row, (name, *cells) in zip(rows, [("", ""), ("", "Net", "Gross"), ("", "1.20", "1.40"), ("", "0.75", "0.90"),
                                          ("Pear", "2.10", "2.40")], strict=True):  # fmt: skip
        for x, text in zip((40, 300, 500), (name, *cells), strict=False):
            pen.text((x, row), text, font=font, fill="black")
    pen.text((380, rows[0]), "Price paid", font=font, fill="black")
    pen.text((40, (rows[0] + rows[1]) / 2), "Fruit", font=font, fill="black")
    pen.text((40, (rows[2] + rows[3]) / 2), "Apple", font=font, fill="black")
    if ruled:
        for left, row in ((280, 78), (30, 128), (280, 178), (30, 228)):
            pen.line((left, row, 600, row), fill="black")
    page = PageLayout(image)
    (grid,) = find_tables(page.blocks, page.analysis)[1]
    spans = [[(entry.columns, entry.rows) for entry in row] for row in grid.rows]
    assert spans == [
        [((0, 0), (0, 1)), ((1, 2), (0, 0))],
        [((1, 1), (1, 1)), ((2, 2), (1, 1))],
        [((0, 0), (2, 3)), ((1, 1), (2, 2)), ((2, 2), (2, 2))],
        [((1, 1), (3, 3)), ((2, 2), (3, 3))],
        [((0, 0), (4, 4)), ((1, 1), (4, 4)), ((2, 2), (4, 4))],
    ]
    html = grid.markdown([str(number) for number in range(11)])
    assert html.startswith('<table>\n<tr><td rowspan="2">') and '<td colspan="2">' in html


def test_currency_signs_and_close_lines_do_not_join_rows():
    """As in annual reports: rows as close as lines of text, a sign in the first and last row alone, text after it."""
    image = Image.new("RGB", (900, 460), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    names = ("Cash", "Loans and leases", "Trading assets", "Investments", "Other assets", "Total")
    for number, name in enumerate(names):
        pen.text((40, 40 + 27 * number), name, font=font, fill="black")
        for right, value in ((500, "48,677"), (640, "1,065")):
            pen.text((right, 40 + 27 * number), value, font=font, fill="black", anchor="ra")
            if number in (0, 5):
                pen.text((right - 110, 40 + 27 * number), "$", font=font, fill="black")
    for number in range(3):
        line = "The average gross loans were lower than those of the year before, as was said"
        pen.text((40, 240 + 27 * number), line, font=font, fill="black")
    (rows,) = shape_of(image)
    assert len(rows) == 6 and all(row[0] == 1 and sum(row) in (3, 5) for row in rows)


def test_no_cell_is_lost_where_two_meet():
    one, other = Entry((1,), (0, 0), (0, 0)), Entry((0,), (0, 0), (0, 0))
    wide, tall = Entry((2,), (0, 1), (0, 0)), Entry((3,), (1, 1), (0, 1))
    found = {entry.cells: (entry.columns, entry.rows) for entry in apart([one, wide, tall, other])}
    assert found == {(0, 1): ((0, 0), (0, 0)), (2,): ((1, 1), (0, 0)), (3,): ((1, 1), (1, 1))}
    whole = apart([Entry((4,), (0, 0), (0, 1)), one, Entry((5,), (0, 0), (1, 1))])
    assert [entry.cells for entry in whole] == [(1, 4), (5,)]


def test_text_is_no_table():
    image = Image.new("RGB", (760, 400), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    for number in range(9):
        pen.text((40, 30 + 28 * number), "A paragraph of words that goes on from line to line", font=font, fill="black")
    pen.text((40, 340), "17", font=font, fill="black")
    pen.text((600, 340), "Chapter", font=font, fill="black")
    assert shape_of(image) == []


def test_two_columns_of_text_are_no_table():
    """Even where a line of each has a wide gap."""
    image = Image.new("RGB", (1000, 420), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=20)
    for left in (40, 540):
        for number in range(12):
            text = "A paragraph of words that goes on" if number not in (0, 11) else "End of it"
            pen.text((left, 30 + 28 * number), text, font=font, fill="black")
            if number in (0, 11):
                pen.text((left + 300, 30 + 28 * number), "17", font=font, fill="black")
    assert shape_of(image) == []


def test_a_table_is_written_in_markdown():
    reader = Reader.from_pretrained("nano", "cpu")
    lines = reader.markdown(table([HEAD, *ROWS])).markdown.split("\n")
    assert lines[1] == "| --- | --- | --- |" and len(lines) == 5
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    assert [len(row) for row in cells] == [3] * 4 and cells[3][1] == ""
    said = [" ".join(row) for row in cells]
    assert character_error_rate(said, [" ".join(row) for row in (HEAD, *ROWS)]) <= 0.1
    plain = reader.ocr(table([HEAD, *ROWS])).text
    assert "|" not in plain and len(plain.split("\n")) == 4
