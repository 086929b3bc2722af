"""Pages from one document tree: picture, text, boxes and markdown agree; degradations; fonts and languages."""

import gzip
import html
import random
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools import subset
from fontTools.ttLib import TTFont
from markdown_it import MarkdownIt
from PIL import ImageOps

from data_tools.__main__ import main
from data_tools.assets import languages
from data_tools.render.degrade import DEGRADATIONS, degrade, skew, till_print
from data_tools.render.document import (
    Cell,
    Code,
    Document,
    Heading,
    Items,
    Note,
    Paragraph,
    Run,
    Table,
    plain_text,
    words_of,
)
from data_tools.render.layout import lay_out
from data_tools.render.markdown import block_markdown, to_markdown
from data_tools.render.pages import PageOptions, PageRenderer
from data_tools.render.texts import typographic
from data_tools.render.themes import random_theme
from data_tools.writer import generator
from varytoy.data.samples import read_samples

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
ENGLISH = """The value of *args is a tuple, and that of **kwargs is a dictionary of the other arguments.
A name with_under_scores or _edges_ is written in `code` letters, even if it is long.
Prices are between $5 and $10 & rise by 3 % a year; see [the notes](below) or <the index>.
Nobody reads 1. lists of numbers, # signs or > marks at the beginning of a sentence, they say.
1. This sentence starts as a list does, and that one as a heading would:
# not a heading but a comment that goes on until the line is full.
Seven wizards brew strong coffee at noon, while the quick brown fox jumps over the lazy dog."""
FRENCH = """L'élève français a reçu une lettre à Noël, où la forêt brûlée était décrite en détail.
Dès l'été, les garçons mangèrent des pâtes et burent du café près de l'hôtel."""
CODE = [f"def function_{number}(first, second):\n    return first * {number} + second\n\n" for number in range(12)]


def font_copy(target: Path, name: str, family: str, letters: str = "") -> None:
    """A font of Matplotlib's under another name, with some letters only."""
    with TTFont(FONTS / name) as font:
        for record in font["name"].names:
            if record.nameID in (1, 16):
                record.string = family
        if letters:
            cutter = subset.Subsetter(subset.Options(name_IDs=["*"], notdef_outline=True))
            cutter.populate(text=letters)
            cutter.subset(font)
        font.save(target)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for name in ("fonts", "texts", "code/python"):
        (folder / name).mkdir(parents=True)
    for name in ("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique", "SansMono", "Serif"):
        shutil.copyfile(FONTS / f"DejaVu{name}.ttf", folder / "fonts" / f"DejaVu{name}.ttf")
    font_copy(folder / "fonts/caladea.ttf", "DejaVuSerif.ttf", "Caladea")
    font_copy(folder / "fonts/lato.ttf", "DejaVuSans.ttf", "Lato", "".join(map(chr, range(32, 127))))
    (folder / "texts/python3.11-doc.txt").write_text(ENGLISH, encoding="utf-8")
    (folder / "texts/postgresql-doc-15.txt").write_text("Nobody trains on vacuumed tables.\n", encoding="utf-8")
    (folder / "texts/libreoffice-help-fr.txt").write_text(FRENCH, encoding="utf-8")
    (folder / "code/python/a.py").write_text("".join(CODE))
    return folder


def theme_of(source: Path, size=(724, 1024), lines=(30, 40), columns=(1, 1), seed=1):
    rng = random.Random(seed)
    return random_theme(rng, source, "train", "en", "abc", size, lines, columns, inverted=0.0)


def rendered_words(markdown: str) -> list[str]:
    """The words of markdown as a browser shows them."""
    parts: list[str] = []

    def walk(tokens):
        for token in tokens:
            if token.type == "inline":
                walk(token.children)
            elif token.type in ("text", "code_inline", "fence"):
                parts.append(token.content)
            elif token.type == "html_block":
                parts.append(html.unescape(re.sub("<[^>]*>", " ", token.content)))
            parts.append(" " if token.block or token.type == "softbreak" else "")

    walk(MarkdownIt("commonmark").enable("table").parse(markdown))
    return "".join(parts).split()


