"""Text size, blocks and their order, on pages drawn here."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from varytoy.layout import Block, Cell, CellView, PageLayout, cut_blocks, text_mask
from varytoy.layout.blocks import by_block, join_rows
from varytoy.layout.headings import heading_levels

WORDS = (
    "The committee met on Tuesday; its members (all seven) agreed that 14 of the 20 proposals, including yours, "
    "should be dropped. Quickly jumping zebras vex the lazy judge in Oxford Hall"
).split()
FONTS = [None] + [
    path
    for path in ("liberation/LiberationSerif-Regular.ttf", "dejavu/DejaVuSansMono.ttf", "dejavu/DejaVuSans-Bold.ttf")
    if (Path("/usr/share/fonts/truetype") / path).exists()
]


def font(size: float, path: str | None = None):
    return ImageFont.truetype(f"/usr/share/fonts/truetype/{path}", size) if path else ImageFont.load_default(size)


def x_height(size: float, path: str | None = None) -> float:
    """Without the rounding of small sizes."""
    return -font(400, path).getbbox("x", anchor="ls")[1] * size / 400


class Sheet:
    """A page to write on; ``line`` and ``paragraph`` return the y below."""

    def __init__(self, width: int = 900, height: int = 700, paper="white", ink="black"):
        self.image = Image.new("RGB", (width, height), paper)
        self.draw, self.ink, self.word = ImageDraw.Draw(self.image), ink, 0

    def line(self, x: float, y: float, text: str, size: float = 20, path: str | None = None) -> float:
        self.draw.text((x, y), text, font=font(size, path), fill=self.ink)
        return y + 1.3 * size

    def paragraph(self, x, y, width, lines, size=20, path=None, indent=0) -> float:
        """Justified but for its last line."""
        face = font(size, path)
        for number in range(lines):
            start, room = (x + indent, width - indent) if number == 0 else (x, width)
            words: list[str] = []
            while face.getlength(" ".join([*words, WORDS[self.word % len(WORDS)]])) <= room:
                words.append(WORDS[self.word % len(WORDS)])
                self.word += 1
            space = face.getlength(" ")
            if number == lines - 1:
                words = words[: max(2, len(words) // 2)]
            elif len(words) > 1:
                space = (room - sum(face.getlength(word) for word in words)) / (len(words) - 1)
            for word in words:
                self.draw.text((start, y), word, font=face, fill=self.ink)
                start += face.getlength(word) + space
            y += 1.3 * size
        return y


def text_sheet(size: float, path: str | None = None, lines: int = 6, **colours) -> Image.Image:
    sheet = Sheet(int(size * 24) + 40, int(size * 1.3 * lines) + 50, **colours)
    sheet.paragraph(20, 20, size * 24, lines, size, path)
    return sheet.image


def spoilt(image: Image.Image, noise: float = 7, blur: float = 0.7) -> Image.Image:
    """A photograph of the page: blurred, unevenly lit, noisy."""
    values = np.asarray(image.filter(ImageFilter.GaussianBlur(blur))).astype(float)
    light = np.linspace(1, 0.55, values.shape[1])[None, :, None] * np.linspace(0.8, 1, values.shape[0])[:, None, None]
    values = values * light + np.random.default_rng(0).normal(0, noise, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def two_columns(offset: int = 0) -> Image.Image:
    """Title across, two columns of 14 and 9 lines, page number."""
    sheet = Sheet(1000, 800)
    sheet.line(250, 30, "A title across the columns", 36)
    sheet.paragraph(60, 120, 420, 14)
    sheet.paragraph(525, 120 + offset, 420, 9)
    sheet.line(490, 740, "17")
    return sheet.image


# ---- text size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FONTS)
@pytest.mark.parametrize("size", [10, 12, 16, 24, 36, 48])
def test_text_size_follows_the_height_of_x(size, path):
    found = PageLayout(text_sheet(size, path)).text_size
    assert abs(found - x_height(size, path)) < max(0.15 * x_height(size, path), 1)


@pytest.mark.parametrize("colours", [("#101830", "#f0f0e8"), ("#ead8b0", "#602818"), ("#ffffff", "#a0a0a0")])
def test_text_size_on_other_papers(colours):
    found = PageLayout(text_sheet(20, paper=colours[0], ink=colours[1])).text_size
    assert found == pytest.approx(x_height(20), rel=0.15)


def test_text_size_of_a_spoilt_photograph():
    assert PageLayout(spoilt(text_sheet(24))).text_size == pytest.approx(x_height(24), rel=0.15)


@pytest.mark.parametrize("text", ["proposals", "1984", "CHAPTER TWO", "met by fog"])
def test_text_size_of_one_short_line(text):
    sheet = Sheet(500, 70)
    sheet.line(20, 15, text, 32)
    assert PageLayout(sheet.image).text_size == pytest.approx(x_height(32), rel=0.18)


def test_a_heading_does_not_change_the_text_size():
    sheet = Sheet()
    y = sheet.line(40, 20, "A large heading", 48)
    sheet.paragraph(40, y + 30, 800, 6)
    assert PageLayout(sheet.image).text_size == pytest.approx(x_height(20), rel=0.15)


# ---- ink ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "paper", [Image.new("RGB", (300, 200), "white"), spoilt(Image.new("RGB", (400, 300), "white"))]
)
def test_blank_paper_holds_nothing(paper):
    assert text_mask(paper).mean() < 1e-3
    assert cut_blocks(paper) == []
    assert PageLayout(paper).text_size is None
    assert PageLayout(paper).skew == 0


def test_ink_is_found_on_dark_and_light_parts_of_one_page():
    image = Image.new("L", (600, 200), 250)
    image.paste(30, (300, 0, 600, 200))
    image.paste(30, (100, 90, 110, 110))
    image.paste(250, (500, 90, 510, 110))
    mask = text_mask(image)
    assert mask[90:110, 100:110].all() and mask[90:110, 500:510].all()
    assert mask[:, :280].sum() == mask[:, 320:].sum() == 200  # not at the seam, where no tile has one paper


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (17, 5)])
def test_pictures_of_few_pixels(size):
    assert cut_blocks(Image.effect_noise(size, 90)) is not None


# ---- blocks ---------------------------------------------------------------------------------------------------------


def left_to_right(blocks: list[Block]) -> list[int]:
    return [block.box[0] for block in blocks]


@pytest.mark.parametrize("offset", [0, 11])
def test_columns_are_read_one_after_the_other(offset):
    blocks = cut_blocks(two_columns(offset))
    assert [block.lines for block in blocks] == [1, 14, 9, 1]
    assert blocks[1].box[2] < 500 < blocks[2].box[0]
    assert blocks[0].text_size > 1.6 * blocks[1].text_size


def test_three_columns():
    sheet = Sheet(1200, 500)
    for x in (40, 430, 820):
        sheet.paragraph(x, 40, 340, 8)
    blocks = cut_blocks(sheet.image)
    assert [block.lines for block in blocks] == [8, 8, 8]
    assert left_to_right(blocks) == sorted(left_to_right(blocks))


def test_contents_with_leaders_are_read_row_by_row():
    sheet = Sheet(800, 420)
    y = sheet.line(40, 20, "Contents", 36)
    for number, title in enumerate(["Introduction", "How pages are cut", "Rows", "Columns and their gutters", "Notes"]):
        width = font(20).getlength(f"{number + 1}  {title} ")
        dots = "." * int((680 - width) / font(20).getlength("."))
        sheet.line(40, y, f"{number + 1}  {title} {dots}")
        y = sheet.line(730, y, str(7 + 9 * number))
    blocks = cut_blocks(sheet.image)
    assert [block.lines for block in blocks] == [1, 5]
    assert blocks[1].box[2] > 740


def test_a_table_is_read_row_by_row():
    sheet = Sheet(900, 400)
    for row in range(7):
        for column, x in enumerate((40, 280, 500, 720)):
            sheet.line(x, 30 + 32 * row, [WORDS[row], f"{row * 37}.5", WORDS[row + 9], f"{row * 91}"][column])
    (block,) = cut_blocks(sheet.image)
    assert [len(row) for row in block.rows] == [4] * 7
    assert [cell.box[0] // 10 for cell in block.rows[0]] == [4, 28, 50, 72]


def test_terms_stay_beside_their_definitions():
    sheet = Sheet()
    y = 30
    for term in ("Skew", "Gutter", "Leader", "Block"):
        sheet.line(40, y, term)
        y = sheet.paragraph(260, y, 600, 3) + 16
    blocks = cut_blocks(sheet.image)
    assert [block.lines for block in blocks] == [3] * 4
    assert all(block.box[0] < 60 for block in blocks)


def test_paragraphs_part_at_gaps_and_at_indents():
    sheet = Sheet()
    y = sheet.paragraph(40, 30, 800, 3)
    y = sheet.paragraph(40, y + 14, 800, 4)
    sheet.paragraph(40, y, 800, 5, indent=28)
    assert [block.lines for block in cut_blocks(sheet.image)] == [3, 4, 5]


def test_indented_code_is_one_block():
    sheet = Sheet(500, 300)
    for number, text in enumerate(["def cut(page):", "    if page:", "        return [page]", "    return []", "end"]):
        sheet.line(30 + 24 * (len(text) - len(text.lstrip())) // 2, 20 + 26 * number, text.lstrip())
    assert [block.lines for block in cut_blocks(sheet.image)] == [5]


def test_boxes_hold_the_ink_of_their_lines():
    image = text_sheet(20)
    (block,) = cut_blocks(image)
    rows, columns = np.nonzero(np.asarray(image.convert("L")) < 128)
    x0, y0, x1, y1 = block.box
    assert x0 <= columns.min() and y0 <= rows.min() and x1 > columns.max() and y1 > rows.max()
    assert x0 > columns.min() - 4 and y0 > rows.min() - 4


def test_rules_and_frames_are_not_text():
    sheet = Sheet()
    sheet.draw.rectangle((20, 20, 880, 300), outline="black", width=2)
    sheet.paragraph(50, 40, 780, 5)
    sheet.draw.line((50, 330, 850, 330), fill="black", width=3)
    sheet.paragraph(50, 360, 780, 4)
    assert [(block.kind, block.lines) for block in cut_blocks(sheet.image)] == [("text", 5), ("text", 4)]


def test_dotted_and_dashed_rules_are_not_text():
    """A dotted line close to a column is no letter of its lines, nor is a row of hyphens a line of text."""
    sheet = Sheet()
    sheet.paragraph(50, 40, 380, 4)
    sheet.line(50, 160, "-" * 40)
    sheet.paragraph(50, 200, 380, 4)
    for y in range(30, 320, 8):
        sheet.draw.rectangle((440, y, 441, y + 1), fill="black")
    cells = [cell for block in cut_blocks(sheet.image) for cell in block.cells]
    assert len(cells) == 8 and all(cell.box[2] < 440 for cell in cells)


def test_the_box_of_a_field_is_no_part_of_its_value():
    sheet = Sheet(600, 200)
    for y, text in ((30, "Name"), (90, "Town"), (150, "Street")):
        sheet.line(30, y, text)
        sheet.draw.rectangle((150, y - 4, 500, y + 28), outline=(110, 110, 110))
        sheet.line(158, y, f"{text} of mine")
    page = PageLayout(sheet.image)
    cells = [cell for block in page.blocks for cell in block.cells]
    assert len(cells) == 6
    for cell in cells[1::2]:
        assert cell.box[0] > 151
        view = np.asarray(CellView.of(cell, 8.0).image(page.image, page.analysis).convert("L"))
        border = np.concatenate([view[:5].ravel(), view[-5:].ravel(), view[:, :5].ravel(), view[:, -5:].ravel()])
        assert border.min() > 240


@pytest.mark.parametrize("thick", [40, 60])
def test_words_in_a_thick_frame_are_part_of_a_picture(thick):
    image = Image.new("RGB", (900, 900), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((50, 50, 850, 850), outline="black", width=thick)
    pen.text((400, 400), "Hello there", "black", font(20))
    assert [block.kind for block in cut_blocks(image)] == ["picture"]


def test_a_picture_is_marked_and_its_caption_read():
    sheet = Sheet(900, 900)
    y = int(sheet.paragraph(40, 30, 800, 4))
    noise = Image.effect_noise((400, 330), 140).filter(ImageFilter.GaussianBlur(6))
    noise = Image.fromarray(((np.asarray(noise).astype(float) - 128) * 8 + 90).clip(0, 200).astype(np.uint8))
    sheet.image.paste(noise.convert("RGB"), (230, y + 30))
    sheet.line(300, y + 385, "Figure 1: a cloud of noise")
    sheet.paragraph(40, y + 450, 800, 4)
    blocks = cut_blocks(sheet.image)
    assert [(block.kind, block.lines) for block in blocks] == [("text", 4), ("picture", 0), ("text", 1), ("text", 4)]
    x0, y0, x1, y1 = blocks[1].box
    assert abs(x0 - 230) < 25 and abs(x1 - 630) < 25 and abs(y0 - y - 30) < 25 and abs(y1 - y - 360) < 25


def test_a_texture_is_no_page_of_text():
    rough = np.asarray(Image.effect_noise((900, 700), 150).filter(ImageFilter.GaussianBlur(2))).astype(float)
    texture = Image.fromarray(((rough - 128) * 5 + 128).clip(0, 255).astype(np.uint8))
    assert sum(block.lines for block in cut_blocks(texture)) <= 6


def test_light_text_on_a_dark_banner():
    sheet = Sheet()
    sheet.draw.rectangle((0, 0, 900, 90), fill="#182850")
    sheet.ink = "white"
    sheet.line(50, 25, "Welcome to the Show", 36)
    sheet.ink = "black"
    sheet.paragraph(50, 150, 780, 4)
    blocks = [block for block in cut_blocks(sheet.image) if block.kind == "text"]
    assert [block.lines for block in blocks] == [1, 4]
    assert blocks[0].box[0] > 40 and blocks[0].box[2] < 600


def test_a_spoilt_page_has_the_blocks_of_the_clean_one():
    clean, photograph = cut_blocks(two_columns()), cut_blocks(spoilt(two_columns()))
    assert [block.lines for block in photograph] == [block.lines for block in clean]


def test_a_page_takes_a_moment():
    sheet = Sheet(1240, 1754)
    for x in (80, 650):
        y = 60
        for _ in range(5):
            y = sheet.paragraph(x, y, 510, 11) + 20
    cut_blocks(sheet.image.crop((0, 0, 300, 300)))
    start = time.process_time()
    cut_blocks(sheet.image)
    assert time.process_time() - start < 1.5  # about 0.2 alone on one core


# ---- skew -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [-1.0, -0.4, 0.0, 0.7])
def test_skew_is_measured_and_does_not_change_the_blocks(angle):
    page = two_columns().rotate(-angle, Image.BICUBIC, fillcolor="white")
    assert PageLayout(page).skew == pytest.approx(angle, abs=0.06)
    assert [block.lines for block in cut_blocks(page)] == [1, 14, 9, 1]


def view(page: Image.Image, row: int = 0, text_size: float = 8.0) -> Image.Image:
    """What a model gets of a row of the only block."""
    analysed = PageLayout(page)
    (block,) = analysed.blocks
    (cell,) = block.rows[row]
    return CellView.of(cell, text_size).image(page, analysed.analysis)


def test_views_are_straight():
    page = text_sheet(20, lines=5).rotate(-0.9, Image.BICUBIC, fillcolor="white", expand=True)
    assert PageLayout(page).skew == pytest.approx(0.9, abs=0.08)
    assert abs(PageLayout(view(page, 2, 16)).skew) < 0.1


# ---- views and texts of cells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [14, 30, 60])
def test_views_bring_letters_to_the_wanted_size(size):
    seen = view(text_sheet(size, lines=3))
    assert seen.mode == "RGB"
    assert PageLayout(seen).text_size == pytest.approx(8, rel=0.12)


def test_views_have_a_margin_of_paper_and_grow_four_times_at_most():
    page = text_sheet(20, lines=2, paper="#ead8b0")
    seen = view(page, 0, 100)
    assert seen.width < 4 * page.width and seen.width > 3 * page.width
    assert (np.asarray(seen)[:6] == (0xEA, 0xD8, 0xB0)).all()


def test_a_view_shows_no_ink_of_other_lines_and_rules():
    """Lines so tight that descenders reach between ascenders, underlined, in a frame."""
    sheet = Sheet(700, 130)
    for number in range(3):
        sheet.line(30, 20 + 21 * number, "pygmy bilging judgy flying bulky jelly", 20)
    sheet.draw.rectangle((22, 14, 480, 92), outline="black", width=2)
    alone = Sheet(700, 130)
    alone.line(30, 41, "pygmy bilging judgy flying bulky jelly", 20)
    found = PageLayout(sheet.image)
    (block,) = found.blocks
    seen = CellView.of(block.rows[1][0], 14).image(sheet.image, found.analysis)
    (only,) = PageLayout(alone.image).blocks
    wanted = CellView.of(only.rows[0][0], 14).image(alone.image, PageLayout(alone.image).analysis)
    ink = [(np.asarray(each.convert("L")) < 128).sum() for each in (seen, wanted)]
    assert abs(ink[0] - ink[1]) < 0.05 * ink[1]


def test_signs_belong_to_their_line():
    """Quotation marks, colons, signs of equality and braces of code, which are no letters."""
    sheet = Sheet(600, 200)
    path = "dejavu/DejaVuSansMono.ttf" if "dejavu/DejaVuSansMono.ttf" in FONTS else None
    for number, text in enumerate(['if name == "x":', "a = '''b'''", "return {", "}"]):
        sheet.line(40, 20 + 30 * number, text, 20, path)
    (block,) = cut_blocks(sheet.image)
    columns = np.asarray(sheet.image.convert("L")) < 128
    assert [len(row) for row in block.rows] == [1] * 4
    for (cell,) in block.rows:
        x0, y0, x1, y1 = cell.box
        assert columns[y0:y1].any(axis=0).nonzero()[0].max() < x1 + 1


def test_texts_are_joined_by_rows_and_cells():
    cell = Cell((0, 0, 9, 9), 8.0)
    blocks = [Block((0, 0, 9, 9), 8.0, ((cell,),)), Block((0, 0, 9, 9), 8.0, ((cell, cell), (cell,)))]
    joined = [join_rows(part, block) for part, block in by_block(["Title", " one", "two ", "three"], blocks)]
    assert joined == ["Title", "one two\nthree"]
    assert [join_rows(part, block) for part, block in by_block(["a", "", "b"], blocks)] == ["a", "b"]
    assert by_block([], blocks) == []


def test_a_line_that_is_too_long_is_cut_at_word_spaces():
    words = [f"word{number}" for number in range(40)]
    font = ImageFont.load_default(size=20)
    image = Image.new("RGB", (int(font.getlength(" ".join(words))) + 40, 46), "white")
    ImageDraw.Draw(image).text((20, 8), " ".join(words), "black", font)
    (block,) = cut_blocks(image)
    (row,) = block.rows
    widths = [cell.box[2] - cell.box[0] for cell in row]
    assert len(row) > 2 and max(widths) < 100 * block.text_size
    starts = [20 + font.getlength(" ".join(words[:number]) + " " * bool(number)) for number in range(len(words))]
    for cell in row[1:]:  # each begins in a word space
        assert min(abs(cell.box[0] - start) for start in starts) < 8


def test_headings_are_what_is_larger():
    """A title, a section and a subsection; a large page number and a large paragraph are none by their size alone."""
    sheet = Sheet(900, 900)
    y = sheet.line(40, 30, "How pages are read", 36) + 20
    y = sheet.paragraph(40, y, 800, 4) + 20
    y = sheet.line(40, y, "Rows and cells", 29) + 15
    y = sheet.paragraph(40, y, 800, 3) + 20
    y = sheet.line(40, y, "Wide gaps between words", 24) + 15
    y = sheet.paragraph(40, y, 800, 6) + 30
    sheet.paragraph(40, y, 800, 5, 26)
    page = PageLayout(sheet.image)
    assert [block.lines for block in page.blocks] == [1, 4, 1, 3, 1, 6, 5]
    assert heading_levels(page.blocks, page.text_size) == [1, 0, 2, 0, 3, 0, 0]


@pytest.mark.parametrize("kind", ["dither", "noise", "checkerboard", "stripes", "dots"])
def test_textures_take_seconds(kind):
    rng = np.random.default_rng(0)
    grid = np.indices((700, 700)).sum(0)
    slope = np.linspace(40, 215, 700)[None].repeat(700, 0) + rng.normal(0, 20, (700, 700))
    picture = {
        "dither": Image.fromarray(slope.clip(0, 255).astype(np.uint8)).convert("1").convert("L"),
        "noise": Image.fromarray((rng.random((700, 700)) < 0.3).astype(np.uint8) * 255),
        "checkerboard": Image.fromarray((grid // 3 % 2 * 255).astype(np.uint8)),
        "stripes": Image.fromarray((np.indices((700, 700))[0] % 3 * 127).astype(np.uint8)),
        "dots": Image.fromarray(((np.indices((700, 700)) % 6 < 3).all(0) * 255).astype(np.uint8)),
    }[kind]
    start = time.process_time()
    cut_blocks(picture)
    assert time.process_time() - start < 10  # it was minutes
