"""The browser demo in a real headless Chromium: with a reader that answers at once, and with the embedded model."""

import io
import json
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[demo]'")

from demo import view  # noqa: E402
from demo.measured import PICTURES, Measured  # noqa: E402
from demo.app import main
from demo.page import Demo  # noqa: E402
from demo.pictures import examples  # noqa: E402
from demo.session import Session, Turn, asked, sentence
from varytoy.metrics import character_error_rate  # noqa: E402
from varytoy.tasks import TASKS, Answer, get_task  # noqa: E402

ATTACK = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
ARGS = (
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run",
    "--disable-sync", "--disable-gpu", "--disable-dev-shm-usage",
)  # fmt: skip
WORDS = "river window market silver garden table morning letter bridge yellow station winter paper forest".split()


class Stub:
    """Answers like a reader, at once, and remembers what it was asked."""

    name = "stub <b>model</b>"

    def __init__(self):
        self.asked: list[tuple] = []

    def ask(self, image, task="ocr", argument="", history=(), max_new_tokens=0, show=None, cancel=None):
        self.asked.append((image.size, task, argument, list(history)))
        if task == "ocr":
            return self._slowly(image, show, cancel)
        time.sleep(0.15)
        if task == "markdown":
            text = f"# Title\n\n- first {ATTACK}\n\n![shot](http://example.com/a.png) [site](http://example.com)"
            return Answer(text, markdown=text, stop_reason="loop")
        if task == "detect":
            return Answer("ball: [100, 100, 500, 500];", [("ball", (40, 30, 200, 150))], confidence=0.9)
        if argument == "break":
            raise RuntimeError("no memory left\nat line 3")
        return Answer(f"heard {argument} {ATTACK}", stop_reason="length" if argument == "long" else "end")

    def _slowly(self, image, show, cancel):
        said = f"width {image.width}"
        for number in range(60 if image.width == 333 else 6):
            said += f" word{number}"
            show(said)
            if cancel.wait(0.12):
                return Answer(said, stop_reason="stopped")
        return Answer(said, confidence=0.5)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium through Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright: '.[dev]'")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("the browser tests need Debian's package chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=list(ARGS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """(the stub, the address of a demo that shows it)."""
    reader = Stub()
    demo = Demo(reader, examples(tmp_path_factory.mktemp("examples")), Measured({"block CER": 0.0564, **dict.fromkeys(PICTURES.values(), 0.0)}))
    address = demo.launch("127.0.0.1", free_port())
    yield reader, address
    demo.page.close(verbose=False)


@pytest.fixture
def page(browser, stub):
    yield from visit(browser, stub[1])


def visit(browser, address):
    """A page on the demo; no request may leave this machine."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(30000)
    requests = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    opened.wait_for_selector("#file input[type=file]", state="attached")
    opened.wait_for_selector("#answer .vt-empty")
    opened.wait_for_selector("#examples img >> nth=-1")
    yield opened
    outside = [url for url in requests if not re.match(r"(https?|ws)://127\.0\.0\.1[:/]|(data|blob):", url)]
    assert len(requests) > 5 and not outside
    opened.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def written(text: str, width: int = 640, height: int = 120, size: int = 24) -> Image.Image:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).text((24, 40), text, font=ImageFont.load_default(size=size), fill="black")
    return image


def saved(image: Image.Image, kind: str = "PNG", **options) -> dict:
    """The picture as a file for Playwright's ``set_input_files``."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    mime = "application/pdf" if kind == "PDF" else "image/png"
    return {"name": f"file.{kind.lower()}", "mimeType": mime, "buffer": buffer.getvalue()}


def upload(page, file: dict) -> None:
    """Give the file and wait until another picture is shown."""
    before = picture_source(page)
    page.set_input_files("#file input[type=file]", file)
    wait_picture(page, before)


def picture_source(page) -> str | None:
    found = page.locator("#picture img")
    return found.get_attribute("src") if found.count() else None


def wait_picture(page, before: str | None) -> None:
    page.wait_for_function(
        "before => { const img = document.querySelector('#picture img'); return img && img.complete && img.naturalWidth"
        " && img.src && img.getAttribute('src') !== before; }",
        arg=before,
    )


