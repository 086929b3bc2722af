"""The browser demo in a real headless Chromium: with a reader that answers at once, and with the embedded model."""

import base64
import json
import random
import re
import shutil
import time
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import photograph
from demo_browser import (
    ADDRESS,
    ARGS,
    ATTACK,
    PARAGRAPH,
    PASTE,
    SENTENCE,
    Stub,
    check_geometry,
    check_part,
    finished,
    free_port,
    kept,
    picture,
    picture_source,
    reloaded,
    run,
    saved,
    sent,
    served,
    upload,
    visit,
    wait_picture,
    written,
)  # fmt: skip
from PIL import Image
from test_documents import encoded

pytest.importorskip("gradio", reason="the demo needs Gradio: pip install -e '.[demo]'")

from gradio_client import Client  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from demo.line import MAX_TOKENS  # noqa: E402
from demo.measured import PICTURES, Measured  # noqa: E402
from demo.page import Demo  # noqa: E402
from demo.pictures import examples  # noqa: E402
from varytoy.data.spots import parse_spots  # noqa: E402
from varytoy.tasks.metrics import character_error_rate  # noqa: E402

WORDS = "river window market silver garden table morning letter bridge yellow station winter paper forest".split()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium through Playwright; pages share its cache."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright: '.[dev]'")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("the browser tests need Debian's package chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=list(ARGS))
        yield opened.new_context()
        opened.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo that shows the stub, which knows text and is measured to know nothing of pictures but questions."""
    figures = {"block CER": 0.0564, **dict.fromkeys(PICTURES.values(), 0.0), PICTURES["vqa"]: 0.8}
    made = Demo(Stub(), examples(tmp_path_factory.mktemp("examples")), Measured(figures))
    made.address = made.launch("127.0.0.1", free_port())
    yield made
    made.page.close(verbose=False)


@pytest.fixture
def stub(demo):
    return demo.reader


@pytest.fixture(scope="module")
def page(browser, demo):
    """One for all tests that begin with a picture of their own: to open one takes longer than most of them."""
    yield from visit(browser, demo.address)


@pytest.fixture
def fresh(page):
    """The page as a visitor finds it."""
    return reloaded(page)


def test_stream_and_stop(page, stub):
    """Text is seen to grow; Stop ends it and says so."""
    upload(page, saved(Image.new("RGB", (333, 90), "white")))
    page.check("#task input[value=ocr]", force=True)
    page.click("#run")
    seen = set()
    for _ in range(200):
        seen.add(page.inner_text("#answer .vt-live")) if page.locator("#answer .vt-live").count() else None
        if len(seen) == 4:
            break
        time.sleep(0.05)
    assert len(seen) == 4 and page.inner_text("#status p").startswith("Reading block 7 of 24…")
    assert all(text in max(seen, key=len) for text in seen)
    page.click("#stop")
    assert "word399" not in finished(page)
    assert "Stopped by you." in page.inner_text("#status p")
    assert stub.asked[-1] == ((333, 90), "ocr", "", [])


def test_programs_ask_the_demo(demo, stub):
    client = Client(demo.address, verbose=False)
    names = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(names) == ["/read"]
    assert [each["parameter_name"] for each in names["/read"]["parameters"]] == ["file", "task", "prompt", "page"]
    data = base64.b64encode(encoded(Image.new("RGB", (60, 40), "white"), "PNG")).decode()
    answer = client.predict(data, "vqa", "what", api_name="/read")
    assert answer["text"].startswith("heard what") and (answer["width"], answer["task"]) == (60, "vqa")
    assert client.predict(f"data:image/png;base64,{data}", api_name="/read")["blocks"][1]["text"] == "block 1"
    wrong = {"the file is not base64": ["?"], "no task 'paint'": [data, "paint"], "1 page": [data, "ocr", "", 2]}
    for said, words in wrong.items():
        with pytest.raises(AppError, match=said):
            client.predict(*words, api_name="/read")
    slow = base64.encodebytes(encoded(Image.new("RGB", (333, 90), "white"), "PNG")).decode()  # with line breaks
    job = client.submit(slow, "ocr", api_name="/read")
    while not any(each["text"] for each in job.outputs()):
        time.sleep(0.05)
    job.cancel()
    while demo.line._tickets:  # the model is free again
        time.sleep(0.05)
    assert all(each["stop_reason"] is None for each in job.outputs())


def test_header(page):
    head = page.inner_text(".vt-head")
    assert "stub <b>model</b>" in head and "misreads about 1 character in 18 of clean print" in head
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
    before = picture_source(page)
    run(page, "caption")
    wait_picture(page, before)
    assert (picture(page) == 255).all()


def test_a_part_is_drawn_with_the_mouse(fresh, stub):
    check_part(fresh, stub)


def test_experimental(page):
    """What was measured to be worth nothing says so on its button and in place of a confidence."""
    titles = [title.strip() for title in page.locator("#task label").all_inner_texts()]
    assert titles[:4] == ["Read text", "Markdown", "Text with boxes", "Find objects (experimental)"]
    assert "Short answer" in titles
    assert page.locator("#examples button", has_text="experimental").count() == 2
    upload(page, saved(written("note")))
    run(page, "detect")
    assert "experimental" in page.inner_text("#status p") and "confidence" not in page.inner_text("#status p")
    assert "experimental" in page.inner_text("#warning").lower()
    assert json.loads(kept(page, ".json"))["confidence"] is None
    run(page, "ocr")
    assert "confidence 50%" in page.inner_text("#status p") and page.locator("#warning p").count() == 0


def test_task_of_a_picture(fresh, stub):
    """A photograph is described and text is read, unless the visitor has chosen what to do."""

    def shown(task: str) -> None:
        fresh.wait_for_selector(f"#task label.selected:has(input[value={task}])")

    upload(fresh, saved(photograph()))
    shown("caption")
    assert "experimental" in fresh.inner_text("#warning").lower()
    fresh.click("#run")
    finished(fresh)
    assert stub.asked[-1][1] == "caption"
    upload(fresh, saved(written("a few words")))
    shown("ocr")
    fresh.wait_for_selector("#warning p", state="detached")
    fresh.click("#examples button >> nth=1")
    fresh.wait_for_selector("#answer h1")
    shown("markdown")
    upload(fresh, saved(photograph()))
    shown("caption")
    fresh.check("#task input[value=chat]", force=True)
    fresh.wait_for_selector("#prompt", state="visible")
    for image in (written("other words"), photograph()):
        upload(fresh, saved(image))
        fresh.wait_for_timeout(300)
        shown("chat")
    reloaded(fresh)
    upload(fresh, saved(photograph()))
    shown("caption")


def test_save(page):
    """The answer as a file: markdown and text as they were written, all that is known as JSON."""
    upload(page, saved(Image.new("RGB", (400, 300), "white")))
    run(page, "markdown")
    text = kept(page, ".md")
    assert text == kept(page, ".txt") and text.startswith("# Title\n\n- first <img")
    run(page, "detect")
    found = json.loads(kept(page, ".json"))
    assert found["boxes"] == [{"label": "ball", "box": [40, 30, 200, 150]}] and found["file"] == "file.png"
    assert found["task"] == "detect" and page.locator("#status a:text-is('.md')").count() == 0


def test_paragraphs_flow(page):
    """In the answer the lines of a paragraph run on, those of an address stand alone; the source is exact."""
    upload(page, saved(written("note")))
    for task in ("chat", "vqa"):  # the second answers as markdown
        shown = run(page, task, "page")
        assert PARAGRAPH.replace("\n", " ") in shown and ADDRESS in shown
        page.get_by_role("tab", name="Source").click()
        assert page.input_value("#source textarea").startswith(PARAGRAPH)
        page.get_by_role("tab", name="Answer").click()


def test_model_output_is_escaped(page):
    """Markdown is rendered, what looks like HTML stays text, pictures of the model are not fetched."""
    upload(page, saved(written("markup")))
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
    history = stub.asked[-1][3]
    assert [row["role"] for row in history] == ["user", "assistant"]
    assert history[0]["content"] == "<image>\none" and history[1]["content"].startswith("heard one")
    assert "one" in page.inner_text("#turns") and "Cut at" not in page.inner_text("#status p")
    run(page, "chat", "long")
    with page.expect_download() as found:
        page.click("#turns a")
    told = json.loads(Path(found.value.path()).read_text(encoding="utf-8"))
    assert [(turn["task"], turn["asked"]) for turn in told] == [("chat", "one"), ("chat", "two")]
    assert f"Cut at {MAX_TOKENS} tokens." in page.inner_text("#status p")
    upload(page, saved(written("other")))
    page.wait_for_function("!document.querySelector('#turns').innerText")
    run(page, "chat", "what is this")
    assert stub.asked[-1][1:] == ("chat", "what is this", [])


def test_no_box_for_words_that_nobody_reads(fresh, stub):
    """A task that takes no words shows no prompt box, and what was typed is asked of no other task."""
    assert not fresh.is_visible("#prompt")
    upload(fresh, saved(written("note")))
    fresh.check("#task input[value=chat]", force=True)
    fresh.fill("#prompt textarea", "who is she")
    fresh.check("#task input[value=caption]", force=True)
    fresh.wait_for_selector("#prompt", state="hidden")
    fresh.click("#run")
    finished(fresh)
    assert stub.asked[-1][1:3] == ("caption", "") and fresh.is_checked("#task input[value=caption]")
    fresh.check("#task input[value=chat]", force=True)
    assert fresh.input_value("#prompt textarea") == "who is she"


def test_queue(browser, demo, fresh):
    """One answer at a time: the others see their place, can do all else, can stop waiting, and move up."""
    # Visitors have browsers of their own: Gradio's two streams a tab would take all connections of one.
    tabs = [fresh, browser.browser.new_page(), browser.browser.new_page()]
    for tab in tabs[1:]:
        tab.goto(demo.address)
        tab.wait_for_selector("#examples img >> nth=-1")
    for tab in tabs:
        upload(tab, saved(Image.new("RGB", (333, 90), "white")))
    for place, tab in enumerate(tabs):
        tab.click("#run")
        tab.wait_for_selector(
            f"#status :text('number {place} in the queue')" if place else "#answer .vt-live:text('word')"
        )
    tabs[1].click("#stop")
    finished(tabs[1])
    assert tabs[1].inner_text("#status p").startswith("Stopped by you.")
    tabs[1].wait_for_selector("#answer .vt-empty")
    tabs[2].wait_for_selector("#status :text('number 1 in the queue')")
    upload(tabs[1], saved(written("other")))  # while the first is still being answered
    assert tabs[0].is_visible("#stop")
    tabs[0].click("#stop")
    tabs[2].wait_for_selector("#answer .vt-live:text('word')")
    for tab in tabs[1:]:
        tab.close()
    for _ in range(100):  # who has gone is answered no longer
        if not demo.line._tickets:
            return
        time.sleep(0.1)
    raise AssertionError("somebody who has gone still holds the line")


def test_pages(page, stub):
    """A PDF shows its first page and a chooser."""
    sizes = (700, 800, 900)
    pages = [Image.new("RGB", (width, 700), (width // 4, 255, 255)) for width in sizes]
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
    assert abs(stub.asked[-1][0][0] - sizes[2]) <= 2


def test_blocks_are_listed_and_outlined(page):
    """While the list is looked at, the picture shows its numbers; the next answer is outlined at once."""
    upload(page, saved(Image.new("RGB", (400, 300), "white")))
    run(page, "ocr")
    assert (picture(page) == 255).all()
    for before in ("Answer", "Source"):
        clean = picture_source(page)
        page.get_by_role("tab", name="Blocks").click()
        wait_picture(page, clean)
        found = picture(page)
        assert (found[18:23, 100] < 250).any() and (found[50:54, 100] < 250).any() and (found[200:] == 255).all()
        assert page.inner_text("#blocks tbody tr >> nth=1").split() == ["2", "90%", "block", "1"]
        outlined = picture_source(page)
        page.get_by_role("tab", name=before).click()
        wait_picture(page, outlined)
        assert (picture(page) == 255).all()
    page.get_by_role("tab", name="Blocks").click()
    page.click("#run")
    page.wait_for_selector("#blocks .vt-empty")
    page.wait_for_selector("#blocks td")
    assert (picture(page)[18:23, 100] < 250).any()


def test_whole_documents(page):
    """All pages of several files are read; what cannot be opened says so, and the rest is saved together."""
    pages = [Image.new("RGB", (400, 300), "white")] * 2
    document = saved(pages[0], "PDF", save_all=True, append_images=pages[1:])
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    page.get_by_text("Read whole documents").click()
    page.click("#read")
    page.wait_for_selector("#many-status .vt-error")
    assert page.inner_text("#many-status") == "Choose pictures or PDFs first."
    page.set_input_files("#many input[type=file]", [document, saved(pages[0]), broken])
    page.wait_for_selector("#many tr >> nth=2")
    page.click("#read")
    page.wait_for_selector("#many-status [role=status]")
    assert re.search(r"file \d of 3, page \d of \d", page.inner_text("#many-status"))
    page.wait_for_selector("#many-saved a")
    rows = page.inner_text("#many-table tbody").splitlines()
    assert [row.split()[:3] for row in rows[:3]] == [
        ["file.pdf", "1", "50%"], ["file.pdf", "2", "50%"], ["file.png", "1", "50%"]
    ]  # fmt: skip
    assert "broken.png is not an image or PDF that can be opened" in rows[3]
    assert "/" not in page.inner_text("#many-table")
    with page.expect_download() as found:
        page.click("#many-saved a")
    with zipfile.ZipFile(found.value.path()) as saved_files:
        assert sorted(saved_files.namelist()) == ["file.pdf.txt", "file.png.txt"]
    page.click("#read")
    page.click("#read-stop")
    page.wait_for_selector("#many-status .vt-stop")


def test_errors_are_sentences(fresh):
    """Each mistake gets one sentence, and the page goes on working."""
    fresh.click("#run")
    fresh.wait_for_selector("#status .vt-error")
    assert fresh.inner_text("#status p") == "Choose a picture or a PDF first."
    fresh.set_input_files("#file input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    fresh.wait_for_selector("#notice .vt-error")
    said = fresh.inner_text("#notice")
    assert said.endswith(".") and "a.png" in said and "\n" not in said and "/" not in said
    upload(fresh, saved(written("good")))
    fresh.wait_for_selector("#notice .vt-error", state="detached")
    run(fresh, "detect")
    before = picture_source(fresh)
    assert "ball" not in run(fresh, "ground", " ") and fresh.inner_text("#status p") == SENTENCE
    wait_picture(fresh, before)  # the boxes have gone, too
    run(fresh, "chat", "break")
    assert fresh.inner_text("#status p") == "The model could not answer: no memory left."
    assert "heard again" in run(fresh, "chat", "again")


def test_paste_drop_example(page, stub):
    """A pasted picture, one dropped beside the field, and an example that is clicked."""
    for event, field, width in (("paste", "clipboardData", 64), ("drop", "dataTransfer", 72)):
        before = picture_source(page)
        page.evaluate(PASTE, [event, field, width])
        wait_picture(page, before)
        assert picture(page).shape == (20, width, 3)
    before = picture_source(page)
    page.click("#examples button >> nth=4")
    wait_picture(page, before)
    page.wait_for_selector("#answer .vt-text:has-text('heard the hat')")
    assert stub.asked[-1][1:3] == ("ground", "the hat") and page.is_checked("#task input[value=ground]")


def test_wrong_values(page, demo, capfd):
    """What no button sends gets a sentence, and the log no traceback."""
    numbers = page.evaluate("Object.fromEntries(gradio_config.dependencies.map(row => [row.api_name, row.id]))")
    for event, values in (("on_run", [5, None, ""]), ("on_run", [["ocr"], {}, []]), ("on_page", ["x"]),
                          ("on_page", [[1]]), ("on_file", ["/etc/passwd"]), ("on_task", [7])):  # fmt: skip
        said = sent(page, demo.address, numbers[event], [None, *values] if event != "on_task" else values)
        assert not said["success"] and "\n" not in said["output"]["error"] and said["output"]["error"], event
    for event, values in (("on_run", ["chat", None, None]), ("on_page", [None]), ("on_task", [None])):
        assert sent(page, demo.address, numbers[event], [None, *values] if event != "on_task" else values)["success"]
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 900, "light"), (390, 844, "dark")])
def test_geometry(browser, demo, width, height, scheme):
    """Nothing stands on something else, sticks out or is cut off, and the page keeps its width."""
    for page in visit(browser, demo.address, width, height, scheme):
        widths = {check_geometry(page, width)}
        upload(page, saved(written("a page of text", 800, 1000)))
        run(page, "vqa", "page")
        widths.add(check_geometry(page, width))
        run(page, "chat", "page")
        widths.add(check_geometry(page, width))
        upload(page, saved(Image.effect_noise((900, 600), 80)))
        run(page, "detect")
        widths.add(check_geometry(page, width))
        run(page, "ground")
        page.set_input_files("#file input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
        page.wait_for_selector("#notice .vt-error")
        widths.add(check_geometry(page, width))
        assert len(widths) == 1
        below = page.locator("#answers").bounding_box()["y"] - sum(
            page.locator("#picture").bounding_box()[side] for side in ("y", "height")
        )
        assert width > 720 or 0 <= below < 40
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == (scheme == "dark")


@pytest.mark.slow
def test_embedded_model(browser, tmp_path):
    """``python demo/app.py``: the words of a PNG and of a PDF; a caption, a box and an answer about the photographs."""
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
                words = re.findall(r"ocrx_word[^>]*>([^<]+)<", kept(page, ".hocr"))
                assert " ".join(words).split() == read.split()
                links = [page.locator(f"#status a:text-is('{kind}')") for kind in (".pdf", ".xml", ".html")]
                assert [link.count() for link in links] == [1, 1, 1]
            before = picture_source(page)
            (line,) = parse_spots(run(page, "spot", timeout=40000)).lines
            assert character_error_rate([line.label], [truth]) <= 0.2 and line.xyxy[2] - line.xyxy[0] > 300
            wait_picture(page, before)
            page.click("#examples button:has-text('Describe')")
            page.wait_for_selector("#answer .vt-text:has-text('bird')", timeout=40000)
            before = picture_source(page)
            page.click("#examples button:has-text('Find the hat')")
            page.wait_for_selector("#answer table", timeout=40000)
            wait_picture(page, before)
            left, top, right, bottom = [int(page.inner_text(f"#answer td >> nth={number}")) for number in range(1, 5)]
            assert 60 < left < 200 < 260 < right < 380 and top < 80 and 90 < bottom < 220  # of 512 pixels
            assert (picture(page)[:, :, 0].astype(int) - picture(page)[:, :, 1] > 100).any()  # the box, in red
            page.click("#examples button:has-text('Ask')")
            page.wait_for_selector("#answer .vt-text:has-text('1')", timeout=40000)
            page.wait_for_selector("#status p:has-text('confidence')", timeout=40000)  # once the answer has ended