def without_marks(words: list[str]) -> list[str]:
    """Words without the marks of lists, which are not text in markdown."""
    return [word for word in words if not re.fullmatch(r"[\u2022\u2013\u25aa-]|\d+\.", word)]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_picture_text_and_markdown_of_a_page_agree(source, language):
    renderer = PageRenderer(source, 5, options=PageOptions(languages=(language,)))
    kinds = set()
    for index in range(40):
        rng = generator(5, language, index)
        sheet, document, _ = renderer.compose(rng, language, formulas=True)
        kinds |= {type(block).__name__ for block in document.blocks}
        words = [word[0] for word in sheet.words]
        assert words == plain_text(document).split() == sheet.text().split()
        body = Document(document.blocks, notes=document.notes)
        markdown = re.sub(r"\$\$\n.*?\n\$\$", "", to_markdown(document), flags=re.DOTALL)
        assert without_marks(rendered_words(markdown)) == without_marks(plain_text(body).split())
    assert language != "en" or kinds == {"Heading", "Paragraph", "Items", "Table", "Formula", "Figure", "Code"}


def test_boxes_are_tight_around_their_words(source):
    texts = [Run(line) for line in ENGLISH.splitlines()]
    blocks = [Heading(1, (Run("A heading"),)), *(Paragraph((text,)) for text in texts), Items((tuple(texts[:2]),))]
    sheet, _ = lay_out(blocks, theme_of(source), (724, 1024), ("left", "12"), ("foot",))
    sheet.paper, sheet.shapes = (255, 255, 255), []
    image, boxes = sheet.draw()
    ink = np.asarray(image.convert("L")) < 245
    outside = ink.copy()
    for word, (x1, y1, x2, y2) in zip(sheet.words, boxes.tolist(), strict=True):
        outside[y1:y2, x1:x2] = False
        inside = ink[y1:y2, x1:x2]
        assert inside.any(), word[0]
        edges = (inside[:2].any(), inside[-2:].any(), inside[:, :2].any(), inside[:, -2:].any())
        assert all(edges), word[0]
    assert not outside.any()
    annotations = sheet.annotations(boxes)
    assert annotations["words"] == [word[0] for word in sheet.words]
    assert len(annotations["lines"]) == len(sheet.lines) and "\n".join(annotations["lines"]) == sheet.text().replace(
        "left 12", "left\n12"
    )


def test_columns_are_read_one_after_the_other(source):
    theme = theme_of(source, lines=(40, 40), columns=(2, 2))
    blocks = [Paragraph((Run(ENGLISH.splitlines()[-1]),))] * 40
    sheet, document = lay_out(blocks, theme, (724, 1024))
    xs, ys = zip(*((sheet.words[start][1], sheet.words[start][2]) for start, _ in sheet.lines), strict=True)
    turn = next(number for number in range(1, len(ys)) if ys[number] < ys[number - 1])
    assert theme.columns == 2 and max(xs[:turn]) < 362 < min(xs[turn:]) and list(ys[turn:]) == sorted(ys[turn:])
    assert len(document.blocks) < 40  # the last of them is cut after the last word that is printed
    assert plain_text(document).split() == [word[0] for word in sheet.words]


def test_a_row_of_a_table_is_a_line_of_the_text(source):
    table = Table(
        ((Cell("Long name", head=True), Cell("n", head=True)), (Cell("one " * 40), Cell("7")), (Cell("x"),) * 2)
    )
    sheet, document = lay_out([table], theme_of(source), (500, 1000))
    assert sheet.text().splitlines() == ["Long name n", ("one " * 40) + "7", "x x"] and document.blocks == (table,)
    assert len(sheet.lines) > 6  # the long cell has several lines of its own


def test_what_is_wider_than_a_column_is_left_out(source):
    blocks = [Paragraph((Run("short " + "w" * 300),)), Paragraph((Run("It fits."),)), Code(("x" * 500,))]
    _, document = lay_out(blocks, theme_of(source), (724, 1024))
    assert document.blocks == (blocks[1],)


