"""Drafts: whatever they hold, the answer is the decoder's own; a good one saves passes."""

import random
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_config, tiny_model
from PIL import Image
from test_shared_engine import asks

from train.data.item import Item
from train.objectives import OBJECTIVES
from train.objectives.base import State
from varytoy.bench import pages
from varytoy.data.sample import Annotations, Sample
from varytoy.inference import batching
from varytoy.inference.batching import BatchingEngine, Row, RowDecoder
from varytoy.inference.drafts import draft, go_on, read_letters
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