def picture(page) -> np.ndarray:
    """The pixels of the shown picture, [H, W, 3]."""
    data = page.request.get(page.locator("#picture img").evaluate("img => img.src")).body()
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def run(page, task: str, prompt: str = "", timeout: int = 30000) -> str:
    """Choose, type, press Run, wait; the text of the answer."""
    page.check(f"#task input[value={task}]", force=True)
    page.fill("#prompt textarea", prompt) if prompt else None
    # Or the line under the answer before would be taken for the new one.
    page.evaluate("document.querySelectorAll('#status p').forEach(line => line.classList.add('old'))")
    page.click("#run")
    return finished(page, timeout)


def finished(page, timeout: int = 30000) -> str:
    page.wait_for_selector("#status .vt-status:not(.old, :has(.vt-dot)), #status .vt-error:not(.old)", timeout=timeout)
    page.wait_for_selector("#run", timeout=timeout)
    return page.inner_text("#answer")


def test_stream_and_stop(page, stub):
    """Text is seen to grow; Stop ends it and says so."""
    upload(page, saved(Image.new("RGB", (333, 90), "white")))
    page.click("#run")
    seen = set()
    while len(seen) < 4:
        seen.add(page.inner_text("#answer .vt-live")) if page.locator("#answer .vt-live").count() else None
        time.sleep(0.05)
    assert all(text in max(seen, key=len) for text in seen)
    page.click("#stop")
    assert "word59" not in finished(page)
    assert "Stopped by you." in page.inner_text("#status p")
    assert stub[0].asked[-1] == ((333, 90), "ocr", "", [])


def test_header(page):
    head = page.inner_text(".vt-head")
    assert "stub <b>model</b>" in head and "known error: CER 0.04" in head
    assert page.title() == "varytoy"


def test_boxes_are_drawn(page):
    """The answer's box stands on the picture; the next answer starts from the clean picture."""
    upload(page, saved(Image.new("RGB", (400, 300), "white")))
    assert (picture(page) == 255).all()
    before = picture_source(page)
    assert "ball" in run(page, "detect")
    wait_picture(page, before)
    found = picture(page)
    assert (found[80:100, 39:44] < 250).any() and (found[148:153, 100] < 250).any()
    assert (found[80, 100] == 255).all() and (found[250, 300] == 255).all()
    assert "confidence 90%" in page.inner_text("#status p")
    before = picture_source(page)
    run(page, "caption")
    wait_picture(page, before)
    assert (picture(page) == 255).all()


def test_model_output_is_escaped(page):
    """Markdown is rendered, what looks like HTML stays text, pictures of the model are not fetched."""
    upload(page, saved(written("note")))
    shown = run(page, "markdown")
    assert page.inner_text("#answer h1") == "Title" and page.locator("#answer li").count() == 1
    assert ATTACK in shown
    assert "Stopped: it repeated itself." in page.inner_text("#status p")
    page.get_by_role("tab", name="Source").click()
    assert page.input_value("#source textarea").startswith("# Title\n\n- first <img")
    page.get_by_role("tab", name="Answer").click()
    assert ATTACK in run(page, "chat", f"say {ATTACK}")
    run(page, "chat", "more")
    page.click("#turns summary >> nth=0")
    assert f"heard say {ATTACK}" in page.inner_text("#turns")
    assert page.locator("#answer img, #turns img, #answer script, #turns script, #answer a").count() == 0
    assert page.evaluate("window.hacked") is None


def test_turns(page, stub):
    """A conversation carries its history; a new picture clears it."""
    upload(page, saved(written("talk")))
    run(page, "chat", "one")
    assert page.input_value("#prompt textarea") == ""
    run(page, "chat", "two")
    history = stub[0].asked[-1][3]
    assert [row["role"] for row in history] == ["user", "assistant"]
    assert history[0]["content"] == "<image>\none" and history[1]["content"].startswith("heard one")
    assert "one" in page.inner_text("#turns") and "Cut at" not in page.inner_text("#status p")
    run(page, "chat", "long")
    assert f"Cut at {view.MAX_TOKENS} tokens." in page.inner_text("#status p")
    upload(page, saved(written("other")))
    page.wait_for_function("!document.querySelector('#turns').innerText")
    run(page, "ocr", "what is this")
    assert stub[0].asked[-1][1:] == ("chat", "what is this", [])


