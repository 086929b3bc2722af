"""Generation, Reader and the command line, with a tiny model of random weights."""

import copy
import functools
import itertools
import json
import math
import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FakeEngine, photograph
from PIL import Image, ImageDraw, ImageFont, ImageOps
from safetensors.torch import load_file, save_file
from test_documents import make_pdf

from varytoy import cli, layout
from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer, Region
from varytoy.data.documents import DocumentError
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.engine import Request, TransformersEngine
from varytoy.inference.generate import LoopGuard, generate
from varytoy.inference.join import join_pages
from varytoy.inference.loops import repeated_tail
from varytoy.inference.parts import Parts
from varytoy.inference.reader import Reader
from varytoy.layout import PageLayout
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS, Task


@pytest.fixture
def reader(model, processor) -> Reader:
    return Reader(BatchingEngine(model, processor), "tiny")


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def two_columns() -> Image.Image:
    image = Image.new("RGB", (1000, 700), "white")
    font = ImageFont.load_default(size=20)
    for column in range(2):
        for line in range(20):
            words = f"column {column} line {line} of words"
            ImageDraw.Draw(image).text((40 + column * 500, 40 + line * 30), words, "black", font)
    return image


def page(lines: int = 3, size: int = 16) -> Image.Image:
    image = Image.new("RGB", (360, 30 + lines * (size + 10)), "white")
    font = ImageFont.load_default(size=size)
    for number in range(lines):
        ImageDraw.Draw(image).text((12, 12 + number * (size + 10)), f"line {number} of a page", "black", font)
    return image


def test_a_repetition_is_found_and_leaders_are_not():
    assert repeated_tail([6, 7, 8, 9] * 20) == 4
    assert repeated_tail(list(range(50)) + [5] * 210) == 1
    assert repeated_tail(list(range(50)) + [5, 6, 7, 8] * 10) == 0
    assert repeated_tail(list(range(50)) + [5] * 120) == 0  # the leader of a table of contents
    assert repeated_tail(list(range(50)) + [5, 6] * 60) == 0
    assert repeated_tail(list(range(200))) == 0


def with_scores(monkeypatch, model, change) -> None:
    """``change`` alters the scores that the model gives, in place."""
    plain = type(model).forward

    @functools.wraps(plain)
    def forward(self, *arguments, **options):
        output = plain(self, *arguments, **options)
        change(output.logits)
        return output

    monkeypatch.setattr(type(model), "forward", forward)


def test_a_loop_is_stopped_cut_and_said(model, processor, monkeypatch):
    """A model that only ever writes one letter."""
    letter = processor.tokenizer.convert_tokens_to_ids("a")
    with_scores(monkeypatch, model, lambda scores: scores[..., letter].fill_(1e4))
    found = generate(model, processor, processor("hi"), max_new_tokens=500)[0]
    assert (found.stop_reason, found.text) == ("loop", "a")


def test_each_row_of_a_batch_loops_by_itself():
    guard = LoopGuard(start=0, end=99, every=1)
    ended = [5, 99] + [0] * 78  # padding while the others go on
    rows = torch.tensor([[1, 2, 3, 4] * 20, list(range(80)), ended])
    assert guard(rows, None).tolist() == [True, False, False]


def test_length_confidence_stream_and_cancel(model, processor):
    shown = []
    found = generate(model, processor, processor("hi"), max_new_tokens=5, show=shown.append)[0]
    assert found.stop_reason in ("length", "end") and 0 < found.confidence <= 1
    assert found.stop_reason == "end" or found.tokens == 5
    assert shown and shown[-1] == [found.text]
    event = threading.Event()
    event.set()
    assert generate(model, processor, processor("hi"), max_new_tokens=50, cancel=event)[0].tokens == 1


def test_beams_find_likelier_captions(model, processor, monkeypatch):
    monkeypatch.setattr(model.generation_config, "num_beams", 4)
    engine = TransformersEngine(model, processor)
    talk = [[{"role": "user", "content": text}] for text in ("hi", "and a longer one")]
    found = [engine.generate([Request.of(TASKS[task], each, [], 6) for each in talk]) for task in ("vqa", "caption")]
    sums = [[math.log(answer.confidence) * answer.tokens for answer in answers] for answers in found]
    assert all(better >= greedy - 1e-4 for greedy, better in zip(*sums, strict=True)) and sums[0] != sums[1]