def test_a_skew_moves_the_boxes_with_the_ink(source):
    theme = theme_of(source)
    sheet, _ = lay_out([Paragraph((Run(" ".join([ENGLISH.splitlines()[-1]] * 9)),))], theme, (724, 1024))
    sheet.paper = (255, 255, 255)
    image, boxes = sheet.draw()
    turned, moved = skew(image, boxes, 1.0, random.Random(2))

    def outside(areas) -> float:
        ink = np.asarray(turned.convert("L")) < 160
        left = ink.copy()
        for x1, y1, x2, y2 in areas:
            left[max(int(y1) - 1, 0) : int(y2) + 2, max(int(x1) - 1, 0) : int(x2) + 2] = False
        return left.sum() / ink.sum()

    assert outside(moved) == 0 and outside(boxes) > 0.1
    near = np.array([[1, 1, 720, 10]])  # a header at the edge of the page
    _, kept = skew(image, near, 1.0, random.Random(2))
    assert (kept >= 0).all() and kept[0, 2] <= 724


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_a_degradation_grows_with_its_strength_and_keeps_the_text(source, name):
    sheet, _ = lay_out([Paragraph((Run(ENGLISH.replace("\n", " ")),))] * 5, theme_of(source), (724, 1024))
    sheet.paper = (255, 255, 255)
    page = sheet.draw()[0]
    for image in (page.convert("L"), page.convert("RGB")):
        clean = np.asarray(image, np.float32)
        mild, strong = (
            np.asarray(DEGRADATIONS[name](image, amount, random.Random(4)), np.float32) for amount in (0.2, 1.0)
        )
        assert mild.shape == strong.shape == clean.shape
        assert 0 < np.abs(mild - clean).mean() < np.abs(strong - clean).mean()
        flipped = np.asarray(ImageOps.mirror(image), np.float32)
        likeness = [np.corrcoef(strong.ravel(), other.ravel())[0, 1] for other in (clean, flipped)]
        assert likeness[0] > 0.35 and likeness[0] > likeness[1] + 0.3
        again = np.asarray(DEGRADATIONS[name](image, 1.0, random.Random(4)), np.float32)
        assert (again == strong).all()


def test_boxes_stay_on_the_words_that_a_till_condenses(source):
    image, boxes = lay_out([Paragraph((Run("Bread " * 9),))], theme_of(source), (300, 400))[0].draw()
    widths = set()
    for seed in range(12):
        printed, moved = till_print(image, boxes, random.Random(seed), 0.5)
        dark = 255 - np.asarray(printed.convert("L"), np.float32)
        held = sum(dark[y1:y2, x1 : x2 + 1].sum() for x1, y1, x2, y2 in np.rint(moved).astype(int))
        assert held > 0.9 * dark.sum()
        widths.add(printed.width)
    assert len(widths) > 2 and max(widths) == 300


def test_no_degradation_leaves_a_page_as_it_is(source):
    image, boxes = lay_out([Paragraph((Run("Few words."),))], theme_of(source), (300, 400))[0].draw()
    same, kept = degrade(image, boxes, random.Random(1), 0.0)
    assert same.tobytes() == image.tobytes() and (kept == boxes).all()


