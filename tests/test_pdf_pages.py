"""People's own PDFs become samples: order of columns, markdown, boxes, what is dropped and why, exact goings-on."""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import forked
from markdown_it import MarkdownIt
from PIL import Image
from test_data_output import everything
from test_documents import make_pdf, pdf_of

from data_tools.__main__ import main
from data_tools.pdf.guard import Guard, guarded
from data_tools.pdf.markdown import escape, escape_start
from varytoy.data.samples import read_samples

FONTS = {"": "Helvetica", "b": "Helvetica-Bold", "i": "Helvetica-Oblique", "m": "Courier"}
WORDS = (
    "the house on a hill was seen from every road and those who came by train told stories of its rooms to their "
    "children while rain fell over fields near an old river that runs into the sea"
).split()
MARKDOWN = MarkdownIt("commonmark").enable("table")
Text = tuple[float, float, float, str]
"""x, y from above, size, text; words begin with the style and a colon where it is not plain."""


def sentence(count: int, seed: int = 0, most: int = 90) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) for _ in range(count))[:most].strip()


def lines(x: float, y: float, texts: list[str], size: float = 10, step: float = 12) -> list[Text]:
    return [(x, y + step * number, size, text) for number, text in enumerate(texts)]


def drawing(texts: list[Text], rules=(), height: float = 800, before: str = "") -> bytes:
    parts = [before]
    for x, y, size, text in texts:
        parts.append(f"BT 1 0 0 1 {x:g} {height - y:g} Tm")
        for style, piece in _pieces(text):
            piece = piece.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
            parts.append(f"/F{style} {size:g} Tf ({piece}) Tj")
        parts.append("ET")
    for x1, y1, x2, y2 in rules:
        parts.append(f"0.5 w {x1:g} {height - y1:g} m {x2:g} {height - y2:g} l S")
    return "\n".join(parts).encode("latin-1")


def _pieces(text: str):
    style, begun = "", ""
    for part in text.split("|"):
        mark, _, rest = part.partition(":")
        style, begun = (mark, rest) if mark in FONTS and mark and _ else ("", part)
        yield style, begun


def pdf(*pages: bytes, size=(600, 800)) -> bytes:
    fonts = " ".join(f"/F{style} << /Type /Font /Subtype /Type1 /BaseFont /{name} /Encoding /WinAnsiEncoding >>"
                     for style, name in FONTS.items())  # fmt: skip
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids.encode(), len(pages)),
    ]
    for number, page in enumerate(pages):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R /Resources << /Font << %s >> >> >>"
            % (*size, 4 + 2 * number, fonts.encode())
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page))
    return pdf_of(objects)


def make(folder: Path, *options: str, expected: int = 0) -> list:
    out = folder.parent / "out"
    words = ["pdf", str(folder), "--out", str(out), "--overwrite", "--workers", "1", *options]
    assert main(words) == expected
    return list(read_samples(out)) if expected == 0 else []


def only(data: bytes, tmp_path: Path, task: str, *options: str):
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in/one.pdf").write_bytes(data)
    (sample,) = make(tmp_path / "in", "--tasks", task, *options)
    return sample


def dropped(tmp_path: Path) -> tuple[dict, str]:
    manifest = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))
    return manifest["dropped"], (tmp_path / "out/dropped.txt").read_text("utf-8")


def plain(markdown: str) -> str:
    """What a reader of the markdown sees."""
    words = []
    for token in MARKDOWN.parse(markdown):
        words += [" " if child.type == "softbreak" else child.content for child in token.children or []] + [
            token.content * (token.type == "fence"),
            " ",
        ]
    return " ".join("".join(words).split())


def test_columns_are_read_one_after_the_other(tmp_path):
    left, right = ([f"{side} {sentence(7, n, 38)}" for n in range(20)] for side in ("left", "right"))
    below = [sentence(16, 90 + n) for n in range(3)]
    texts = [(60, 40, 9, "Running head"), (520, 40, 9, "12"), (180, 90, 18, "A title over both columns")]
    rows = [line for pair in zip(lines(60, 130, left), lines(320, 130, right), strict=True) for line in pair]
    texts += [*rows, *lines(60, 420, below), (300, 770, 9, "3")]
    sample = only(pdf(drawing(texts)), tmp_path, "ocr")
    assert sample.answer.split("\n") == [
        "Running head 12", "A title over both columns", *left, *right, *below, "3"
    ]  # fmt: skip
    assert sample.annotations.lines == sample.answer.split("\n")
    assert sample.annotations.words == sample.answer.split()
    image = np.asarray(sample.open_images()[0].convert("L"))
    assert image.shape == (1024, 768)
    boxes = {box.label: box.xyxy for box in sample.annotations.text_lines}
    x1, y1, x2, y2 = boxes[right[0]]
    assert x1 == pytest.approx(1000 * 320 / 600, abs=3) and y2 == pytest.approx(1000 * 132 / 800, abs=3)
    for box in sample.annotations.text_words:  # ink inside, none around
        x1, y1, x2, y2 = box.to_pixels(768, 1024)
        assert image[y1 : y2 + 1, x1 : x2 + 1].min() < 128, box.label
        assert image[y1 : y2 + 1, max(x1 - 3, 0) : x1 - 1].min() > 100, box.label


