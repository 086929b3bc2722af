"""Questions about a page, answered from its text by a checkpoint's part for them."""

import copy
from dataclasses import replace

import pytest
from conftest import FakeEngine, photograph
from test_reader import page

from train.data.dataset import in_pieces
from varytoy.data.answer import Answer
from varytoy.data.sample import Annotations, Sample
from varytoy.data.spots import UNANSWERABLE, pieces_of, stands_in
from varytoy.inference.parts import Parts
from varytoy.inference.reader import Reader
from varytoy.inference.routing import task_of


@pytest.fixture
def asked(processor):
    """A function: texts of the first of a page's ten lines, what is answered for a piece of text -> Reader, engines for
    text, for questions and for pictures."""

    def build(lines, answer):
        texts = iter([*lines, *(f"more {number}" for number in range(len(lines), 10))])
        text = FakeEngine(processor, lambda request: Answer(next(texts), confidence=0.9, tokens=3))
        questions = FakeEngine(copy.deepcopy(processor), lambda request: answer(request.messages[-1]["content"]))
        pictures = FakeEngine(copy.deepcopy(processor), lambda request: Answer("a bird", confidence=0.5))
        parts = Parts({"question": lambda: questions, "picture": lambda: pictures})
        return Reader(text, parts=parts), text, questions, pictures

    return build


def test_a_question_about_a_page_is_answered_from_its_text(asked):
    reader, text, questions, pictures = asked(
        ["Shop", "Bread 2.50", "Total 4.10"], lambda said: Answer("4.10", confidence=0.8, tokens=2)
    )
    answer = reader.vqa(page(10), "What is the total?")
    assert (
        answer.text == "4.10"
        and answer.context.startswith("Shop\nBread 2.50\nTotal 4.10\nmore 3")
        and answer.confidence == 0.8
    )
    request = questions.requests[0]
    assert request.messages[-1]["content"].startswith(f"{answer.context}\n\nWhat is the total?")
    assert not request.images and not pictures.requests and answer.tokens == 2 + 10 * 3
    [region] = answer.regions  # where it stands: the third line
    assert region.label == "4.10" and region.box[1] > 50
    read = len(text.requests)
    assert reader.ask(page(10), "chat", "Which shop?").text == "4.10" and len(text.requests) == read  # it is kept
    assert reader.shared().vqa(page(10), "Which shop?").text == "4.10" and len(text.requests) == read


def test_photographs_and_checkpoints_without_the_part_are_looked_at(asked, processor):
    reader, _, questions, pictures = asked([], lambda said: Answer("4.10"))
    reader.calibration = {"vqa": (1.0, 2.0)}
    assert reader.vqa(photograph(), "What is it?").text == "a bird" and not questions.requests and pictures.requests
    whole = FakeEngine(processor, lambda request: Answer("a page"))
    assert Reader(whole).vqa(page(10), "What is it?").text == "a page"


def test_a_long_text_is_asked_piece_by_piece(asked):
    """An answer that stands in its piece is taken before a more confident one that does not."""
    lines = [" ".join(f"word{number}{place}" for place in range(20)) for number in range(9)] + ["key 71"]

    def answer(said):
        return Answer("71", confidence=0.4) if "key 71" in said else Answer("99", confidence=0.9)

    reader, _, questions, _ = asked(lines, answer)
    found = reader.vqa(page(10), "What is the key?")
    assert found.text == "71" and "key 71" in found.context and len(questions.requests) > 2
    assert all(len(request.messages[-1]["content"]) < 800 for request in questions.requests)


def test_an_answer_that_does_not_stand_in_the_text_has_no_place(asked):
    reader, *_ = asked(["one", "two", "three"], lambda said: Answer("1", confidence=0.9))
    assert reader.vqa(page(10), "How many?").regions == []


def test_a_question_mark_asks_about_text(asked):
    reader, *_ = asked([], lambda said: Answer("4.10"))
    assert task_of(reader, "What is the total?", page(10)) == ("vqa", "What is the total?")
    assert task_of(reader, "the total", page(10))[0] == "ocr"


def test_texts_are_cut_into_pieces_of_whole_rows():
    text = "\n".join(f"row {number}" for number in range(6))  # of 5 characters each
    assert pieces_of(text, 17) == ["row 0\nrow 1\nrow 2", "row 3\nrow 4\nrow 5"]
    assert pieces_of(text, 17, shared=1) == ["row 0\nrow 1\nrow 2", "row 2\nrow 3\nrow 4", "row 4\nrow 5"]
    assert pieces_of("long row", 3) == ["long row"] and pieces_of("", 9) == []
    assert stands_in("row 1", text) and stands_in("ROW 1 row", text) and not stands_in("ow 1", text)
    assert stands_in("4.10 5.00", "Total | 4.10 | 5.00") and not stands_in("", text)


def test_training_texts_are_pieces_too():
    """All questions about a page get one piece; what stands elsewhere is unanswerable, what stands nowhere left out."""
    text = "\n".join(f"key{number} | value{number}" for number in range(12))
    answers = [f"value{number}" for number in range(12)] + ["12", UNANSWERABLE]
    samples = [
        Sample([{"role": "user", "content": "<image>\nWhat?"}, {"role": "assistant", "content": answer}], ["x.png"],
               annotations=Annotations(plain_text=text))
        for answer in answers
    ]  # fmt: skip
    found = in_pieces(samples, 60, 3)
    [piece] = {sample.annotations.text for sample in found}
    assert len(found) == 13 and piece in text and len(piece) <= 60
    assert [sample.answer for sample in found[:12]] == [
        answer if answer in piece.split() else UNANSWERABLE for answer in answers[:12]
    ]
    assert 2 <= sum(sample.answer != UNANSWERABLE for sample in found) <= 6 and found[12].answer == UNANSWERABLE
    short = [replace(samples[12], annotations=Annotations(plain_text="a | b"))]
    assert in_pieces(short, 60, 3) == short


def test_that_there_is_none_is_the_last_choice(asked):
    lines = [" ".join(f"word{number}{place}" for place in range(20)) for number in range(9)] + ["key 71"]
    reader, *_ = asked(
        lines, lambda said: Answer("70", confidence=0.2) if "key 71" in said else Answer(UNANSWERABLE, confidence=0.9)
    )
    assert reader.vqa(page(10), "What is the key?").text == "70"