def test_a_page_of_several_blocks_streams_as_it_is_read(reader, monkeypatch):
    lone_bytes = reader.processor.tokenizer.convert_tokens_to_ids(["<0x00>", "<0xFF>"])
    letters_only = slice(lone_bytes[0], lone_bytes[1] + 1)
    with_scores(monkeypatch, reader.engine.model, lambda scores: scores[..., letters_only].fill_(-1e4))
    shown, reached = [], []
    options = {"progress": lambda *place: reached.append(place), "max_new_tokens": 12}
    answer = reader.ocr(two_columns(), show=shown.append, **options)
    assert len(shown) > 2 and shown[-1] == answer.text
    assert reached == sorted(reached) and (reached[0], reached[-1]) == ((1, 2), (2, 2))
    kept = zip(shown, shown[1:], strict=False)
    assert all(later.startswith(earlier.rstrip()) for earlier, later in kept), "what was shown changed again"


def test_a_reading_is_streamed_and_ends_when_nobody_listens(reader, monkeypatch):
    updates = list(reader.stream(two_columns(), max_new_tokens=12))
    assert updates[-1].text == reader.ocr(two_columns(), max_new_tokens=12).text and updates[-2] == updates[-1].text
    stopped = []
    ask = Reader.ask
    monkeypatch.setattr(Reader, "ask", lambda *words, **options: stopped.append(ask(*words, **options)))
    stream = reader.stream(two_columns(), max_new_tokens=500)
    assert isinstance(next(stream), str)
    stream.close()
    assert stopped[0].stop_reason == "cancelled"
    monkeypatch.undo()
    cancel = threading.Event()
    cancel.set()
    assert list(reader.stream(two_columns(), cancel=cancel))[-1].stop_reason == "cancelled"
    with pytest.raises(ValueError, match="no task 'paint'"):
        list(reader.stream(page(1), "paint"))
    with pytest.raises(ValueError, match="call it for each"):
        reader.stream([page(1), page(2)])


def test_a_conversation_is_about_several_images(reader, monkeypatch):
    asked, generate = [], reader.engine.generate
    monkeypatch.setattr(
        reader.engine, "generate", lambda requests, *rest: generate(asked.append(requests) or requests, *rest)
    )
    turns = [
        {"role": "user", "content": "Which is larger?"},
        {"role": "assistant", "content": "The first."},
        {"role": "user", "content": "Why?"},
    ]
    answer = reader.chat(turns, [page(1), page(2)], max_new_tokens=9)
    ((request,),) = asked
    assert [each.size for each in request.images] == [page(1).size, page(2).size] and answer.tokens <= 9
    assert request.messages == [{**turns[0], "content": "<image>\n<image>\nWhich is larger?"}, *turns[1:]]
    assert answer.seconds > 0 and turns[0]["content"] == "Which is larger?"
    placed = [{"role": "user", "content": "Is <image> like <image>?"}]
    reader.chat(placed, [page(1), page(2)], max_new_tokens=2)
    assert asked[-1][0].messages == placed
    for wrong, said in ((placed, "image"), (turns[:2], "ends with a turn of the user")):
        with pytest.raises(ValueError, match=said):
            reader.chat(wrong, [page(1)])


@pytest.mark.parametrize("kind", ["transparent", "turned", "16 bits"])
def test_pictures_are_made_ready_whoever_opened_them(processor, kind):
    """Black text on nothing, on its side with a note in the file, or in 16 bits: the model sees black on white."""
    plain = page(2)
    image = plain
    if kind == "transparent":
        image = Image.new("RGBA", plain.size, (0, 0, 0, 0))
        image.putalpha(ImageOps.invert(plain.convert("L")))
    if kind == "turned":
        image = plain.transpose(Image.Transpose.ROTATE_90)
        image.getexif()[0x0112] = 6
    if kind == "16 bits":
        image = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
    engine = FakeEngine(processor, lambda request: Answer("x", confidence=1.0))
    for picture in (plain, image):
        Reader(engine).ask(picture, "caption")
    seen = engine.images
    assert seen[1].mode == "RGB" and np.abs(np.asarray(seen[0], int) - np.asarray(seen[1], int)).mean() < 2


def test_the_oldest_turns_go_when_the_context_is_full(processor):
    engine = FakeEngine(processor, lambda request: Answer(""), context=700)
    turns = [{"role": role, "content": f"{number} " * 100} for number in range(4) for role in ("user", "assistant")]
    turns[0]["content"] = "<image>\n" + turns[0]["content"]
    Reader(engine).ask(page(1), "chat", "And now?", history=turns, max_new_tokens=64)
    messages = engine.requests[0].messages
    assert 1 < len(messages) < 9 and messages[-1]["content"] == "And now?"
    assert [message["content"].count("<image>") for message in messages] == [1] + [0] * (len(messages) - 1)


