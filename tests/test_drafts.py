"""Drafts: whatever they hold, the answer is the decoder's own; a good one saves passes."""

import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_config, tiny_model
from PIL import Image
from test_documents import make_pdf
from test_shared_engine import asks

from train.data.item import Item
from train.objectives import OBJECTIVES
from train.objectives.base import State
from varytoy.bench import pages
from varytoy.data.documents import DocumentError, open_pages
from varytoy.data.sample import Annotations, Sample
from varytoy.inference import batching, known_words
from varytoy.inference.batching import BatchingEngine, Row, RowDecoder
from varytoy.inference.drafts import Lookup, draft, go_on, read_letters
from varytoy.inference.many import Input, read_many
from varytoy.inference.reader import Reader
from varytoy.models.letters import LetterHead
from varytoy.processing.processor import VaryProcessor

PLACES = frozenset(range(90, 100))


def spoiled(ids: list[int], share: float, rng: random.Random) -> list[int]:
    """Tokens replaced, left out and put in."""
    draft = []
    for token in ids:
        kind = rng.choice(("replace", "drop", "add")) if rng.random() < share else ""
        draft += {"": [token], "replace": [rng.randrange(400)], "drop": [], "add": [token, rng.randrange(400)]}[kind]
    return draft


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_any_draft_gives_the_answer_of_the_decoder_alone(monkeypatch, share):
    engine = BatchingEngine(tiny_model(tiny_config()), VaryProcessor.preset("nano"), 3)
    engine.drafts = False
    requests = [request for number in range(5) for request in asks("word " * number, 1, 20 + 9 * number)]
    expected = engine.generate(requests)
    rng = random.Random(1)
    plain = RowDecoder.add
    written = {}

    def decode(request) -> list[int]:
        decoder, row = RowDecoder(engine), Row()
        plain(decoder, [row], [request])
        while not row.ended:
            decoder.step()
        return row.ids

    for request in requests:
        written[str(request.messages)] = decode(request)

    def add(self, rows, requests):
        plain(self, rows, requests)
        for row, request in zip(rows, requests, strict=True):
            row.draft = spoiled(written[str(request.messages)], share, rng)
            row.at = go_on(row.draft, 0, row.ids, self.places)

    monkeypatch.setattr(RowDecoder, "add", add)
    engine.passes = 0
    found = engine.generate(requests)
    assert [(each.text, each.tokens, each.stop_reason) for each in found] == [
        (each.text, each.tokens, each.stop_reason) for each in expected
    ]
    assert [each.confidence for each in found] == pytest.approx([each.confidence for each in expected], rel=1e-3)
    passes = engine.passes
    monkeypatch.setattr(RowDecoder, "add", plain)
    engine.passes = 0
    engine.generate(requests)
    assert passes < engine.passes / 3 if share == 0 else passes <= engine.passes + 3


def test_the_draft_goes_on_where_the_decoder_does():
    draft = [91, 1, 2, 3, 4, 92, 5, 6, 7, 8]
    cases = [
        ([91], 0, 1),  # agreed
        ([91, 9], 1, 2),  # another letter
        ([91, 2], 1, 3),  # the draft has one too many
        ([91, 1, 9, 2, 3, 4], 4, 5),  # it lacked one: found by what was written since
        ([91, 1, 92], 2, 6),  # the next place
        ([91, 1, 2, 3, 4, 94], 5, 6),  # a place near by
    ]
    for written, at, expected in cases:
        assert go_on(draft, at, written, PLACES) == expected, (written, at)
    assert go_on(draft, 10, [7, 8, 9], PLACES) >= 10  # beyond its end


def test_the_embedded_model_drafts_pages(monkeypatch):
    reader = Reader.from_pretrained("nano", "cpu")
    requests = pages.requests_of(reader, pages.page(4, seed=3))
    drafted = reader.engine.generate(requests)
    passes = reader.engine.passes
    assert reader.engine.agreed > 0.4 * reader.engine.drafted
    reader.engine.drafts, reader.engine.passes = False, 0
    assert [answer.text for answer in reader.engine.generate(requests)] == [answer.text for answer in drafted]
    assert passes < 0.5 * reader.engine.passes and batching.DRAFTED > 1


def test_what_was_written_before_is_looked_up():
    prompt = [50, 1, 2, 3, 4, 5, 6]
    lookup = Lookup(prompt)
    assert lookup.follow([9, 1]) == []
    assert lookup.follow([9, 1, 2, 3]) == [4, 5, 6, 9, 1, 2, 3]
    assert lookup.follow([9, 1, 7]) == []  # it was taken back, and went on in another way
    assert lookup.follow([9, 1, 7, 8, 9, 1, 7]) == [8, 9, 1, 7]
    engine = BatchingEngine(tiny_model(tiny_config()), VaryProcessor.preset("nano"), 3)
    requests = asks("one two one two one two ", 5, 60)
    found, passes = [answer.text for answer in engine.generate(requests)], engine.passes
    assert engine.agreed > 0
    engine.drafts, engine.passes = False, 0
    assert [answer.text for answer in engine.generate(requests)] == found and passes < engine.passes


