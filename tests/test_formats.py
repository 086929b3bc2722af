"""Answers in a notation become pictures again, without harm and without a network; what is broken is named."""

import io
import random
import re
import shutil
import sys
from fractions import Fraction

import numpy as np
import pytest
from conftest import tiny_recipe
from PIL import Image

from data_tools.render.charts import FORMS, random_chart
from data_tools.render.geometry import random_figure
from data_tools.render.markdown import block_markdown, escape
from data_tools.render.mathematics import random_formula
from data_tools.render.molecules import random_molecule
from data_tools.render.music import MusicRenderer, bar_lengths, random_music
from data_tools.writer import in_split, write_samples
from train.loop import run
from varytoy.cli import main
from varytoy.extras import MissingExtra, installed
from varytoy.formats import browser, chart, engraver, formula, geometry, molecule, music, page
from varytoy.formats.draw import draw, notation_of
from varytoy.formats.problem import NotationError
from varytoy.inference.reader import Reader

for _module in ("verovio", "rdkit", "latex2mathml", "mdit_py_plugins", "ziamath", "resvg_py", "matplotlib"):
    pytest.importorskip(_module, reason="pictures of answers need pip install -e '.[render]'")

TUNE = "**kern\n*clefG2\n*k[f#]\n*M2/4\n8gL\n8aJ\n4b\n=\n2g\n==\n*-\n"
TABLE = "# Sales\n\n| Month | Pears |\n| --- | --- |\n| Jan | 1,200 |\n| Feb | 3.5 |\n"
FIGURE = r"""\begin{tikzpicture}[scale=0.8]
\coordinate (A) at (0,0); % a corner
\draw[thick, blue] (A) -- (4,0) node[below right] {$B$} -- (4,3) -- cycle;
\draw[dashed] (1,1) rectangle (2,2);
\draw (1,0) arc (0:90:1) -- (0,2);
\filldraw[red] (2,1) circle (2pt);
\node[above left]
  at (A) {$A_1$};
\end{tikzpicture}
"""
ATTACK = '<img src=x onerror="alert(1)"><script>alert(1)</script>'


@pytest.mark.parametrize(
    ("name", "text", "options", "suffix"),
    [
        ("a.md", TABLE, (), "html"),
        ("a.md", TABLE, ("--as", "chart"), "svg"),
        ("a.md", TABLE, ("--as", "chart"), "png"),
        ("a.txt", "$$\n\\frac{a}{b}\n$$", (), "png"),
        ("a.tex", "\\frac{a}{b}", (), "html"),
        ("a.txt", TUNE, (), "png"),
        ("a.krn", TUNE, (), "html"),
        ("a.smi", "OCC ethanol", (), "png"),
        ("a.txt", "OCC", ("--as", "molecule"), "svg"),
        ("a.txt", FIGURE, (), "svg"),
        ("a.tikz", r"\draw (0,0) -- (90:2);", (), "png"),
    ],
)
def test_an_answer_is_drawn(tmp_path, capsys, name, text, options, suffix):
    (tmp_path / name).write_text(text, encoding="utf-8")
    out = tmp_path / f"out.{suffix}"
    assert main(["render", str(tmp_path / name), "--out", str(out), *options]) == 0
    assert capsys.readouterr().err == ""
    if suffix == "png":
        with Image.open(out) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.min() < 100 and pixels.max() == 255 and 0 < (pixels < 128).mean() < 0.5
    else:
        written = out.read_text(encoding="utf-8")
        assert "<svg" in written if suffix == "svg" else re.search("<table|<math|<img", written)
        assert "<script" not in written and not re.search(r"""(?:src|href)=["'](?!data:|#)""", written)


def test_the_same_answer_gives_the_same_picture():
    texts = {"music": TUNE, "molecule": "C[C@H](N)O", "geometry": FIGURE, "chart": TABLE, "formula": "x^2"}
    for notation, text in texts.items():
        assert draw(text, notation, "svg") == draw(text, notation, "svg")


# --- markdown ---


def test_html_of_an_answer_does_no_harm():
    text = (
        f"{ATTACK}\n\n<table onclick='x'><tr><td onclick=x>{ATTACK}</td></tr></table>\n\n[a](http://e.com) ![b](c.png)"
    )
    text += rf" $\href{{javascript:x}}{{y}}$ $\style{{background:url(x)}}{{y}}$ $\text{{{ATTACK}}}$ <http://e.com>"
    written = page.page(text, ATTACK)
    tags = set(re.findall(r"<\s*/?([a-z0-9]+)", written.split("<body>")[1]))
    assert tags <= {"article", "body", "html", "p", "table", "tr", "td", "math", "mrow", "mi", "mtext"}
    assert written.count("&lt;script&gt;") == 4 and "default-src 'none'" in written
    assert not re.search(r"<[^>]*(?:onclick|onerror|href|style=|url\()", written.split("</style>")[1])


