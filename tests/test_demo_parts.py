"""The parts of the demo, without a browser."""

import asyncio
import base64
import json
import re
import threading

import pypdfium2
import pytest
from conftest import photograph
from demo_browser import Stub, written
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[demo]'")

from demo import line as lines  # noqa: E402
from demo import view  # noqa: E402
from demo.app import main  # noqa: E402
from demo.line import Line, Waiting, stream  # noqa: E402
from demo.measured import PICTURES, Measured, measured  # noqa: E402
from demo.page import Demo  # noqa: E402
from demo.paragraphs import flow  # noqa: E402
from demo.pictures import Example, examples  # noqa: E402
from demo.session import SHOWN_SIDE, Session, Turn, asked, open_page, sentence  # noqa: E402
from varytoy.data.documents import DocumentError  # noqa: E402
from varytoy.inference.drawing import NOTE  # noqa: E402
from varytoy.tasks import TASKS, Answer, Region, get_task  # noqa: E402

ATTACK = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def test_rendered_markdown_holds_no_foreign_element():
    text = f"{ATTACK}\n\na `<b>` [x](javascript:alert(1)) ![i](http://e.com/i.png) <http://e.com>"
    text += "\n\n```\n<u>\n```"
    html = view.render_markdown(text)
    assert set(re.findall(r"<\s*/?([a-z0-9]+)", html)) <= {"p", "code", "pre"}
    assert "&lt;img src=x onerror=" in html and "<code>&lt;u&gt;" in html and "<code>&lt;b&gt;" in html
    assert "<table>" in view.render_markdown("|a|b|\n|-|-|\n|1|2|") and "<h2>" in view.render_markdown("## t")
    for shown in (view.answer(Answer(ATTACK)), view.live(ATTACK), view.turns([("ocr", ATTACK, ATTACK)]),
                  view.notice(ATTACK), view.answer(Answer("", [Region((1, 2, 3, 4), ATTACK)])),
                  view.header(ATTACK, ATTACK), view.finished(ATTACK, Answer(""), 1), view.warning(ATTACK),
                  view.downloads({f"{ATTACK}.{ATTACK}": ATTACK})):  # fmt: skip
        assert "<img" not in shown and "<script" not in shown and "&lt;img" in shown


def test_notations_are_shown_drawn():
    pytest.importorskip("rdkit", reason="needs pip install -e '.[render]'")
    shown = view.answer(Answer("OCC"), "molecule")
    assert 'src="data:image/svg+xml;base64,' in shown and ">OCC</div>" in shown
    broken = view.answer(Answer(ATTACK), "molecule")
    assert "<img" not in broken and "The SMILES cannot be read at character 1" in broken
    assert "<mfrac>" in view.render_markdown("$$\n\\frac{a}{b}\n$$")


@pytest.mark.parametrize(
    ("task", "words", "expected"),
    [
        ("ocr", "", ""),
        ("ocr", "what is this", ""),  # stood in a box that is not shown
        ("chat", "Find the red ball.", "Find the red ball."),  # no other task by its words
        ("detect", " ball, cat ", "ball, cat"),
        ("detect", None, ""),
        ("vqa", "an <image> here", "an image here"),
    ],
)
def test_asked(task, words, expected):
    turn = asked(task, words)
    assert (turn.task, turn.asked) == (task, expected)


@pytest.mark.parametrize(("task", "words"), [("ground", " "), ("chat", None), ("vqa", 5), (None, "x"), ([], "x")])
def test_not_asked(task, words):
    """The sentence names what is wrong as the buttons do."""
    with pytest.raises(ValueError, match=view.label(task) if isinstance(task, str) else "Find one thing"):
        asked(task, words)


def test_errors_name_buttons():
    for task in TASKS.values():
        error = sentence(ValueError(f"the task '{task.name}' needs more"))
        assert error == f"“{view.label(task.name)}” needs more."


def test_only_conversation_has_history():
    session = Session(turns=[Turn("ocr", "", get_task("ocr").prompt(), Answer("text"))] * 9)
    assert session.messages("ocr") == [] and session.messages("detect") == []
    messages = session.messages("chat")
    assert [("<image>" in row["content"]) for row in messages] == [True] + [False] * (len(messages) - 1)
    assert len(messages) == 12


def talk(image, show, cancel) -> Answer:
    """A reader's answer that ends when it is told to."""
    while not cancel.wait(0.02):
        show("some text")
    return Answer("some text", stop_reason="cancelled")


def blank() -> Image.Image:
    return Image.new("RGB", (9, 9))