LINES = "The quick brown) Tj 0 -30 Td (foxes jump over) Tj 0 -30 Td (seven lazy dogs"


@pytest.mark.parametrize("turn", [0, 90])
def test_words_of_a_pdf_stand_where_they_are_printed(turn):
    page = next(iter(open_pages(make_pdf(LINES, page=b"/Rotate %d" % turn))))
    words = page.words()
    assert sorted(word.text for word in words) == sorted("The quick brown foxes jump over seven lazy dogs".split())
    assert turn or [(word.text, word.line) for word in words[::4]] == [("The", 0), ("jump", 1), ("dogs", 2)]
    dark = np.asarray(page.image.convert("L")) < 128
    for word in words:
        x1, y1, x2, y2 = (round(side) for side in word.box)
        dark[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = False
        assert x1 <= word.first <= x2
    assert not dark.any()


@pytest.mark.parametrize("drafts", ["pdf", "tesseract"])
def test_a_page_is_drafted_from_words_that_are_known(drafts):
    if drafts == "tesseract" and not shutil.which("tesseract"):
        pytest.skip("Tesseract is not installed")
    reader = Reader.from_pretrained("nano", "cpu")
    reader.engine.drafts = False
    data = make_pdf(LINES)
    plain, passes = reader.ocr(data), reader.engine.passes
    reader.engine.drafts, reader.engine.passes = True, 0
    (page,) = read_many(reader, [Input("a.pdf", data)], "ocr", together=1, drafts=drafts)
    assert plain.text.startswith("The quick") and page.answer.text == plain.text
    assert reader.engine.passes < passes / 3
    assert known_words.lines_in(next(iter(open_pages(data))).words(), (0, 0, 1, 1), lambda x, y: (x, y)) == []


def test_drafts_that_cannot_be_had_are_an_error(monkeypatch):
    reader = Reader.from_pretrained("nano", "cpu")
    with pytest.raises(ValueError, match="no drafts 'scan'; there are model, pdf, tesseract"):
        reader.ocr(make_pdf(LINES), drafts="scan")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DocumentError, match="install the package tesseract-ocr"):
        reader.ocr(make_pdf(LINES), drafts="tesseract")


def test_the_head_learns_what_it_drafts():
    """Two lines of letters with their places, over features that tell each cell from the others."""
    letters, step = "ab cd\nefg", 24
    processor = VaryProcessor.preset("nano")
    points = [
        (20 + step * x, 8 + 24 * y)
        for y, line in enumerate(letters.split("\n"))
        for x, c in enumerate(line)
        if c != " "
    ]
    annotations = Annotations("abcdefg", [side for point in points for side in point])
    turns = [{"role": "user", "content": "<image>\nRead."}, {"role": "assistant", "content": letters}]
    sample = Sample(turns, ["a.png"], task="ocr", annotations=annotations)
    image = Image.new("RGB", (160, 48), "white")
    plan = processor.image_processor.plan(image.size, "text")
    torch.manual_seed(0)
    model = SimpleNamespace(letters=LetterHead(64, "abcdefgh"), config=SimpleNamespace(letters="abcdefgh"))
    objective = OBJECTIVES["drafts"](OBJECTIVES["drafts"].Settings(weight=1.0))
    objective.setup(model, ())
    item = Item(sample, [image], [plan], turns)
    targets = objective.targets([item], {"pixel_values": torch.zeros(1, 3, plan.scaled[1], plan.scaled[0])}, processor)
    assert int((targets["drafts.symbols"] > 0).sum()) == 7 and int((targets["drafts.begins"] == 1).sum()) == 3
    features = torch.randn(1, plan.grid.rows, plan.grid.columns, 64)
    state = State(torch.empty(0), {"vocabulary": features}, targets=targets)
    optimizer = torch.optim.Adam(model.letters.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        objective.losses(model, None, state)["drafts"].backward()
        optimizer.step()
    with torch.no_grad():
        lines = read_letters(model.letters, features[0])
        written = processor.decode_text(draft(processor, model.letters, features[0]))
    assert ["".join(each[0] for each in line) for line in lines] == ["abcd", "efg"] and written == letters
    scale = plan.scaled[0] / plan.size[0]
    across = processor.image_processor.stride[1]
    found = [x * across / scale for line in lines for _, _, x, _ in line]
    assert all(abs(x - point[0]) <= 4 for x, point in zip(found, points, strict=True))