def test_a_question_that_fills_the_context_is_refused(reader, monkeypatch):
    monkeypatch.setattr(reader.engine.model.config.text_config, "max_position_embeddings", 300)
    with pytest.raises(ValueError, match="the context is 300"):
        reader.ask(page(1), "chat", "why? " * 80)


def test_the_placeholder_in_a_question_is_a_word(reader):
    assert reader.ask(page(1), "vqa", "what is <image>?", max_new_tokens=2).stop_reason in ("end", "length")


def test_an_empty_page_has_no_text(reader):
    answer = reader.read_page(Image.new("RGB", (600, 800), "white"))
    assert (answer.text, answer.stop_reason) == ("", "end")


def test_a_page_is_read_line_by_line_in_order(processor):
    """The model is replaced by one that says how many crops it was given before; what is tested is the way of the
    blocks."""
    engine = FakeEngine(processor, lambda request: Answer(f"<{next(numbers)}>", confidence=1.0, tokens=3))
    numbers = itertools.count()
    answer = Reader(engine).read_page(two_columns())
    assert len(engine.requests) >= 6
    order = [int(part) for part in answer.text.replace("<", " ").replace(">", " ").split()]
    assert order == list(range(len(engine.requests)))
    lines = [line for block in answer.blocks for line in block.parts]
    assert [line.score for line in lines] == [1.0] * len(order) and answer.tokens == 3 * len(order)
    assert [line.text for line in lines] == [f"<{number}>" for number in order]


def count(monkeypatch, calls: Counter, owner, name: str) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def counted(*arguments, **options):
        calls[name] += 1
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize("image", [page(7, 24), two_columns()], ids=["one pass", "blocks"])
def test_work_is_done_once(reader, tmp_path, monkeypatch, image):
    """A file is opened, converted and analysed once; each of its blocks is planned and tokenized once."""
    calls = Counter()
    image.save(tmp_path / "page.png")
    for owner, name in (
        (Image, "open"),
        (layout.page, "Ink"),
        (layout.page, "analyse"),
        (layout.page, "cut"),
        (VaryImageProcessor, "plan"),
        (VaryProcessor, "encode"),
    ):
        count(monkeypatch, calls, owner, name)
    modes, convert = [], Image.Image.convert
    monkeypatch.setattr(
        Image.Image, "convert", lambda self, *rest: modes.append((self.mode, *rest)) or convert(self, *rest)
    )
    blocks = len(reader.ocr(tmp_path / "page.png", max_new_tokens=2).blocks)
    assert calls["open"] == calls["Ink"] == calls["analyse"] == calls["cut"] == 1
    assert calls["plan"] == calls["encode"] >= max(blocks, 1)
    assert [pair for pair in modes if pair[0] != pair[1]] == [("RGB", "L")], "grey for the analysis, and nothing else"


def test_a_large_picture_goes_through_the_page(processor):
    engine = FakeEngine(processor, lambda request: Answer("x", confidence=1.0, tokens=1))
    for lines in (1, 14):
        (block,) = Reader(engine).ocr(page(lines)).blocks
        assert len(block.parts) == lines


def test_text_is_brought_to_the_size_the_model_reads(reader):
    for size in (12, 24, 36):
        assert PageLayout(reader.fit_text(page(3, size))).text_size == pytest.approx(8, abs=1.2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "no such file or folder"),
        (lambda folder: folder.mkdir(), "lacks config.json"),
        (lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{}")), "lacks processor_config.json"),
    ],
)
def test_a_folder_without_a_model_is_said(tmp_path, make, words):
    make(tmp_path / "no model")
    with pytest.raises(ModelError, match=words):
        Reader.from_pretrained(str(tmp_path / "no model"), "cpu")


def test_damaged_and_foreign_weights_are_said(folder, tmp_path):
    def spoiled(name: str) -> Path:
        shutil.copytree(folder, tmp_path / name)
        return tmp_path / name / "model.safetensors"

    pointer = spoiled("pointer")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="cannot load the model .*pointer"):
        Reader.from_pretrained(str(pointer.parent), "cpu")
    partial = spoiled("partial")
    state = {name: tensor for name, tensor in load_file(partial).items() if not name.startswith("language_model")}
    save_file(state, partial, {"format": "pt"})
    with pytest.raises(ModelError, match="weights of .*partial' are not whole: .* language_model"):
        Reader.from_pretrained(str(partial.parent), "cpu")
    other = spoiled("other").parent / "config.json"
    other.write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="no known layout of weights"):
        Reader.from_pretrained(str(other.parent), "cpu")
    with pytest.raises(ModelError, match="the device 'gpu' cannot be used"):
        Reader.from_pretrained(str(folder), "gpu")