def test_tables_in_html_keep_their_cells():
    table = (
        "<table><tr><th colspan='2'>A **b** $x$</th></tr>\n<tr><td rowspan=2>1<br />2</td>\n\n<td>3 &lt; 4</td></tr>"
    )
    table += "</table>"
    written = page.body(f"before\n{table} after\n\n`<table>`\n\n    <table>\n\n<table><tr><td>cut")
    assert (
        '<th colspan="2">A <strong>b</strong> <math' in written
        and '<td rowspan="2">1<br />2</td><td>3 &lt; 4' in written
    )
    assert written.index("<p>before") < written.index("<th") < written.index("<p>after</p>")
    assert "<code>&lt;table&gt;</code>" in written and "<code>&lt;table&gt;\n</code>" in written
    assert written.endswith("<table>\n<tr><td>cut</td></tr>\n</table>\n")


def test_signs_around_formulas():
    written = page.body("It costs $5 and $6; $a$, $$b$$, \\(c\\) and \\[d\\]\n\n$$\ne\n$$\n\n`$f$` \\$g\\$")
    assert re.findall(r'display="(\w+)"><mrow><mi>(\w)', written) == [
        ("inline", "a"), ("block", "b"), ("inline", "c"), ("block", "d"), ("block", "e"),
    ]  # fmt: skip
    assert "$5 and $6;" in written and "<code>$f$</code> $g$" in written


def test_a_broken_formula_is_shown_as_it_is_and_said(tmp_path, capsys):
    (tmp_path / "a.md").write_text("# T\n\nA $\\frac{a}$ <b>.\n", encoding="utf-8")
    assert main(["render", str(tmp_path / "a.md"), "--out", str(tmp_path / "a.html")]) == 0
    assert "a.md: line 3: \\frac at character 1 lacks what belongs to it" in capsys.readouterr().err
    assert '<code class="bad">\\frac{a}</code> &lt;b&gt;' in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.skipif(not installed("playwright") or not shutil.which("chromium"), reason="needs Chromium and playwright")
def test_markdown_as_a_picture():
    (written, problems) = draw("# Title\n\n$\\frac{a}{b}$", "markdown", "png")
    with Image.open(io.BytesIO(written)) as image:
        assert problems == [] and image.width > 1000 and np.asarray(image.convert("L")).min() < 50


def test_a_picture_of_markdown_without_a_browser_is_refused(monkeypatch):
    monkeypatch.setattr(browser, "installed", lambda module: False)
    with pytest.raises(NotationError, match="needs a browser: pip install playwright.*or write .html"):
        draw("# Title", "markdown", "png")


# --- formulas ---


def test_formulas_of_our_data_are_mathml():
    for index in range(150):
        latex = random_formula(random.Random(index))
        root = formula.mathml(latex)
        printed = "".join(element.text or "" for element in root.iter())
        assert set(re.findall(r"\d", latex)) == set(re.findall(r"\d", printed)) and "\\" not in printed


@pytest.mark.parametrize("name", ["aligned", "align*", "split", "cases", "pmatrix", "gathered"])
def test_environments_have_rows(name):
    latex = rf"\begin{{{name}}} a {'' if name == 'gathered' else '& b '}\\ c \end{{{name}}}"
    assert [element.tag for element in formula.mathml(latex).iter()].count("mtr") == 2
    assert "<svg" in formula.svg(latex)


# --- errors ---


