"""Tables of a page: which blocks are one, and the grid of its cells."""

import pytest
from PIL import Image, ImageDraw, ImageFont

from varytoy.inference.reader import Reader
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
    return [[[len(cell) for cell in row] for row in grid.rows] for grid in find_tables(page.blocks, page.analysis)]


def test_rows_and_columns_make_a_grid():
    assert shape_of(table([HEAD, *ROWS])) == [[[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1]]]


@pytest.mark.parametrize("ruled", [False, True])
def test_cells_of_several_lines_stay_together(ruled):
    rows = [HEAD, ("Apple", "red and\nshiny", "1.20"), ("Plum", "blue", "0.75"), ("Pear", "green\nor brown", "2.10")]
    assert shape_of(table(rows, 56, ruled)) == [[[1, 1, 1], [1, 2, 1], [1, 1, 1], [1, 2, 1]]]


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