@pytest.mark.parametrize("words", [["--max-new-tokens", "0"], ["--max-new-tokens", "many"]])
def test_options_that_mean_nothing_end_in_a_sentence(words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["read", "x.png", *words])
    assert "is not a whole number from 1" in capsys.readouterr().err
    assert cli.main(["read", "x.png", "--task", "caption", "--prompt", "in French"]) == 2
    assert "takes no words of yours" in capsys.readouterr().err


def test_read_prints_json_and_goes_on_after_bad_files(folder, tmp_path, capsys):
    page().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "empty.pdf").write_bytes(b"")
    names = [str(tmp_path / name) for name in ("missing.png", "bad.png", "good.png", "empty.pdf")]
    code = cli.main(["read", *names[1:], names[0], "--json", "--model", str(folder), "--max-new-tokens", "4"])
    streams = capsys.readouterr()
    rows = [json.loads(line) for line in streams.out.splitlines()]
    assert code == 2
    assert [row["file"] for row in rows] == names
    wanted = {"file", "page", "pages", "width", "height", "text", "boxes", "blocks", "stop_reason", "seconds", "model"}
    assert set(rows[2]) >= wanted
    assert all(set(row) == {"file", "error"} for row in (rows[0], rows[1], rows[3]))
    said = [line for line in streams.err.splitlines() if line.startswith("varytoy:")]
    assert len(said) >= 3 and "Traceback" not in streams.err


def test_read_refuses_what_cannot_be(folder, tmp_path, capsys):
    page().save(tmp_path / "good.png")
    assert cli.main(["read", str(tmp_path / "good.png"), "--page", "3", "--model", str(folder)]) == 2
    assert "page 3" in capsys.readouterr().err
    assert cli.main(["read", str(tmp_path / "good.png"), "--task", "ground", "--model", str(folder)]) == 2
    assert "needs a phrase" in capsys.readouterr().err
    assert cli.main(["read", str(tmp_path / "good.png"), "--model", str(tmp_path)]) == 2
    assert "lacks config.json" in capsys.readouterr().err


def sizes(request) -> Answer:
    return Answer(f"{request.images[0].size}", confidence=0.5, tokens=1)


def test_paths_documents_and_lists_are_read(processor, tmp_path):
    reader = Reader(FakeEngine(processor, sizes))
    page().save(tmp_path / "one.png")
    (tmp_path / "three.pdf").write_bytes(make_pdf("one", "two", "three"))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    alone = reader.ocr(page())
    assert reader.ocr(str(tmp_path / "one.png")) == reader.ocr((tmp_path / "one.png").read_bytes()) == alone
    with pytest.raises(DocumentError):
        reader.ocr(tmp_path / "broken.png")
    shown = []
    broken, document, picture = reader.ocr([tmp_path / "broken.png", tmp_path / "three.pdf", page()], show=shown.append)
    assert (broken.text, broken.stop_reason) == ("", "error") and "broken.png" in broken.error
    assert picture == alone and picture.blocks[0].text == picture.text and picture.size == page().size
    assert len(document.pages) == 3 and document.text == "\n\n".join(each.text for each in document.pages)
    assert document.confidence == 0.5 and document.pages[0].size == (625, 417)


def test_a_long_strip_is_read_in_pieces_by_models_that_squash(processor):
    processor.image_processor.mode = "squash"
    strip = Image.new("RGB", (100, 2500), "white")
    pen = ImageDraw.Draw(strip)
    for line in range(0, 2500, 20):
        pen.rectangle((10, line, 90, line + 9), fill="black")
    answer = Reader(FakeEngine(processor, sizes)).ocr(strip)
    boxes = [block.box for block in answer.blocks]
    assert boxes[0][1] == 0 and boxes[-1][3] == 2500 and all(box[3] - box[1] <= 500 for box in boxes)
    assert all(above[3] == below[1] and above[3] % 20 >= 9 for above, below in zip(boxes, boxes[1:], strict=False))


def test_a_page_that_failed_leaves_the_others_markdown():
    broken = Answer("", stop_reason="error", error="page 2 is broken")
    found = join_pages([Answer("# One", markup="# One"), broken])
    assert found.markdown.startswith("# One") and found.error