@pytest.mark.parametrize(
    ("notation", "text", "sentence"),
    [
        ("formula", r"a + \frob{x}", r"\\frob at character 5 of the formula is not known"),
        ("formula", "{a", "{ at character 1 is not closed"),
        ("formula", "a}", "} at character 2 closes nothing"),
        ("formula", r"\left( a", r"\\left at character 1 is not closed"),
        ("formula", r"\begin{frob} a \end{frob}", r"\\begin{frob} at character 1 is not known"),
        ("formula", "x^", r"\^ at character 2 lacks what belongs to it"),
        ("formula", r"\sqrt[3]", r"\\sqrt at character 1 lacks"),
        ("formula", "x^2^3", "double superscripts"),
        ("formula", "{" * 99 + "}" * 99, "more than 60 groups"),
        ("formula", " ", "the formula is empty"),
        ("music", "hello", r"line 1 of the music must be '\*\*kern', and is 'hello'"),
        ("music", TUNE.replace("4b", "4b\t4c"), "line 7 of the music has 2 columns, and 1 are open"),
        ("music", TUNE.replace("4b", "zz"), "line 7 of the music: 'zz' is no note or rest"),
        ("music", TUNE.replace("4b", "b"), "line 7 of the music: 'b' has no length"),
        ("music", TUNE.replace("clefG2", "clefQ2"), "line 2 of the music: '.clefQ2' is no clef"),
        ("music", TUNE.replace("M2/4", "M2/0"), "line 4 of the music: '.M2/0' is no meter"),
        ("music", TUNE.replace("4b", "*v"), r"line 7 of the music joins one column"),
        ("music", TUNE + "4c\n", "line 12 of the music follows the end"),
        ("molecule", "CC)C", "cannot be read at character 3: CC"),
        ("molecule", "C1CC", "unclosed ring"),
        ("molecule", "OC(C)(C)(C)C", "Explicit valence for atom 2 C, 5, is greater than permitted"),
        ("molecule", "c1cccc1", "Unkekulized atoms: 1 2 3 4 5"),
        ("molecule", "", "the SMILES is empty"),
        ("chart", TABLE.replace("3.5", "many"), "line 6 of the chart: 'many' under 'Pears' is no number"),
        ("chart", "# Sales", "the chart has no table"),
        ("geometry", "", "the figure is empty"),
        ("geometry", r"\coordinate (A) at (1,2);", "the figure draws nothing"),
        ("geometry", r"\draw (0,0) -- (1,1)", r"last statement does not end with ';': \\draw \(0,0\)"),
        ("geometry", r"\draw (0,0) -- (1,1); \draw (A) -- (1,1);", "statement 2 of the figure: no point named 'A'"),
        ("geometry", r"\draw (0,0) -- (1,);", r"statement 1 of the figure: no point at '\(1,\)'"),
        ("geometry", r"\draw (0,0) .. controls (1,1) .. (2,0);", r"'\.\. controls \(1,1\)"),
        ("geometry", r"\draw[wavy] (0,0) -- (1,1);", "no option 'wavy' of a line; there are dashed"),
        ("geometry", r"\clip (0,0) -- (1,1);", r"\\clip is none of \\coordinate, \\draw"),
        ("geometry", r"\draw (0,0) circle;", "no radius of the circle"),
        ("geometry", r"\draw (0,0) -- (1e9,1);", r"no point at '\(1e9,1\)'"),
        ("geometry", r"\draw (0,0) -- (1000000,1);", "larger than 100,000 units"),
        ("geometry", r"\draw (0,0) -- (1,1); \node at (1000000,0) {A};", "larger than 100,000 units"),
        ("geometry", r"\node at (0,0) {$\foo$};", "a text of the figure is no mathematics"),
        ("markdown", "", "the answer is empty"),
        ("markdown", "x" * 200_000, "has 200,000 characters; at most 100,000"),
    ],
)
def test_what_is_broken_is_named_with_its_place(notation, text, sentence):
    with pytest.raises(NotationError, match=sentence) as raised:
        draw(text, notation, "html")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 250