def test_line():
    """The second waits for the first, and for it alone; one that nobody listens to leaves."""

    async def scene() -> None:
        line, cancels = Line(), [threading.Event() for _ in range(3)]
        first, second, third = (stream(line, talk, blank, cancel) for cancel in cancels)
        while await anext(first) != "some text":
            pass
        assert await anext(second) == Waiting(1) and await anext(third) == Waiting(2)
        cancels[1].set()
        assert (await anext(second)).stop_reason == "cancelled"
        await second.aclose()
        assert await anext(third) == Waiting(1)
        await first.aclose()
        assert cancels[0].is_set()
        while isinstance(found := await anext(third), Waiting):
            pass
        assert found in (None, "some text")
        cancels[2].set()
        assert [found async for found in third][-1] == Answer("some text", stop_reason="cancelled")

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_line_is_bounded(monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 1)

    async def scene() -> None:
        line = Line()
        first, second = (stream(line, talk, blank, threading.Event()) for _ in range(2))
        await anext(first)
        with pytest.raises(ValueError, match="waiting"):
            await anext(second)
        await first.aclose()

    asyncio.run(scene())


def test_model_that_does_not_stop(monkeypatch):
    """Who stopped it is not kept waiting; the next in the line is, until the model is free."""
    monkeypatch.setattr(lines, "GRACE", 0.1)
    free = threading.Event()

    def deaf(image, show, cancel) -> Answer:
        show("so far")
        free.wait(20)
        return Answer("all")

    async def scene() -> None:
        line, cancel = Line(), threading.Event()
        first, second = stream(line, deaf, blank, cancel), stream(line, talk, blank, threading.Event())
        while await anext(first) != "so far":
            pass
        cancel.set()
        assert [found async for found in first][-1] == Answer("so far", stop_reason="cancelled")
        assert await anext(second) == Waiting(1)
        free.set()
        await second.aclose()

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_errors_of_the_reader_leave_the_line():
    def broken(image, show, cancel):
        raise RuntimeError("no memory left")

    async def scene() -> None:
        line = Line()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no memory"):
                async for _ in stream(line, broken, blank, threading.Event()):
                    pass

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_session_keeps_little(tmp_path):
    """Of a large picture the file's bytes and a small copy are kept; the model gets all of it."""
    path = tmp_path / "large.png"
    Image.new("L", (4000, 3000), 255).save(path)
    session = Session()
    session.open(str(path))
    assert max(session.view.size) <= SHOWN_SIDE and session.size == (4000, 3000)
    assert open_page(session.data, 1).size == (4000, 3000) and len(session.data) == path.stat().st_size
    path.unlink()  # the server deletes uploads after a while
    drawn = session.drawn(Turn("detect", "", "", Answer("", [Region((2000, 1500, 3000, 2250))])))
    assert drawn.size == session.view.size and drawn.getpixel((1000, 600)) != (255, 255, 255)
    assert drawn.getpixel((400, 300)) == (255, 255, 255)


def test_task_of_a_file(tmp_path):
    """By what it shows, among those that the model knows, until the visitor chooses one."""
    text, photo, broken = tmp_path / "text.png", tmp_path / "photo.png", tmp_path / "broken.png"
    written("a few words").save(text)
    photograph().save(photo)
    broken.write_bytes(b"no picture")
    demo, session = Demo(Stub(), []), Session()
    assert demo.on_file(session, str(photo))[demo.task] == "caption"
    assert demo.on_file(session, str(text))[demo.task] == "ocr"
    assert demo.task not in demo.on_file(session, str(broken)) and demo.task not in demo.on_file(session, None)
    demo.on_example(Example("", str(text), "markdown"), session)  # is no choice
    assert demo.on_file(session, str(photo))[demo.task] == "caption"
    demo.on_choice(session)
    assert demo.task not in demo.on_file(session, str(text))
    reader = Demo(Stub(), [], tasks=["ocr", "detect"])
    assert reader.task not in reader.on_file(Session(), str(photo))


def test_page_that_cannot_be_shown(tmp_path):
    """The pages behind it can be reached."""
    document, path = pypdfium2.PdfDocument.new(), tmp_path / "a.pdf"
    for size in ((300, 300), (5000, 0.1), (300, 300)):
        document.new_page(*size)
    document.save(path)
    session = Session()
    session.open(str(path))
    with pytest.raises(DocumentError):
        session.turn_to(2)
    assert (session.page, session.view) == (2, None)
    session.turn_to(3)
    assert session.view.size == (625, 625)
    for number in (0, 4, None, "2", True):
        with pytest.raises(DocumentError, match=str(number)):
            session.turn_to(number)
    assert session.page == 3


def test_first_page_that_cannot_be_shown(tmp_path):
    document, path = pypdfium2.PdfDocument.new(), tmp_path / "a.pdf"
    for size in ((5000, 0.1), (300, 300)):
        document.new_page(*size)
    document.save(path)
    session = Session()
    with pytest.raises(DocumentError):
        session.open(str(path))
    session.turn_to(2)
    assert session.view.size == (625, 625)