def test_task_where_none_is_named(processor):
    """Text needs no engine for pictures; a model without captions reads all."""
    pictures = FakeEngine(copy.deepcopy(processor), sizes)
    opened = []
    reader = Reader(FakeEngine(processor, sizes), parts=Parts({"picture": lambda: opened.append(1) or pictures}))
    assert reader.task_for(page()) == "ocr" and not opened
    assert reader.task_for(photograph()) == "caption"
    pictures.processor.prompts = {"detect": "Find all."}
    assert reader.task_for(photograph()) == "ocr"
    pictures.processor.prompts["caption"] = "Describe."
    assert reader.task_for(photograph()) == "caption"


def test_boxes_of_an_answer_are_pixels_of_the_file(processor):
    engine = FakeEngine(processor, lambda request: Answer("[100, 200, 500, 1000]", confidence=1.0))
    answer = Reader(engine).ground(Image.new("RGB", (640, 480)), "the cat")
    assert answer.regions == [Region((64, 96, 320, 480), "the cat")] and answer.boxes[0][0] == "the cat"


def test_requests_of_several_views_and_lengths_keep_their_order(reader, monkeypatch):
    requests = [
        Request([{"role": "user", "content": f"<image>\n{number}"}], [page(1)], view, limit)
        for number, (view, limit) in enumerate([("text", 3), ("text", 3), ("picture", 3), ("text", 5)])
    ]
    alone = [reader.engine.generate([request])[0] for request in requests]
    reader.engine.batch_size = 2
    batches, prepare = [], VaryProcessor.__call__
    monkeypatch.setattr(
        VaryProcessor, "__call__", lambda self, texts, *rest, **more: (
            batches.append(len(texts)) or prepare(self, texts, *rest, **more)
        )
    )  # fmt: skip
    shown = []
    answers = reader.engine.generate(iter(requests), shown.append)
    assert [answer.text for answer in answers] == [answer.text for answer in alone]
    assert all(answer.tokens <= 5 for answer in answers) and sum(batches) == 4
    assert shown[-1] == [answer.text for answer in answers]


def test_rows_that_leave_and_join_change_no_answer(model, processor, reader, monkeypatch):
    """Texts of all lengths in batches of three, beside transformers' ``generate`` one by one."""
    ends = processor.tokenizer.eos_token_id
    with_scores(monkeypatch, model, lambda scores: scores[..., ends].copy_(((50 * scores.sum(-1)).sin() - 0.8) * 1e4))
    requests = [
        Request([{"role": "user", "content": f"<image>\n{'word ' * (number % 4)}"}], [page(1 + number % 3)], "text", 30)
        for number in range(8)
    ]
    reader.engine.batch_size = 3
    expected = [TransformersEngine(model, processor, 1).generate([request])[0] for request in requests]
    answers = reader.engine.generate(requests)
    assert len({answer.tokens for answer in expected}) > 2, "rows of one length leave together"
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    for answer, other in zip(answers, expected, strict=True):
        assert (answer.stop_reason, answer.tokens) == (other.stop_reason, other.tokens)
        assert answer.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_a_cancelled_engine_takes_no_more_requests(reader):
    taken, cancel = [], threading.Event()

    def requests():
        for number in range(5):
            taken.append(number)
            yield Request([{"role": "user", "content": "Hi"}], max_new_tokens=4)

    reader.engine.batch_size = 2
    answers = reader.engine.generate(requests(), lambda texts: cancel.set() if len(texts) > 2 else None, cancel)
    assert len(answers) == 4 and taken == [0, 1, 2, 3]


def test_an_engine_without_confidence_and_one_that_stops_at_once(processor):
    engine = FakeEngine(processor, lambda request: Answer("x"))
    assert Reader(engine).ocr(two_columns()).confidence is None and Reader(engine).ocr(page(2)).text == "x\nx"
    engine.generate = lambda *rest: []
    assert Reader(engine).ocr(page(2)).stop_reason == Reader(engine).caption(page(2)).stop_reason == "cancelled"


class Spotting(Task):
    name, view, prompts = "spot", "text", ("Spot the text.",)

    def parse(self, text, size, argument=""):
        return Answer(text, [Region((1, 2, 3, 4), "word")])


@pytest.mark.parametrize("image", [page(3), two_columns()], ids=["one pass", "blocks"])
def test_regions_of_a_task_on_text_are_kept(processor, monkeypatch, image):
    monkeypatch.setitem(TASKS, "spot", Spotting())
    answer = Reader(FakeEngine(processor, lambda request: Answer("x", confidence=1.0))).ask(image, "spot")
    assert [region.label for region in answer.objects] == ["word"] and answer.blocks