def test_terms_stay_beside_their_descriptions(tmp_path):
    rows = [
        ("river", "where water runs"),
        ("hill", "what one climbs up to see far"),
        ("sea", "where it ends"),
        ("field", "a place"),
    ]
    texts = [(60, 100, 10, sentence(17))]
    texts += [
        line
        for n, (term, what) in enumerate(rows)
        for line in ((60, 120 + 14 * n, 10, term), (220, 120 + 14 * n, 10, what))
    ]
    sample = only(pdf(drawing(texts)), tmp_path, "ocr")
    assert sample.answer.split("\n")[1:] == [f"{term} {what}" for term, what in rows]


def test_markdown_of_headings_lists_bold_and_italic(tmp_path):
    body = [sentence(16, n) for n in range(6)]
    texts = [
        (60, 60, 20, "b:The Report"),
        *lines(60, 100, body[:3]),
        (60, 160, 14, "b:2 A part"),
        (60, 185, 10, "Words in |b:bold type|, in |i:slanted type| and 2 * 3 *stars*, a_b, _c_ [d](e) <f>"),
        (60, 197, 10, "1990. was a year; # no heading"),
        (70, 220, 10, "\x95"), (82, 220, 10, "first item"),
        (82, 232, 10, "goes on here"),
        (90, 246, 10, "\x96"), (102, 246, 10, "inner item"),
        (90, 260, 10, "\x96"), (102, 260, 10, "b:second| inner item"),
        (70, 274, 10, "\x95"), (82, 274, 10, "last item"),
        (70, 300, 10, "1."), (84, 300, 10, "one"),
        (70, 314, 10, "2."), (84, 314, 10, "two"),
        *lines(60, 350, ["m:for x in y:", "m:    print(x, \"*\")"]),
        *lines(75, 400, body[3:4]), *lines(60, 412, body[4:]),
    ]  # fmt: skip
    sample = only(pdf(drawing(texts)), tmp_path, "markdown")
    assert sample.answer == "\n".join(
        [
            "# The Report", "", *body[:3], "", "## 2 A part", "",
            r"Words in **bold type**, in *slanted type* and 2 \* 3 \*stars\*, a_b, \_c\_ [d\](e) \<f>",
            r"1990\. was a year; # no heading", "",
            "- first item", "  goes on here", "  - inner item", "  - **second** inner item", "- last item",
            "1. one", "2. two", "", "```", "for x in y:", '    print(x, "*")', "```", "", *body[3:],
        ]
    )  # fmt: skip
    assert sample.annotations.plain_text.split("\n")[-1] == body[-1]
    without_marks = sample.annotations.plain_text.replace("\u2022 ", "").replace("\u2013 ", "")
    without_marks = without_marks.replace("1. one", "one").replace("2. two", "two")
    assert plain(sample.answer) == " ".join(without_marks.split())


def grid(columns: list[float], rows: list[float]) -> list:
    return [(columns[0], y, columns[-1], y) for y in rows] + [(x, rows[0], x, rows[-1]) for x in columns]


CELLS = [["Name", "Age", "From"], ["Ada", "36", "London | UK"], ["Kurt", "71", "Brno"]]


@pytest.mark.parametrize("kind", ["grid", "lines", "merged"])
def test_tables_by_their_rules(tmp_path, kind):
    columns, rows = [100, 220, 300, 440], [200, 220, 240, 260]
    rules = grid(columns, rows)
    if kind == "lines":
        rules = [(100, y, 440, y) for y in (200, 220, 260)]
    if kind == "merged":
        rules = [rule for rule in rules if rule[0] != 220] + [(220, 200, 220, 240)]
    texts = lines(60, 100, [sentence(16, n) for n in range(4)])
    texts += [
        (columns[c] + 6, rows[r] + 14, 10, cell.replace("|", "/"))
        for r, row in enumerate(CELLS)
        for c, cell in enumerate(row)
    ]
    texts += lines(60, 300, [sentence(16, 9)])
    sample = only(pdf(drawing(texts, rules)), tmp_path, "markdown")
    wanted = [[cell.replace("|", "/") for cell in row] for row in CELLS]
    if kind == "merged":
        assert sample.metadata["tables_as_lines"] == 1 and "|" not in sample.answer
    else:
        table = [f"| {' | '.join(row)} |" for row in wanted]
        assert "\n".join(["", table[0], "| --- | --- | --- |", *table[1:], ""]) in sample.answer
        assert sample.metadata["tables"] == 1
    assert sample.annotations.plain_text.split("\n")[4:7] == [" ".join(row) for row in wanted]


