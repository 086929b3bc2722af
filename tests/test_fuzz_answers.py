"""Whatever a model writes: no parser raises or takes long, boxes stay in the picture, written files are well formed."""

import functools
import io
import json
import math
import random
import time
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pypdfium2
import pytest
from conftest import FakeEngine, noise
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import FUZZ
from PIL import Image, ImageDraw, ImageFont

from varytoy.data.answer import Answer, Region, Word
from varytoy.data.boxes import check_label, format_boxes, parse_boxes, rewrite, written_boxes
from varytoy.data.documents import open_pages
from varytoy.data.sample import Sample
from varytoy.inference.reader import Reader
from varytoy.outputs import FORMATS
from varytoy.outputs.records import Record, lines_of, record_of
from varytoy.processing.processor import VaryProcessor
from varytoy.serving.chat import content
from varytoy.tasks import TASKS, find_prompt

SECONDS = 10
LONG = 20_000

# ---- strategies -----------------------------------------------------------------------------------------------------

PIECES = (
    *"*_[]()`<>&#|\\-+!~$=\"':;,.{}\0\t\n\r\f\v\x1b\x7f\x85\u2028\ufffe\ufffd\ud800\U0001f600a1 ",
    *(
        "**",
        "![",
        "](",
        "[a](",
        "> ",
        "- ",
        "1. ",
        "a|b\n-|-\n",
        "```",
        "<!--",
        "-->",
        "]]>",
        "<![CDATA[",
        "<?xml",
        "&#12;",
    ),
    *(
        "&#x1;",
        "&lt;",
        "&bogus;",
        "[a]: <",
        "http://a",
        "<a href='",
        "</pre>",
        "\n\n",
        "$$",
        "\\frac{",
        "<table>",
        "<td>",
    ),
    *(
        "<ref>",
        "</ref>",
        "<box>",
        "</box>",
        "<|ref|>",
        "<|/ref|>",
        "<|det|>",
        "cat: ",
        "; ",
        ", ",
        "\u0663",
        "\u00b2",
        "- cat",
    ),
    *(
        "[1, 2, 3, 4]",
        "[001, 002, 003, 004]",
        "[999, 999, 1000, 1000]",
        "[9999, 0, 0, 0]",
        "(5,6),(7,8)",
        "(1,2)",
        "[1,",
    ),
)
WORDS = st.text(st.characters(exclude_categories=()), max_size=40)
WRITTEN = (
    "cat: [010, 020, 300, 400]; bow: [000, 000, 1000, 1000], [5, 6, 7, 8];",
    "# A\n\n- *b*\n- `c`\n\n|a|b|\n|-|-|\n|1|2|",
)


def changed(text: str, seed: int) -> str:
    rng, letters = random.Random(seed), list(text)
    for _ in range(rng.randrange(6)):
        place = rng.randrange(len(letters))
        letters[place : place + rng.randrange(3)] = rng.choice(PIECES)
    return "".join(letters)


TEXTS = WORDS | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)
TEXTS |= st.builds(changed, st.sampled_from(WRITTEN), st.integers(0, 2**32))


def timed(what: Callable, *given) -> object:
    begun = time.process_time()
    found = what(*given)
    assert time.process_time() - begun < SECONDS, f"{what} of {given!r:.80}"
    return found


# ---- parsers --------------------------------------------------------------------------------------------------------


def parse(text: str) -> None:
    for scale in (999, 1000):
        boxes = parse_boxes(text, scale)
        assert all(0 <= x1 <= x2 <= 1000 and 0 <= y1 <= y2 <= 1000 for x1, y1, x2, y2 in (box.xyxy for box in boxes))
    assert all(0 <= box.start < len(text) for box in written_boxes(text))
    assert isinstance(rewrite(text, lambda sides: [min(side, 1000) for side in sides]), str)
    for task in TASKS.values():
        answer = task.parse(text, (64, 48), "words")
        assert all(0 <= x1 <= x2 <= 64 and 0 <= y1 <= y2 <= 48 for _, (x1, y1, x2, y2) in answer.boxes)
        content(answer, ["a", ""])
    found = find_prompt(text)
    assert found is None or found[0].name in TASKS


@settings(max_examples=300, **FUZZ)
@given(text=TEXTS)
def test_any_answer_is_parsed_and_its_boxes_are_in_the_picture(text):
    timed(parse, text)
    for box in parse_boxes(text):
        try:
            check_label(box.label)
        except ValueError:
            continue
        assert parse_boxes(format_boxes([box])) == [box]


@settings(max_examples=60, **FUZZ)
@given(text=TEXTS, argument=WORDS)
@example("[1, 2, 3, 4]", "\ud800\n\0")
def test_any_answer_can_be_drawn(text, argument):
    for name in ("detect", "ground"):
        answer = TASKS[name].parse(text, (64, 48), argument)
        assert TASKS[name].draw(Image.new("RGB", (64, 48)), answer).size == (64, 48)


def score(text: str) -> None:
    told = {"role": "assistant", "content": WRITTEN[1]}
    samples = [Sample([{"role": "user", "content": "a"}, told])]
    samples[0].annotations.object_names = ["cat", "a.b"]
    for task in TASKS.values():
        assert math.isfinite(task.score([text], samples))


