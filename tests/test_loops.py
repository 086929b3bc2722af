"""Decoders that are made to loop: what is kept, and how they go on."""

import functools

import pytest
import torch
from conftest import tiny_config, tiny_model
from PIL import Image
from test_shared_engine import asks

from varytoy.inference.batching import BatchingEngine, Row, RowDecoder
from varytoy.inference.engine import Request, TransformersEngine
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


@pytest.mark.parametrize("kind", [BatchingEngine, TransformersEngine])
def test_an_n_gram_comes_once_in_a_window(monkeypatch, engine, kind):
    settings = engine.model.generation_config
    follow(monkeypatch, engine, {each: "abcd"[place + 1 :] + "abcd"[: place + 1] for place, each in enumerate("abcd")})
    other = kind(engine.model, engine.processor)
    if kind is BatchingEngine:
        other.slots = engine.slots
    other.guard = False
    told = {}
    rules = {"whole": (3, 0, []), "window": (3, 5, []), "allowed": (3, 0, ["a"])}
    for name, rule in rules.items():
        names = ("no_repeat_ngram_size", "no_repeat_window", "no_repeat_allowed")
        for key, value in zip(names, rule, strict=True):
            monkeypatch.setattr(settings, key, value, raising=False)
        (found,) = other.generate(asks("hi", 1, 24))
        told[name] = found.text
        size, window, allowed = rule
        for at in range(size, len(found.text) + 1):
            gram, before = found.text[at - size : at], found.text[max(0, at - 1 - (window or at)) : at - 1]
            assert gram not in before or gram[-1] in allowed, (name, at, found.text)
    assert (
        told["whole"].startswith("abcdabda") and told["allowed"].startswith("abcdabd") and len(set(told.values())) == 3
    )


def test_an_answer_is_no_longer_than_its_picture_can_be(monkeypatch, engine):
    letters = "abcdefghijklmnopqrstuvwxyz"
    follow(monkeypatch, engine, dict(zip(letters, letters[1:] + "a", strict=True)))
    engine.guard, engine.processor.image_processor.clip_size = False, 32
    requests = [
        Request([{"role": "user", "content": "<image>Read."}], [Image.new("RGB", size)], "text", 900)
        for size in ((32, 16), (320, 32))
    ]
    small, large = engine.generate(requests)
    assert (small.tokens, small.stop_reason) == (64 + 32, "length") and large.tokens == 64 + 640


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