def test_escaped_text_is_shown_as_it_is():
    chance = random.Random(4)
    for _ in range(3000):
        text = "".join(chance.choice("ab1 .)#*_`[](!<>&;~\\-+=|:") for _ in range(chance.randrange(1, 14))).strip()
        if text:
            assert plain(escape_start(escape(" ".join(text.split())))) == " ".join(text.split()), text


def test_what_is_dropped_is_named_by_reason_file_and_page(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    body = lines(60, 100, [sentence(16, n) for n in range(12)])
    lock = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >> /ID [<00><00>]" % (b"11" * 32, b"22" * 32)
    shifted = [
        (x, y, s, "".join(chr((ord(c) - 97 + 7) % 26 + 97) if c.isalpha() else c for c in t)) for x, y, s, t in body
    ]
    german = lines(60, 100, ["Der alte Mann geht nach dem Regen langsam durch den Wald und denkt an seine Kinder"] * 6)
    hidden = drawing(body, before="1 g")
    twice = [*body[:-1], (60, 300, 10, "one other line at the end")]
    files = {
        "a.pdf": pdf(drawing(body), drawing([(60, 100, 10, "Hi")]), drawing(body, before="3 Tr"), hidden),
        "b.PDF": pdf(
            drawing(twice), drawing(shifted), drawing(german), drawing([(60, 100, 10, "\x01\x04\x05\x06\x07" * 9)])
        ),
        "deep/cut.pdf": pdf(drawing(body))[:400],
        "empty.pdf": b"",
        "locked.pdf": make_pdf("secret", trailer=lock),
        "poster.pdf": pdf(drawing(lines(60, 100, ["to be read from near"] * 3), height=6000), size=(6000, 6000)),
        "turned.pdf": pdf(b"BT /F 10 Tf 0 1 -1 0 300 100 Tm (This text stands on its side here.) Tj ET"),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    Image.new("RGB", (300, 400), "white").save(folder / "scan.pdf")
    Image.new("RGB", (300, 400), "white").save(folder / "wrong.pdf", "PNG")
    (sample,) = make(folder, "--tasks", "ocr", "--language", "en", "--workers", "2")
    assert sample.metadata == {"file": "a.pdf", "page": 1, "pages": 4}
    counts, named = dropped(tmp_path)
    assert counts == {
        "damaged": 3, "encrypted": 1, "garbled text layer": 2, "letters too small": 1, "near-duplicate": 1,
        "no text layer": 1, "other language": 1, "text layer of a scan": 1, "text that is not seen": 1,
        "too little text": 1, "turned text": 1,
    }  # fmt: skip
    for place, reason in (
        ("a.pdf page 2", "too little text"), ("a.pdf page 3", "text layer of a scan"),
        ("a.pdf page 4", "not seen"), ("poster.pdf page 1", "1.7 pixels"),
        ("b.PDF page 1", "near-duplicate of a.pdf page 1"), ("b.PDF page 2", "no language"),
        ("b.PDF page 3", "language is de"),
        ("b.PDF page 4", "no meaning"), ("scan.pdf page 1", "no text layer"), ("turned.pdf page 1", "not upright"),
        ("locked.pdf", "password"), ("deep/cut.pdf", "broken"), ("empty.pdf", "0 bytes"), ("wrong.pdf", "picture"),
    ):  # fmt: skip
        assert any(place in line and reason in line for line in named.splitlines()), (place, named)
    kept = make(folder, "--tasks", "ocr", "--duplicates", "0", "--scans", "--characters", "2", "--letter-size", "1")
    places = [f"{sample.metadata['file']} {sample.metadata['page']}" for sample in kept]
    assert places == ["a.pdf 1", "a.pdf 2", "a.pdf 3", "b.PDF 1", "b.PDF 3", "poster.pdf 1"]


def test_wrong_options_are_named(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in", expected=2)
    assert "holds no .pdf files" in capsys.readouterr().err
    make(tmp_path / "none", expected=2)
    (tmp_path / "in/a.pdf").write_bytes(pdf(drawing([(60, 90, 10, "Hi")])))
    make(tmp_path / "in", "--language", "english", expected=2)
    assert "--language english: give some of" in capsys.readouterr().err
    make(tmp_path / "in", "--dpi", "-3", expected=2)
    make(tmp_path / "in", expected=2)
    assert "0 samples" in capsys.readouterr().out


@pytest.fixture
def library(tmp_path) -> Path:
    """Twelve files of four pages; every third page is nearly one before."""
    folder = tmp_path / "in"
    folder.mkdir()
    for file in range(12):
        pages = []
        for page in range(4):
            number = 4 * file + page
            seed = 100 * (number // 2 if number % 3 == 2 else number)
            pages.append(drawing(lines(60, 100, [sentence(15, seed + n) for n in range(20)])))
        (folder / f"{file:02}.pdf").write_bytes(pdf(*pages))
    return folder


def test_bytes_do_not_depend_on_workers(library, tmp_path):
    for name, more in (("one", ["--workers", "1"]), ("two", ["--workers", "2"]), ("shards", ["--shards", "9"])):
        assert main(["pdf", str(library), "--out", str(tmp_path / name), "--seed", "3", *more]) == 0
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    samples = list(read_samples(tmp_path / "one"))
    assert len(samples) == 2 * 40 and len({sample.prompt for sample in samples}) > 4
    for one, other in zip(samples, read_samples(tmp_path / "shards"), strict=True):
        assert (one.id, one.messages, one.annotations) == (other.id, other.messages, other.annotations)
        assert one.open_images()[0].tobytes() == other.open_images()[0].tobytes()
    assert main(["check", str(tmp_path / "shards")]) == 0
    parts = []
    for part in ("1/2", "2/2"):
        words = ["pdf", str(library), "--out", str(tmp_path / "part"), "--overwrite", "--slice", part, "--pages", "1-2"]
        assert main([*words, "--limit", "7"]) == 0
        parts.append([(sample.metadata["file"], sample.metadata["page"]) for sample in read_samples(tmp_path / "part")])
    assert [place for place, _ in parts[0]][::2] == ["00.pdf", "00.pdf", "02.pdf", "02.pdf"]
    assert {place for place, _ in parts[1]} <= {f"{n:02}.pdf" for n in range(1, 12, 2)} and len(parts[1]) == 7
    assert {page for _, page in parts[0] + parts[1]} == {1, 2}


@pytest.mark.parametrize("shards", [[], ["--shards", "6"]], ids=["folder", "shards"])
def test_a_killed_run_goes_on_and_still_knows_what_it_kept(library, tmp_path, shards):
    command = ["pdf", str(library), "--out", str(tmp_path / "out"), "--workers", "2", *shards]
    process = forked(main, command)
    journal = tmp_path / "out/progress.jsonl"
    while not journal.is_file() or journal.read_bytes().count(b"\n") < 4:
        time.sleep(0.005)
        assert process.is_alive()
    process.kill()
    process.join()
    assert not (tmp_path / "out/manifest.json").exists()
    assert main([*command, "--resume"]) == 0
    assert main([*command[:2], "--out", str(tmp_path / "whole"), *shards]) == 0
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
    assert dropped(tmp_path)[0]["near-duplicate"] == 8


def _work(item: int) -> int:
    if item % 10 == 3:
        os._exit(1)
    if item % 10 == 6:
        time.sleep(60)
    return item * 2


@pytest.mark.parametrize("workers", [1, 3])
def test_an_item_that_hangs_or_ends_its_process_loses_no_other(workers):
    guard = Guard(lambda item, reason: reason.split()[0], 0.4)
    with guarded(guard)(_work, range(30), workers, 4) as made:
        found = list(made)
    assert found == [{3: "ends", 6: "takes"}.get(n % 10, n * 2) for n in range(30)]


@pytest.mark.slow
def test_ray_makes_the_same_samples_when_a_worker_is_killed(library, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    command = ["pdf", str(library), "--size", "2600", "--format", "png"]
    assert main([*command, "--out", str(tmp_path / "here"), "--workers", "2"]) == 0
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        while not killed and not ended.is_set():
            time.sleep(0.02)
            busy = [process for process in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_worker(process)]
            if len(busy) > 1:
                time.sleep(0.5)
                with open(f"/proc/{busy[0]}/cmdline", "rb") as name:
                    if name.read().startswith(b"ray::Map"):
                        os.kill(busy[0], signal.SIGKILL)
                        killed.append(busy[0])

    watcher = threading.Thread(target=kill, daemon=True)
    watcher.start()
    try:
        assert main([*command, "--out", str(tmp_path / "ray"), "--workers", "2", "--ray", "local"]) == 0
    finally:
        ended.set()
        watcher.join()
    assert killed and everything(tmp_path / "ray") == everything(tmp_path / "here")


def _is_worker(process: int) -> bool:
    """Whether it is a busy Ray worker of this process's cluster."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as name:
            if not name.read().startswith(b"ray::Map"):
                return False
        while process > 1:
            with open(f"/proc/{process}/stat", encoding="latin-1") as status:
                process = int(status.read().rpartition(")")[2].split()[1])
            if process == os.getpid():
                return True
    except OSError:
        pass
    return False