@settings(max_examples=60, **FUZZ)
@given(text=TEXTS)
@example("*" * 3000 + "a" + "*" * 3000)
@example("> " * 1000)
def test_any_answer_has_a_score(text):
    timed(score, text)


# ---- written files --------------------------------------------------------------------------------------------------

VOID = {"br", "hr", "img", "meta"}


class Nesting(HTMLParser):
    """Checks that what is opened is closed, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open and not self.rawdata

    def handle_starttag(self, tag: str, attributes: list) -> None:
        assert tag not in ("script", "iframe", "object"), tag
        assert all(
            not name.startswith("on") and not (value or "").startswith("javascript:") for name, value in attributes
        )
        self.open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


@functools.cache
def paper() -> Image.Image:
    image = Image.new("RGB", (300, 90), "white")
    for number, text in enumerate(("Reading is quick", "and writing is not")):
        ImageDraw.Draw(image).text((20, 15 + 35 * number), text, "black", font=ImageFont.load_default(size=24))
    return image


def answer_of(text: str) -> Answer:
    """As of an engine that tells where some of the words are."""
    lines = enumerate(text.split("\n"))
    words = [
        Word(word, number, 0.5, None if len(word) % 2 else 7.0 * len(word))
        for number, line in lines
        for word in line.split()
    ]
    return Answer(text, words=words, confidence=0.5, tokens=1)


@functools.cache
def processor() -> VaryProcessor:
    return VaryProcessor.preset("nano")


def read(text: str, task: str, image: Image.Image) -> Record:
    reader = Reader(FakeEngine(processor(), lambda request: answer_of(text)), "fake")
    answer = reader.ask(image, task, "a word" if TASKS[task].takes else "")
    return record_of("fake", "a & b.png", next(open_pages(image)), task, answer)


def inside(record: Record) -> None:
    """All boxes stand in the picture."""
    width, height = record["width"], record["height"]
    boxes = [each["box"] for each in record["boxes"]]
    for block in record["blocks"]:
        rows = list(lines_of(block))
        boxes += [block["box"], *(row["box"] for row in rows), *(word["box"] for row in rows for word in row["words"])]
    assert all(0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height for x1, y1, x2, y2 in boxes)


def write(record: Record, kinds: tuple[str, ...]) -> None:
    files = {kind: FORMATS[kind].write([record, {**record, "page": 2}], paper(), None) for kind in kinds}
    for kind in {"hocr", "alto"} & set(kinds):
        ElementTree.fromstring(files[kind])
    Nesting(files["html"].decode("utf-8"))
    rows = files["jsonl"].decode("utf-8").removesuffix("\n").split("\n")
    assert [json.loads(row)["page"] for row in rows] == [1, 2]
    assert files["text"].decode("utf-8").count("\f") >= 1


MARKUP = ("text", "markdown", "jsonl", "html", "hocr", "alto")
PLACES = ("ocr", "markdown", "detect", "ground", "caption", "vqa")


@settings(max_examples=100, **FUZZ)
@given(text=TEXTS, task=st.sampled_from(PLACES), turned=st.sampled_from((0, 90, 180)))
@example("&#12;", "markdown", 0)
@example("*" * 3000 + "a" + "*" * 3000, "markdown", 0)
@example("[a](javascript:alert(1)) <script>alert(1)</script> <!-- ]]> -->", "markdown", 0)
@example("\ud800 \0 \ufffe", "ocr", 0)
def test_what_is_written_of_any_answer_is_well_formed(text, task, turned):
    record = read(text, task, paper().rotate(turned, expand=True))
    inside(record)
    timed(write, record, MARKUP)


@settings(max_examples=25, **FUZZ)
@given(text=TEXTS, turned=st.sampled_from((0, 90)))
@example("\ud800 \0 \ufffe \U0001f600", 0)
def test_a_searchable_pdf_of_any_answer_opens(text, turned):
    image = paper().rotate(turned, expand=True)
    data = FORMATS["pdf"].write([read(text, "ocr", image)], image, None)
    with pypdfium2.PdfDocument(io.BytesIO(data)) as document:
        assert len(document) == 1
    assert next(open_pages(data)).image.size[0] > 0


@pytest.mark.parametrize("text", [WRITTEN[0], "a\nb"])
def test_a_picture_without_text_has_answers_too(text):
    for task in PLACES:
        for image in (noise(3, 3), Image.new("RGB", (200, 2)), noise(64, 64)):
            inside(read(text, task, image))


# ---- time -----------------------------------------------------------------------------------------------------------


def write_long(text: str) -> None:
    region = Region((0, 0, 300, 90), text=text, score=0.5)
    record = record_of("fake", "a.png", next(open_pages(paper())), "ocr", Answer(text, [region], size=(300, 90)))
    write(record, MARKUP)
    write({**record, "markdown": text}, ("text", "jsonl", "html"))


@settings(max_examples=6, **FUZZ)
@given(
    before=st.sampled_from(("", "[", "(1", "<ref>", "a: ")),
    piece=st.sampled_from(PIECES),
    after=st.sampled_from(PIECES),
)
@example("", "![", "")
@example("[1", " ", "x")
@example("<ref>", "<", "")
@example("", "a|b\n-|-\n", "")
@example("", "*a ", "")
@example("", "[a](", "")
def test_a_model_that_repeats_itself_takes_no_longer(before, piece, after):
    text = before + piece * (LONG // len(piece)) + after
    timed(parse, text)
    timed(write_long, text)