FIRST = "The baker opened the shop at five, as on every morning"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{FIRST},\nand found a letter.", f"{FIRST}, and found a letter."),
        (f"{FIRST},\nand then.\n\n{FIRST}.\n", f"{FIRST}, and then.\n\n{FIRST}.\n"),
        (f"{FIRST} that\nEmma left, and found\na letter there.", f"{FIRST} that Emma left, and found\na letter there."),
        (f"{FIRST} with great hon-\nesty.", f"{FIRST} with great hon-esty."),
        ("Dept. of Computer Science\nUniversity of Somewhere\n12 High Street\nLondon", None),
        ("O rose that grew beside the wall\nAnd saw the summer come and fall", None),
        ("pack the blue tent with all poles\nwater the plants\nleave a key next door", None),
        ("milk, whole, one litre 1.20\nbread, brown, sliced 0.99", None),
        ("| name of the thing | price |\n| apple, a green one | 2 |", None),
        ("1. take the bus to the old station\n2. go home by the river\nand rest.", None),
        ("Introduction to the matter ...... 3\nand to its history ...... 12", None),
        ("a b\nc d", None),
        ("\n\n  x", None),
        ("", None),
    ],
)
def test_flow(text, expected):
    assert flow(text) == (text if expected is None else expected)


def test_markdown_keeps_lines():
    html = view.render_markdown("Mr. A. Baker\n12 Harbour Street\n\n- " + FIRST + ",\n  and found\n\n`a\nb`")
    assert "Baker<br />" in html and f"{FIRST}, and found" in html and "<code>a b</code>" in html


def test_sentence():
    assert sentence(ValueError("the file is empty")) == "The file is empty."
    assert sentence(ValueError("a.png is empty.")) == "a.png is empty."
    assert sentence(ValueError("")) == "ValueError."
    assert sentence(RuntimeError("")) == "The model could not answer: RuntimeError."


def test_measured(tmp_path):
    """Figures decide what is said of a model; one without figures says nothing."""
    assert measured(str(tmp_path)) == Measured()
    assert Measured().known_error() == "" and not any(map(Measured().is_experimental, TASKS))
    assert "<span>" not in view.header("name", "")
    (tmp_path / "evaluation.json").write_text(
        json.dumps({"block CER": 0.0412, "of": "x", "a": True, "b": float("nan")})
    )
    assert measured(str(tmp_path)).figures == {"block CER": 0.0412}
    assert "1 character in 24" in measured(str(tmp_path)).known_error()
    for broken in ("[1]", "{", '{"a": "b"}'):
        (tmp_path / "evaluation.json").write_text(broken)
        assert measured(str(tmp_path)) == Measured()


def test_experimental():
    """By the figures, not by the name: worth nothing, no better than guessing, good, and not measured."""
    metric = PICTURES["vqa"]
    assert Measured({metric: 0.0}).is_experimental("vqa") and Measured({metric: 0.0}).is_experimental("chat")
    assert Measured({metric: 0.5, metric + ", blank picture": 0.48}).is_experimental("vqa")
    assert not Measured({metric: 0.5, metric + ", blank picture": 0.3}).is_experimental("vqa")
    assert not Measured({metric: 0.0}).is_experimental("detect")
    assert not any(map(measured("nano").is_experimental, TASKS))


def test_no_model(tmp_path, capsys):
    """A folder without a model: one sentence, exit code 2."""
    assert main(["--model", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert "is not a varytoy model" in said and "\n" not in said


def test_own_examples(tmp_path):
    row = {"title": "Mine", "file": "a.png", "task": "detect"}
    (tmp_path / "examples.json").write_text(json.dumps([row]))
    (found,) = examples(tmp_path, tmp_path)
    assert (found.title, found.path, found.task, found.prompt) == ("Mine", str(tmp_path / "a.png"), "detect", "")


def test_a_changed_picture_is_shown_before_and_after(tmp_path):
    """And it is saved with a note; drawing needs a place."""
    photograph().save(tmp_path / "photo.png")

    class Drawing(Stub):
        def ask(self, image, task="ocr", argument="", place=None, **options):
            changed = image.convert("RGB")
            changed.paste((9, 9, 9), tuple(map(round, place)))
            return Answer(argument, [Region(place)], image=changed)

    demo, session = Demo(Drawing(), []), Session()
    session.open(str(tmp_path / "photo.png"))

    async def changes(drawn: str) -> list[dict]:
        return [change async for change in demo.on_run(session, "edit", "New", drawn)]

    failed = asyncio.run(changes(""))
    assert "Draw a rectangle around the place on the picture first." in failed[-1][demo.status]
    done = asyncio.run(changes("100,100,300,200"))[-1]
    assert done[demo.answer].count("data:image/jpeg;base64,") == 2 and 'type="range"' in done[demo.answer]
    saved = re.search(r'download="photo-changed.png" href="data:[^,]*,([^"]*)"', done[demo.status])
    assert NOTE.encode() in base64.b64decode(saved[1]) and not session.turns


def test_an_answer_with_a_place_is_shown_as_text():
    found = Answer("4.10", [Region((1, 2, 30, 40), "4.10")])
    assert "<table>" not in view.answer(found, "vqa") and "4.10" in view.answer(found, "vqa")
