"""olmOCR-bench: its assertions, its layout and its score."""

import json
import random

import pytest
from PIL import Image
from rapidfuzz.distance import Levenshtein
from test_suites import cases_of, error_of, options_of, scores, write

from varytoy.evaluation.case import Prediction
from varytoy.evaluation.latex import normalise_latex
from varytoy.evaluation.olmocr_bench import parse, starts
from varytoy.evaluation.suites import SUITES


def holds(kind: str, markdown: str, **fields: object) -> bool:
    return parse({"pdf": "a.pdf", "page": 1, "id": "a", "type": kind, **fields}).holds(markdown)


@pytest.mark.parametrize(
    ("markdown", "fields", "present"),
    [
        ("Some **bold words** here", {"text": "bold words here"}, True),
        ("“Quoted” — text", {"text": '"Quoted" - text'}, True),
        ("line\n\nbreaks  go", {"text": "line breaks go"}, True),
        ("A long sentanc here", {"text": "A long sentence"}, False),
        ("A long sentxnce here", {"text": "A long sentence", "max_diffs": 2}, True),
        ("Upper case", {"text": "upper case"}, False),
        ("Upper case", {"text": "upper case", "case_sensitive": False}, True),
        ("head, middle, tail", {"text": "middle", "first_n": 4}, False),
        ("head, middle, tail", {"text": "tail", "last_n": 4}, True),
        ("head, middle, tail", {"text": "head", "first_n": 4, "last_n": 4}, True),
        (" ", {"text": "with spaces"}, False),
        ("", {"text": "x"}, False),
    ],
)
def test_text_is_present_or_absent(markdown, fields, present):
    assert holds("present", markdown, **fields) is present
    assert holds("absent", markdown, **fields) is not present


def test_order():
    page = "First heading\n\nsome words between.\n\nLast sentence of all."
    assert holds("order", page, before="First heading", after="Last sentence")
    assert not holds("order", page, before="Last sentence", after="First heading")
    assert holds("order", page, before="Fxrst heading", after="Last sentxnce", max_diffs=2)
    assert not holds("order", page, before="Fxrst heading", after="Last sentence")
    assert not holds("order", page, before="First heading", after="not there at all", max_diffs=3)
    assert holds("order", "b, then a, then b", before="a", after="b")


def test_starts_are_those_of_a_search_of_all_places():
    """Each place that it gives begins a part of the page within the edits, and the best part is among them."""
    rng = random.Random(0)
    for _ in range(60):
        page = "".join(rng.choices("abc", k=rng.randrange(40)))
        text, most = "".join(rng.choices("abc", k=rng.randrange(3, 8))), rng.randrange(3)
        fewest = {
            begin: min(Levenshtein.distance(text, page[begin:end]) for end in range(begin, len(page) + 1))
            for begin in range(len(page) + 1)
        }
        within = [begin for begin, edits in fewest.items() if edits <= most]
        found = starts(text, page, most)
        assert set(found) <= set(within) and bool(found) == bool(within)
        if most == 0:
            assert found == within
        if found:
            best = min(fewest.values())
            assert best in {fewest[begin] for begin in found}


TABLE = """Text before.

| Fruit | Price | Weight |
|---|---|---|
| Apple | 1.00 | 150 g |
| Pear | 2.00 | 180 g |
"""
SPANS = """<table><thead><tr><th></th><th colspan="2">Results</th></tr>
<tr><th>Model</th><th>Dev<br>set</th><th>Test</th></tr></thead>

    <tr><td rowspan="2">Large</td><td>70.1</td><td>71.2</td></tr>
    <tr><td>72.3</td><td>73.4</td></tr>
</table>"""