def test_errors_of_the_command_are_a_sentence(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("OCC")
    (tmp_path / "b.md").write_bytes(b"a\xff")
    for arguments, sentence in (
        (["a.txt"], "does not tell its notation: say it with --as markdown|formula|music|molecule|geometry|chart\n"),
        (["a.txt", "--as", "molecule", "--out", "a.gif"], "a.gif: write .png, .svg, .html"),
        (["a.txt", "--as", "markdown", "--out", "a.svg"], "markdown is drawn as .html or .png, not as .svg"),
        (["b.md"], "b.md is no UTF-8 text: byte 2 is wrong"),
        (["c.md"], "c.md cannot be read"),
    ):
        assert main(["render", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("notation", "text", "module"),
    [
        ("molecule", "OCC", "rdkit"),
        ("music", TUNE, "verovio"),
        ("formula", "x", "ziamath"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_pip_line(monkeypatch, notation, text, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"needs {module}: pip install .*'\.\[render\]'"):
        draw(text, notation, "png")


def test_a_picture_is_not_written_over_a_file_that_nobody_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.smi").write_text("OCC")
    assert main(["render", "a.smi"]) == 0 and (tmp_path / "a.png").is_file()
    assert main(["render", "a.smi"]) == 2 and "a.png is there already" in capsys.readouterr().err
    assert notation_of("answer", "\\( x \\)") == "formula" and notation_of("answer", "<table>") == "markdown"


# --- music, molecules and charts ---


def test_music_that_ends_the_engraver_is_an_error(tmp_path, monkeypatch):
    """Verovio aborts its process on some broken music; here a program that does so stands for it."""
    (tmp_path / "program.py").write_text("import os; os.abort()")
    monkeypatch.setattr(engraver, "__file__", str(tmp_path / "program.py"))
    with pytest.raises(NotationError, match="Verovio cannot draw the music"):
        music.svg(TUNE)


def test_music_in_several_voices_is_music_and_a_cut_one_is_told():
    voices = "**kern\t**kern\n*clefF4\t*clefG2\n*^\t*\n2.C\t4G\t4c 4e\n.\t2G\t2c\n*v\t*v\t*\n==\t==\n*-\t*-\n"
    assert music.check(voices) == [] and "<svg" in music.svg(voices)
    assert draw(TUNE.replace("*-\n", ""), "music", "svg")[1] == [
        "the music does not end with *-, so something may be missing"
    ]


def test_random_music_fills_its_bars():
    for index in range(150):
        kern = random_music(random.Random(index), 4)
        assert music.check(kern) == [] and kern.count("(") == kern.count(")")
        lines = kern.splitlines()
        assert set(bar_lengths(kern)) == {Fraction(next(line[2:] for line in lines if line.startswith("*M")))}
        assert len(bar_lengths(kern)) == 4 and kern.count("L") == kern.count("J")


def test_a_figure_has_the_parts_that_its_tikz_names():
    figure = geometry.read(FIGURE)
    lines = [shape for shape in figure.shapes if isinstance(shape, geometry.Line)]
    circles = [shape for shape in figure.shapes if isinstance(shape, geometry.Circle)]
    assert [line.closed for line in lines] == [True, True, False] and lines[1].style.line == "--"
    assert lines[0].style == geometry.Style("-", 1.8, "blue") and lines[0].points == ((0, 0), (4, 0), (4, 3))
    arc, dot = circles
    assert arc.centre == pytest.approx((0, 0)) and (arc.start, arc.end, arc.radius) == (0, 90, 1)
    assert lines[2].points[0] == pytest.approx((0, 1)) and lines[2].points[1] == (0, 2)
    assert dot.dot and dot.centre == (2, 1) and dot.style.filled
    sides = {label.text: (label.place, label.side) for label in figure.labels}
    assert sides == {"$B$": ((4, 0), (1, -1)), "$A_1$": ((0, 0), (-1, 1))}


def test_random_figures_are_read_back_at_their_size():
    for index in range(200):
        x1, y1, x2, y2 = geometry.read(random_figure(random.Random(index))).extent()
        assert max(x2 - x1, y2 - y1) == pytest.approx(10, abs=0.4) and abs(x1) < 0.4 and abs(y1) < 0.4


def test_a_drawn_molecule_is_the_one_of_its_answer():
    """The wedges and double bonds of the drawing's coordinates give the SMILES back, by RDKit's reader of drawings."""
    from rdkit import Chem
    from rdkit.Chem.Draw import rdMolDraw2D

    found = {random_molecule(random.Random(index), 4 + index % 20) for index in range(100)}
    assert len(found) > 80 and any("@" in smiles for smiles in found) and any("/" in smiles for smiles in found)
    for smiles in found:
        drawn = Chem.MolToMolBlock(rdMolDraw2D.PrepareMolForDrawing(molecule.molecule(smiles)))
        assert Chem.MolToSmiles(Chem.MolFromMolBlock(drawn)) == smiles == molecule.canonical(smiles)
        assert Chem.MolFromSmiles(smiles).GetNumAtoms() <= 23


def test_made_up_content_is_in_one_split():
    held_out = [in_split(str(number), "test") for number in range(1000)]
    assert held_out == [not in_split(str(number), "train") for number in range(1000)] and 60 < sum(held_out) < 140


def test_charts_of_our_data_are_read_back():
    for index in range(60):
        made = random_chart(random.Random(index), FORMS[index % len(FORMS)])
        found = chart.read(f"# {escape(made.title)}\n\n{block_markdown(made.table())}")
        assert (found.title, found.categories, found.series) == (made.title, made.categories, made.series)
        assert found.values == [[float(made.text(value)) for value in values] for values in made.values]
        assert found.form == made.form or made.form not in ("pie", "scatter")


def test_only_a_model_that_was_trained_on_music_reads_music(tmp_path):
    """Every other model would answer too, with whatever it knows."""
    write_samples(tmp_path / "music", 5, MusicRenderer(0, "train", (1, 1), 0.0), workers=1)
    run(tiny_recipe(tmp_path / "music", tmp_path / "run", max_steps=1))
    taught, embedded = (Reader.from_pretrained(str(model)) for model in (tmp_path / "run", "nano"))
    assert set(taught.tasks) - set(embedded.tasks) == {"music"}
    assert isinstance(taught.ask(Image.new("RGB", (80, 40), "white"), "music", max_new_tokens=2).text, str)
    for reader, task in ((taught, "molecule"), (embedded, "music")):
        with pytest.raises(ValueError, match=f"not on the task '{task}'"):
            reader.ask(Image.new("RGB", (80, 40)), task)
