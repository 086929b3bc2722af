"""Decoders that are made to loop: what is kept, and how they go on."""

import functools

import pytest
import torch
from conftest import tiny_config, tiny_model
from test_shared_engine import asks

from varytoy.inference.batching import BatchingEngine, Row, RowDecoder
from varytoy.inference.engine import Request
from varytoy.processing.processor import VaryProcessor


@pytest.fixture(params=[False, True], ids=["growing", "slots"])
def engine(request) -> BatchingEngine:
    engine = BatchingEngine(tiny_model(tiny_config()), VaryProcessor.preset("nano"), 4)
    engine.slots = request.param
    return engine


def follow(monkeypatch, engine: BatchingEngine, rules: dict[str, str]) -> None:
    """Make it write, after each character, the likeliest of those that ``rules`` lists for it; "." ends the answer."""
    tokenizer, vocabulary = engine.processor.tokenizer, engine.processor.tokenizer.get_vocab()
    table = torch.full((len(vocabulary) + 512, engine.model.config.text_config.vocab_size), -100.0)
    table[:, vocabulary["a"]] = 0.0  # what begins an answer
    for character, others in rules.items():
        table[vocabulary[character]] = -100.0
        for rank, other in enumerate(others):
            token = tokenizer.eos_token_id if other == "." else vocabulary[other]
            table[vocabulary[character], token] = -float(rank)
    plain = type(engine.model).forward

    @functools.wraps(plain)
    def forward(self, input_ids=None, **options):
        output = plain(self, input_ids, **options)
        output.logits = table[input_ids[:, -output.logits.shape[1] :]]
        return output

    monkeypatch.setattr(type(engine.model), "forward", forward)


def answer(engine: BatchingEngine, count: int = 1) -> list:
    return engine.generate(asks("hi", count, 400))


def test_it_goes_on_after_a_loop_in_another_way(monkeypatch, engine):
    follow(monkeypatch, engine, {"a": "b", "b": "c", "c": "d", "d": "be", "e": "."})
    (found,) = answer(engine)
    assert (found.text, found.stop_reason, found.loops) == ("abcde", "end", 1)
    assert found.confidence > 0 and [word.text for word in found.words] == ["abcde"]


def test_one_that_only_loops_is_stopped(monkeypatch, engine):
    follow(monkeypatch, engine, {"a": "a", "b": "a"})
    (found,) = answer(engine)
    assert found.stop_reason == "loop" and found.loops == 2 and found.text.startswith("a") and len(found.text) < 9


def test_a_loop_leaves_its_neighbours_alone(monkeypatch, engine):
    """Rows of one batch, whose prompts differ in length; each loops once and ends in the same way."""
    follow(monkeypatch, engine, {"a": "b", "b": "c", "c": "d", "d": "be", "e": "."})
    requests = [Request([{"role": "user", "content": "x" * number}], (), "text", 400) for number in range(1, 9)]
    found = engine.generate(requests)
    assert {(each.text, each.loops) for each in found} == {("abcde", 1)}


def test_what_was_taken_back_is_forgotten(engine):
    """The tokens after a loop are those of a model that never saw it."""
    (request,) = asks("hi there", 1, 40)
    with torch.inference_mode():
        row, decoder = Row(), RowDecoder(engine)
        decoder.add([row], [request])
        while len(row.ids) < 20:
            decoder.step()
        expected = list(row.ids)
        row.ids, row.best = row.ids[:10], row.best[:10]
        decoder.batch.take_back(0, row.prompt_tokens + 9)
        row.ended = False
        while len(row.ids) < 20:
            decoder.step()
    assert row.ids == expected
