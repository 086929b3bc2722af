"""Several callers at once: they share batches, and what happens to one does not happen to another."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import tiny_config, tiny_model

from varytoy.inference.batching import BatchingEngine
from varytoy.inference.engine import Request
from varytoy.inference.shared import SharedEngine
from varytoy.processing.processor import VaryProcessor


@pytest.fixture(scope="module")
def plain() -> BatchingEngine:
    config = tiny_config()
    return BatchingEngine(tiny_model(config), VaryProcessor.preset("nano"), 3)


@pytest.fixture
def shared(plain):
    engine = SharedEngine(plain)
    yield engine
    engine.close()


def asks(words: str, count: int = 1, most: int = 12) -> list[Request]:
    return [Request([{"role": "user", "content": f"{words} {number}"}], (), "text", most) for number in range(count)]


def test_callers_get_what_they_would_get_alone(plain, shared):
    calls = [asks("word " * number, 1 + number % 3, 5 + number) for number in range(7)]
    expected = [[answer.text for answer in plain.generate(call)] for call in calls]
    with ThreadPoolExecutor(7) as pool:
        found = list(pool.map(lambda call: [answer.text for answer in shared.generate(call)], calls))
    assert found == expected


def test_a_short_question_does_not_wait_for_a_long_page(shared):
    order = []

    def call(name: str, count: int) -> None:
        shared.generate(asks(name, count, 20))
        order.append(name)

    started = threading.Event()
    long = threading.Thread(target=call, args=("long", 12))
    shown = threading.Thread(target=lambda: shared.generate(asks("first", 1, 2), lambda texts: started.set()))
    shown.start()
    started.wait(10)
    long.start()
    call("short", 1)
    long.join()
    assert order == ["short", "long"]


def test_one_that_leaves_or_fails_hurts_nobody(shared, monkeypatch):
    cancel = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        kept = pool.submit(shared.generate, asks("kept", 2))
        left = pool.submit(shared.generate, asks("left", 2, 500), lambda texts: cancel.set(), cancel)
        wrong = pool.submit(shared.generate, asks("much " * 2000))
        assert {answer.stop_reason for answer in left.result(30)} == {"cancelled"}
        assert all(answer.tokens for answer in kept.result(30))
        with pytest.raises(ValueError, match="context"):
            wrong.result(30)
    step = shared.engine.model.forward

    def fail(*arguments, **options):
        monkeypatch.setattr(shared.engine.model, "forward", step)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(shared.engine.model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        shared.generate(asks("lost"))
    assert shared.generate(asks("after"))[0].tokens


def test_a_closed_engine_says_so(plain):
    engine = SharedEngine(plain)
    assert engine.generate(asks("hi"))[0].tokens and engine.context == plain.context
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.generate(asks("hi"))


def test_callers_do_not_wake_each_other_without_end(shared, monkeypatch):
    """They once did, and took three times the model's own time."""
    plain, woken = shared._change.notify_all, []
    monkeypatch.setattr(shared._change, "notify_all", lambda: (woken.append(1), plain()))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: shared.generate(asks("word", 2, 10 + number)), range(6)))
    assert sum(map(len, answers)) == 12 and len(woken) < 5 * 12