def test_pages_are_the_same_with_any_number_of_workers(source, tmp_path, capsys):
    command = ["render", "pages", "--count", "6", "--seed", "4", "--size", "500", "--lines", "12-20", "--task", "both"]
    for workers in ("1", "2"):
        options = ["--out", str(tmp_path / workers), "--workers", workers, "--source", str(source)]
        assert main([*command, *options]) == 0
        assert main(["check", str(tmp_path / workers)]) == 0
    files = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert len(files) == 8 and all(
        (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files
    )
    samples = list(read_samples(tmp_path / "1"))
    assert [sample.task for sample in samples] == ["ocr", "markdown"] * 6
    assert all(sample.images[0].endswith(".jpeg") and max(sample.open_images()[0].size) == 500 for sample in samples)
    for text, formatted in zip(samples[::2], samples[1::2], strict=True):
        assert text.answer == formatted.annotations.plain_text
        assert "".join(text.annotations.words) == "".join(text.answer.split())


def test_fonts_that_are_held_out_or_lack_a_letter_are_not_used(source, tmp_path):
    used = {}
    for name, options in {"train": [], "test": ["--split", "test"], "fr": ["--language", "fr"]}.items():
        folder = tmp_path / name
        command = ["render", "pages", "--count", "14", "--size", "400", "--lines", "8-14", "--no-formulas", *options]
        assert main([*command, "--out", str(folder), "--workers", "1", "--source", str(source)]) == 0
        used[name] = {sample.metadata["font"] for sample in read_samples(folder)}
        printed = {word for sample in read_samples(folder) for word in sample.annotations.words}
        assert ("vacuumed" in printed) == (name == "test") and ("français" in printed) == (name == "fr")
    assert used["test"] == {"Caladea"} and "Lato" in used["train"] and "Caladea" not in used["train"]
    assert used["fr"] and not used["fr"] & {"Lato", "Caladea"}


def test_quotes_are_typographic_where_that_is_asked_for(source, tmp_path):
    command = ["render", "pages", "--count", "6", "--size", "400", "--lines", "8-14", "--no-formulas", "--task", "ocr"]
    command += ["--language", "fr", "--typographic", "1", "--out", str(tmp_path / "pages"), "--source", str(source)]
    assert main([*command, "--workers", "1"]) == 0
    words = {word for sample in read_samples(tmp_path / "pages") for word in sample.annotations.words}
    assert {"L\u2019\u00e9l\u00e8ve", "l\u2019h\u00f4tel."} & words and not any("'" in word for word in words)
    quoted = """the "value" isn't ('x'); 'it's' and dogs' x="a\""""
    expected = "the \u201cvalue\u201d isn\u2019t (\u2018x\u2019); \u2018it\u2019s\u2019 and dogs\u2019 x=\u201ca\u201d"
    assert typographic(quoted) == expected


def test_chinese_is_set_by_characters_with_their_punctuation():
    words = words_of((Run("\u6309 Enter \u952e\uff0c\u300c\u4f7f\u7528\u300d\u3002"),))
    assert [word.text for word in words] == ["\u6309", "Enter", "\u952e\uff0c", "\u300c\u4f7f", "\u7528\u300d\u3002"]
    assert [word.spaced for word in words] == [True, True, True, False, False]


def test_tables_with_merged_cells_are_html():
    head = (Cell("A", down=2, head=True), Cell("B & <b>", across=2, head=True))
    table = Table((head, (Cell("x", head=True), Cell("y", head=True)), (Cell("1"), Cell("2"), Cell("3"))))
    assert table.merged and [place[:2] for place in table.places()][:5] == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)]
    assert block_markdown(table).splitlines() == [
        "<table>",
        '<tr><th rowspan="2">A</th><th colspan="2">B &amp; &lt;b&gt;</th></tr>',
        "<tr><th>x</th><th>y</th></tr>",
        "<tr><td>1</td><td>2</td><td>3</td></tr>",
        "</table>",
    ]
    assert block_markdown(Table(((Cell("a|b"), Cell("*")),))) == "| a\\|b | \\* |\n| --- | --- |"


def test_notes_and_running_titles_are_printed_but_only_notes_are_markdown():
    note = Note("\u00b9", (Run("See below."),))
    document = Document((Paragraph((Run("Text\u00b9"),)),), ("Title", "7"), ("end",), (note,))
    assert plain_text(document) == "Title 7\nText\u00b9\n\u00b9 See below.\nend"
    assert to_markdown(document) == "Text\u00b9\n\n\u00b9 See below."


def test_texts_and_code_are_fetched_from_packages(source, tmp_path, monkeypatch, capsys):
    manual = (
        ".TH X 1\n.SH NOM\nls \\- lister\n.PP\nAfficher les \\fIfichiers\\fP du\n.B dossier\ncourant, s'il y en a.\n"
    )

    @contextmanager
    def unpacked(client, *names):
        root = tmp_path / names[0]
        for path, data in {
            "usr/share/libreoffice/help/fr/text/a.html": "<p>Voici une première phrase du texte.</p>".encode(),
            "usr/share/man/fr/man1/ls.1.gz": gzip.compress(manual.encode()),
            "usr/lib/python3.11/a.py": b"print(1)\n",
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        yield root

    monkeypatch.setattr(languages, "unpacked", unpacked)
    assert main(["fetch", "--only", "languages", "--out", str(tmp_path / "out")]) == 0
    texts = tmp_path / "out/texts"
    assert (texts / "libreoffice-help-fr.txt").read_text("utf-8") == "Voici une première phrase du texte.\n"
    assert (texts / "manpages-fr.txt").read_text("utf-8") == "Afficher les fichiers du dossier courant, s'il y en a.\n"
    assert (tmp_path / "out/code/python/a.py").read_bytes() == b"print(1)\n"
    assert main(["licences"]) == 0
    table = capsys.readouterr().out
    assert "manpages-fr" in table and "MPL-2.0" in table and "fonts-noto-cjk" in table
    command = ["render", "pages", "--language", "pl", "--out", str(tmp_path / "pl"), "--source", str(source)]
    assert main(command) == 2 and "no train texts in the language 'pl'" in capsys.readouterr().err
