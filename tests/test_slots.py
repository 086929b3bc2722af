"""Decoding in slots of a cache of fixed size, and the step with merged projections: the answers stay the same."""

import pytest
import torch
from conftest import tiny_config, tiny_model
from test_shared_engine import asks

from varytoy.inference.batching import BatchingEngine
from varytoy.inference.decoder_step import Qwen2Step, decoder_step, merge_projections
from varytoy.processing.processor import VaryProcessor


def told(answers: list) -> list[tuple]:
    return [(each.text, each.tokens, each.stop_reason) for each in answers]


def engine_of(**text) -> BatchingEngine:
    config = tiny_config()
    config.text_config.update(text)
    return BatchingEngine(tiny_model(config), VaryProcessor.preset("nano"), 3)


@pytest.mark.parametrize("keys", [1, 2], ids=["grouped", "full"])
def test_answers_in_slots_are_the_same(keys):
    """Rows leave and join, and the longest needs a larger cache than the first."""
    engine = engine_of(num_key_value_heads=keys)
    requests = [request for number in (3, 90, 1, 140, 7, 2, 30) for request in asks("word " * number, 1, 20 + number)]
    expected = engine.generate(requests)
    assert len({each.tokens for each in expected}) > 3
    engine.slots = True
    assert told(engine.generate(requests)) == told(expected)
    merge_projections(engine.model)
    assert isinstance(decoder_step(engine.model), Qwen2Step)
    for slots in (True, False):
        engine.slots, engine._idle = slots, []
        found = engine.generate(requests)
        assert told(found) == told(expected)
        assert [each.confidence for each in found] == pytest.approx([each.confidence for each in expected], rel=1e-3)


def test_a_batch_is_used_again():
    engine = engine_of()
    engine.slots = True
    first = engine.generate(asks("hi", 2, 8))
    (batch,) = engine._idle
    assert told(engine.generate(asks("hi", 2, 8))) == told(first) and engine._idle == [batch]


def test_merged_projections_are_saved_as_before(tmp_path):
    model = engine_of().model
    before = {name: each.clone() for name, each in model.state_dict().items()}
    merge_projections(model)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(each, before[name]) for name, each in loaded.items())


def test_a_decoder_that_is_watched_keeps_its_own_step():
    model = engine_of().model
    merge_projections(model)
    model.language_model.model.layers[0].mlp.up_proj.register_forward_hook(lambda *args: None)
    assert not isinstance(decoder_step(model), Qwen2Step)