def test_pages(page, stub):
    """A PDF shows its first page and a chooser."""
    sizes = (300, 400, 500)
    pages = [Image.new("RGB", (width, 300), (width // 2, 255, 255)) for width in sizes]
    upload(page, saved(pages[0], "PDF", save_all=True, append_images=pages[1:], resolution=150))
    assert page.input_value("#page input") == "Page 1 of 3"
    for step, number in (("#forth", 2), ("#forth", 3), ("#back", 2)):
        before = picture_source(page)
        page.click(step)
        wait_picture(page, before)
        assert page.input_value("#page input") == f"Page {number} of 3"
        assert abs(picture(page).shape[1] - sizes[number - 1]) <= 2
    before = picture_source(page)
    page.click("#page input")
    page.get_by_role("option", name="Page 3 of 3").click()
    wait_picture(page, before)
    run(page, "ocr")
    assert abs(stub[0].asked[-1][0][0] - 500) <= 2


def test_errors_are_sentences(page):
    """Each mistake gets one sentence, and the page goes on working."""
    page.click("#run")
    page.wait_for_selector("#status .vt-error")
    assert page.inner_text("#status p") == "Choose a picture or a PDF first."
    page.set_input_files("#file input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_selector("#notice .vt-error")
    said = page.inner_text("#notice")
    assert said.endswith(".") and "a.png" in said and "\n" not in said and "/" not in said
    upload(page, saved(written("good")))
    page.wait_for_selector("#notice .vt-error", state="detached")
    run(page, "vqa", "")
    assert "needs a question" in page.inner_text("#status p")
    run(page, "chat", "break")
    assert page.inner_text("#status p") == "The model could not answer: no memory left."
    assert "heard again" in run(page, "chat", "again")


def test_paste_drop_example(page, stub):
    """A pasted picture, one dropped beside the field, and an example that is clicked."""
    for event, field, width in (("paste", "clipboardData", 64), ("drop", "dataTransfer", 72)):
        before = picture_source(page)
        page.evaluate(PASTE, [event, field, width])
        wait_picture(page, before)
        assert picture(page).shape == (20, width, 3)
    before = picture_source(page)
    page.click("#examples button >> nth=2")
    wait_picture(page, before)
    page.wait_for_selector("#answer table")
    assert stub[0].asked[-1][1] == "detect" and page.is_checked("#task input[value=detect]")


PASTE = """async ([kind, field, width]) => {
  const canvas = document.createElement("canvas"); canvas.width = width; canvas.height = 20;
  const blob = await new Promise(done => canvas.toBlob(done));
  const data = new DataTransfer(); data.items.add(new File([blob], "image.png", { type: "image/png" }));
  const event = new Event(kind, { bubbles: true, cancelable: true });
  Object.defineProperty(event, field, { value: data });
  document.querySelector("#answer").dispatchEvent(event);
}"""


def test_phone(browser, stub):
    """On a phone's width nothing sticks out."""
    opened = browser.new_page(viewport={"width": 390, "height": 844})
    opened.goto(stub[1])
    opened.wait_for_selector("#examples img")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    opened.close()


@pytest.mark.slow
def test_embedded_model(browser, tmp_path):
    """``python demo/app.py``: the words of a PNG and of a PDF. It does not find things yet, so a drawn box is seen with
    the reader that answers at once."""
    if not (files("varytoy") / "nano" / "model.safetensors").is_file():
        pytest.skip("varytoy/nano/model.safetensors is not there: no embedded model to read with")
    rng = random.Random()
    with served(tmp_path / "log") as address:
        for page in visit(browser, address):
            for kind in ("PNG", "PDF"):
                truth = " ".join(rng.sample(WORDS, 6))
                upload(page, saved(written(truth, 700, 160, 26), kind, resolution=150))
                read = run(page, "ocr", timeout=40000)
                assert character_error_rate([read], [truth]) <= 0.2, (kind, truth, read)


class served:  # noqa: N801
    """``python demo/app.py`` as a user starts it."""

    def __init__(self, log: Path):
        self.log, self.port = log, free_port()

    def __enter__(self) -> str:
        program = Path(__file__).resolve().parents[1] / "demo" / "app.py"
        with self.log.open("w") as out:
            command = [sys.executable, str(program), "--port", str(self.port)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        for _ in range(600):
            time.sleep(0.1)
            with socket.socket() as door:
                if door.connect_ex(("127.0.0.1", self.port)) == 0:
                    return f"http://127.0.0.1:{self.port}"
            assert self.process.poll() is None, self.log.read_text()
        raise AssertionError(self.log.read_text())

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


def test_rendered_markdown_holds_no_foreign_element():
    text = f"{ATTACK}\n\na `<b>` [x](javascript:alert(1)) ![i](http://e.com/i.png) <http://e.com>"
    text += "\n\n```\n<u>\n```"
    html = view.render_markdown(text)
    assert set(re.findall(r"<\s*/?([a-z0-9]+)", html)) <= {"p", "code", "pre"}
    assert "&lt;img src=x onerror=" in html and "<code>&lt;u&gt;" in html and "<code>&lt;b&gt;" in html
    assert "<table>" in view.render_markdown("|a|b|\n|-|-|\n|1|2|") and "<h2>" in view.render_markdown("## t")
    for shown in (view.answer(Answer(ATTACK)), view.live(ATTACK), view.turns([("ocr", ATTACK, ATTACK)]),
                  view.notice(ATTACK), view.answer(Answer("", [(ATTACK, (1, 2, 3, 4))])),
                  view.header(ATTACK, ATTACK), view.finished(ATTACK, Answer(""), 1)):  # fmt: skip
        assert "<img" not in shown and "<script" not in shown and "&lt;img" in shown


@pytest.mark.parametrize(
    ("task", "prompt", "expected"),
    [
        ("ocr", "", ("ocr", "")),
        ("ocr", "Convert the image to markdown format.", ("markdown", "")),
        ("ocr", "Find the red ball.", ("ground", "the red ball")),
        ("ocr", "Find every object in this image.", ("detect", "")),
        ("caption", "who is she", ("chat", "who is she")),
        ("detect", "ball, cat", ("detect", "ball, cat")),
        ("ground", "the cat", ("ground", "the cat")),
        ("vqa", "Where is the cat?", ("vqa", "Where is the cat?")),
        ("chat", "an <image> here", ("chat", "an image here")),
    ],
)
def test_resolve(task, prompt, expected):
    assert resolve(task, prompt) == expected


def test_every_task_can_be_chosen():
    assert [name for _, name in view.task_choices()] == list(TASKS)
    assert all(view.task_hint(name) for name in TASKS)


def test_only_conversation_has_history():
    session = Session(turns=[Turn("ocr", "", get_task("ocr").prompt(), Answer("text"))] * 9)
    assert session.messages("ocr") == [] and session.messages("detect") == []
    messages = session.messages("chat")
    assert [("<image>" in row["content"]) for row in messages] == [True] + [False] * (len(messages) - 1)
    assert len(messages) == 12


def test_stream_cancels_when_nobody_listens():
    cancel = threading.Event()
    answers = stream(Stub(), Image.new("RGB", (333, 9)), "ocr", "", [], cancel)
    assert next(answers).startswith("width 333")
    answers.close()
    assert cancel.is_set()


def test_sentence():
    assert sentence(ValueError("the file is empty")) == "The file is empty."
    assert sentence(ValueError("a.png is empty.")) == "a.png is empty."
    assert sentence(ValueError("")) == "ValueError."
    assert sentence(RuntimeError("")) == "The model could not answer: RuntimeError."


def test_known_error(tmp_path):
    assert view.known_error(str(tmp_path)) == "known error: not measured"
    (tmp_path / "evaluation.json").write_text(json.dumps({"block CER": 0.0412, "of": "x"}))
    assert view.known_error(str(tmp_path)) == "known error: block CER 0.0412"
    for broken in ("[1]", "{", '{"a": "b"}'):
        (tmp_path / "evaluation.json").write_text(broken)
        assert view.known_error(str(tmp_path)) == "known error: not measured"


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