@pytest.mark.parametrize(
    ("fields", "right"),
    [
        ({"cell": "2.00", "left": "Pear", "up": "1.00", "right": "180 g"}, True),
        ({"cell": "2.00", "up": "Pear"}, False),
        ({"cell": "1.00", "down": "2.00"}, True),
        ({"cell": "180 g", "top_heading": "Weight", "left_heading": "Pear"}, True),
        ({"cell": "180 g", "top_heading": "150 g"}, False),
        ({"cell": "Fruit", "down": "Apple", "up": "nothing"}, False),
        ({"cell": "2.00", "left": "Paer", "max_diffs": 2}, True),
        ({"cell": "2.00", "left": "Paer"}, False),
        ({"cell": "Banana"}, False),
        ({"cell": "Apple", "ignore_markdown_tables": True}, False),
        ({"cell": "Pear", "top_heading": "Apple"}, True),
        ({"cell": "Plum", "up": "Fig", "right": "4.00"}, True),
        ({"cell": "short", "up": "above the gap"}, True),
        ({"cell": "73.4", "up": "71.2", "left": "72.3", "top_heading": "Results"}, True),
        ({"cell": "73.4", "top_heading": "Test", "left_heading": "Large"}, True),
        ({"cell": "73.4", "top_heading": "Dev set"}, False),
        ({"cell": "72.3", "left": "Large", "top_heading": "Dev set", "ignore_markdown_tables": True}, True),
    ],
)
def test_tables(fields, right):
    """The first column of markdown is a heading too. A line of dashes is not needed, and gaps are crossed."""
    others = (
        "| Fig | 3.00 |\n| Plum | 4.00 |\n\na | above the gap\nb\nmerely one |\n\n1 | above the gap\n2 |\n3 | short"
    )
    assert holds("table", f"{TABLE}\n{SPANS}\nText after.\n\n{others}", **fields) is right


@pytest.mark.parametrize(
    ("written", "asked", "same"),
    [
        (r"$$ \frac{1}{2} $$", r"\dfrac12", True),
        (r"\[ \left( \alpha x \right) = y^{2} \]", r"(\alpha x)=y^2", True),
        (r"where $E = mc^2$, so", "E=mc^{2}", True),
        (r"$$\begin{aligned} a &= b \\ c &= d \end{aligned}$$", "c = d", True),
        (r"\(\mathbf{x}_{i}\)", "x_i", True),
        ("E = mc^2 in words", "E=mc^2", False),
        (r"$x^{12}$", "x^12", False),
        (r"$\frac{ab}{c}$", r"\frac{a}{bc}", False),
        (r"$\{a\}$", r"\lbrace a \rbrace", True),
    ],
)
def test_formulas_are_compared_without_what_is_not_seen(written, asked, same):
    assert holds("math", written, math=asked) is same
    assert not holds("math", written, math=asked + "+q")
    if "$" in written:
        assert not holds("math", written, math=asked, ignore_dollar_delimited=True)
    assert normalise_latex(normalise_latex(asked)) == normalise_latex(asked)


def test_baseline():
    assert holds("baseline", "Some text.") and not holds("baseline", " \n--") and not holds("baseline", "")
    assert not holds("baseline", "The end" + " end" * 31) and holds("baseline", "The end" + " end" * 29)
    assert holds("baseline", "The end" + " end" * 40, max_repeats=50)
    assert not holds("baseline", "Text 中文") and holds("baseline", "中文", check_disallowed_characters=False)
    assert holds("baseline", "Page", max_length=4) and not holds("baseline", "Pages", max_length=4)
    image = "![a long description](a.png) Page"
    assert holds("baseline", image, max_length=4, max_length_skips_image_alt_tags=True)


def line(pdf: str, name: str, kind: str, page: int = 1, **fields: object) -> str:
    row = {"pdf": pdf, "page": page, "id": name, "type": kind, "max_diffs": 0, "checked": "verified", "url": "x"}
    return json.dumps({**row, **fields}) + "\n"


@pytest.fixture
def bench(tmp_path):
    headers = [
        line("headers_footers/a.pdf", "a_1", "absent", text="Page 3", case_sensitive=False, first_n=None, last_n=None),
        line("headers_footers/a.pdf", "a_2", "absent", text="Journal"),
        line("headers_footers/b.pdf", "b_1", "absent", text="Journal"),
    ]
    write(tmp_path / "headers_footers.jsonl", "".join(headers))
    write(tmp_path / "arxiv_math.jsonl", line("arxiv_math/c.pdf", "c_1", "math", 2, math="x^2"))
    page = Image.new("RGB", (60, 80), "white")
    (tmp_path / "pdfs/headers_footers").mkdir(parents=True)
    (tmp_path / "pdfs/arxiv_math").mkdir()
    for name in ("headers_footers/a", "headers_footers/b", "arxiv_math/c"):
        page.save(tmp_path / f"pdfs/{name}.pdf", save_all=True, append_images=[page])
    return tmp_path


def test_the_score_is_the_mean_of_the_files_and_of_the_baseline(bench):
    """Each page is read once. A PDF without an assertion of type baseline gets one, about its first page."""
    cases = cases_of("olmocr-bench", bench)
    assert [(case.id, case.group, len(case.facts["assertions"])) for case in cases] == [
        ("arxiv_math/c.pdf-2", "arxiv_math", 1),
        ("headers_footers/a.pdf-1", "headers_footers", 3),
        ("headers_footers/b.pdf-1", "headers_footers", 2),
        ("arxiv_math/c.pdf-1", "baseline", 1),
    ]
    assert {case.task for case in cases} == {"markdown"} and cases[0].open().size
    answers = ["so $x^{2}$.", "Journal of text", "text", ""]
    found = scores("olmocr-bench", cases, answers)
    assert found["pass rate, mean of files"] == round((1 + 2 / 3 + 2 / 3) / 3, 3)
    assert (found["absent"], found["baseline"], found["math as LaTeX, not as drawn"]) == (0.667, 0.667, 1)
    rate = SUITES["olmocr-bench"].metrics(options_of("olmocr-bench"))[0]
    rows = rate.rows([Prediction(answer) for answer in answers], cases)
    parts = [rows[:1].sum(0), rows[1:3].sum(0), rows[3:].sum(0)]
    assert rate.value(rows).shape == (4,)
    assert [round(float(rate.value(part)), 3) for part in parts] == [1, 0.667, 0], "of the file alone"
    (only,) = cases_of("olmocr-bench", bench, "--types", "math")
    assert only.id == "arxiv_math/c.pdf-2" and scores("olmocr-bench", [only], ["$x^2$"], "--types", "math") == {
        "pass rate, mean of files": 1,
        "math as LaTeX, not as drawn": 1,
    }


def test_answers_are_written_as_a_candidate_of_the_bench(bench):
    cases = cases_of("olmocr-bench", bench)
    SUITES["olmocr-bench"].write_markdown(bench / "mine", cases, [Prediction("# Text")] * 3 + [Prediction(error="no")])
    files = {file.relative_to(bench / "mine").as_posix(): file.read_text() for file in (bench / "mine").rglob("*.md")}
    assert files == {
        "headers_footers/a_pg1_repeat1.md": "# Text\n",
        "headers_footers/b_pg1_repeat1.md": "# Text\n",
        "arxiv_math/c_pg1_repeat1.md": "",
        "arxiv_math/c_pg2_repeat1.md": "# Text\n",
    }


@pytest.mark.parametrize(
    ("added", "error"),
    [
        (line("headers_footers/a.pdf", "x", "footnote", marker="1"), "line 2: the type 'footnote' is not scored here"),
        (line("headers_footers/a.pdf", "x", "present"), "line 2: no key 'text'; give *.jsonl"),
        (line("headers_footers/a.pdf", "x", "present", text=" "), "line 2: 'text' must be a text"),
        (line("headers_footers/a.pdf", "c_1", "present", text="a"), "line 2: the id 'c_1' is also that of"),
        (line("headers_footers/a.pdf", "x", "present", text="a", max_diffs=-1), "'max_diffs' must be a whole number"),
        (line("../a.pdf", "x", "present", text="a"), "line 2: the file name '../a.pdf' leaves pdfs/"),
        (line("no/such.pdf", "x", "present", text="a"), "1 of 4 PDFs are missing, first"),
        (line("arxiv_math/c.pdf", "x", "present", 3, text="a"), "c.pdf has 2 pages, there is no page 3"),
        ("{", "line 2 is not JSON"),
        ("[]", "line 2:"),
    ],
)
def test_what_is_wrong_is_named(bench, added, error):
    file = bench / "arxiv_math.jsonl"
    file.write_text(file.read_text() + added)
    assert error in error_of("olmocr-bench", bench)
