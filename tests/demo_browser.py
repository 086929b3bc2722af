"""What the tests of the demo do in a browser, and a reader that answers at once."""

import io
import json
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from varytoy.data.documents import Page
from varytoy.inference.many import inputs_of, read_many
from varytoy.inference.output import OutputFolder
from varytoy.tasks import Answer, Region

ATTACK = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
ARGS = (
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run",
    "--disable-sync", "--disable-gpu", "--disable-dev-shm-usage",
)  # fmt: skip
PARAGRAPH = (
    "The baker opened the shop at five, as on every morning of the year,\nand found a letter under the door that held"
    " no name and only one line\nof writing; by noon the whole street had read it."
)
ADDRESS = "Mr. A. Baker\n12 Harbour Street\nSeaton"
SENTENCE = "“Find one thing” needs a phrase that names the object: type it in the box."


class Stub:
    """Answers like a reader, at once, and remembers what it was asked."""

    name = "stub <b>model</b>"

    def __init__(self):
        self.asked: list[tuple] = []
        self.place: list[float] | None = None

    def ask(self, image, task="ocr", argument="", history=(), show=None, cancel=None, progress=None, place=None, **_):
        self.place = place
        image = image.image if isinstance(image, Page) else image
        self.asked.append((image.size, task, argument, list(history)))
        if task == "ocr":
            return self._slowly(image, show, cancel, progress)
        time.sleep(0.15)
        if task == "markdown":
            text = f"# Title\n\n- first {ATTACK}\n\n![shot](http://example.com/a.png) [site](http://example.com)"
            return Answer(text, markup=text, stop_reason="loop")
        if argument == "page":
            text = "\n\n".join([PARAGRAPH] * 14 + [ADDRESS])
            return Answer(text, markup=text if task == "vqa" else None)
        if task == "detect":
            return Answer("ball: [100, 100, 500, 500];", [Region((40, 30, 200, 150), "ball")], confidence=0.9)
        if argument == "break":
            raise RuntimeError("no memory left\nat line 3")
        return Answer(f"heard {argument} {ATTACK}", stop_reason="length" if argument == "long" else "end")

    def task_for(self, image):
        return "ocr"

    def read_many(self, sources, out, output, max_new_tokens):
        folder = OutputFolder(out, output, {"model": self.name})
        for page in read_many(self, inputs_of(sources), together=1, finished=folder.begin):
            folder.add(page)
            yield page
        folder.close()

    def _slowly(self, image, show, cancel, progress):
        said = f"width {image.width}"
        for number in range(400 if image.width == 333 else 6):
            said += f" word{number}"
            if show:
                show(said)
            if progress:
                progress(7, 24)
            if cancel.wait(0.12):
                return Answer(said, stop_reason="cancelled")
        words = [Region((20, 20 + 30 * n, 200, 44 + 30 * n), text=f"block {n}", score=0.9) for n in range(2)]
        return Answer(said, words, confidence=0.5)


def visit(browser, address, width: int = 1280, height: int = 900, scheme: str = "light"):
    """A page on the demo; no request may leave this machine."""
    opened = browser.new_page()
    opened.set_viewport_size({"width": width, "height": height})
    opened.emulate_media(color_scheme=scheme)
    opened.set_default_timeout(30000)
    requests = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(address)
    loaded(opened)
    yield opened
    outside = [url for url in requests if not re.match(r"(https?|ws)://127\.0\.0\.1[:/]|(data|blob):", url)]
    assert len(requests) > 5 and not outside
    opened.close()


def reloaded(page):
    page.reload()
    loaded(page)
    return page


def loaded(page) -> None:
    page.wait_for_selector("#file input[type=file]", state="attached")
    page.wait_for_selector("#answer .vt-empty")
    page.wait_for_selector("#examples img >> nth=-1")


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


def kept(page, suffix: str) -> str:
    """What is saved by the link of that name."""
    with page.expect_download() as found:
        page.click(f"#status a:text-is('{suffix}')")
    assert found.value.suggested_filename == "file" + suffix
    return Path(found.value.path()).read_text(encoding="utf-8")


def sent(page, address: str, number: int, values: list) -> dict:
    """The last message that comes when ``values`` are sent to an event."""
    name = str(random.random())
    body = {"data": values, "fn_index": number, "session_hash": name}
    page.request.post(
        f"{address}gradio_api/queue/join", data=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    rows = page.request.get(f"{address}gradio_api/queue/data?session_hash={name}").text().splitlines()
    messages = [json.loads(row[5:]) for row in rows if row.startswith("data:")]
    return next(row for row in messages if row["msg"] == "process_completed")


def check_geometry(page, width: int) -> int:
    """The width of the page's content."""
    page.wait_for_timeout(150)  # layout settles
    found = page.evaluate(BOXES)
    assert found["scroll"] <= found["client"] <= width
    boxes = found["boxes"]
    assert len(boxes) > 18
    for number, (name, x0, y0, x1, y1, cut, _) in enumerate(boxes):
        assert not cut, f"{name} is cut off"
        assert x0 >= 0 and x1 <= width, f"{name} sticks out"
        for other, a0, b0, a1, b1, _, inside in boxes[:number]:
            apart = x1 <= a0 + 1 or a1 <= x0 + 1 or y1 <= b0 + 1 or b1 <= y0 + 1
            assert apart or number in inside, f"{name} stands on {other}"
    return found["main"]


# [name, x0, y0, x1, y1, is it cut off, numbers of the boxes in it or around it]; as high as what is seen of it.
BOXES = """() => {
  const chosen = ".vt-head h1, .vt-model, #file, #notice p, #picture, #pager, #task label, #warning p, #prompt, #run,"
    + "#answers, #answer, #answer .vt-empty, #status p, #status a, #turns, #forget, .vt-examples, #examples button";
  const seen = [...document.querySelectorAll(chosen)].filter(element => element.getClientRects().length);
  return {
    boxes: seen.map(element => {
      const box = element.getBoundingClientRect(), style = getComputedStyle(element);
      const spills = style.overflowY === "visible", scrolls = ["auto", "scroll"].includes(style.overflowY);
      const high = spills ? Math.max(box.height, element.scrollHeight) : box.height;
      const cut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0 && style.display !== "inline"
        || !spills && !scrolls && element.scrollHeight > element.clientHeight + 1;
      const near = seen.flatMap((other, number) => other.contains(element) || element.contains(other) ? [number] : []);
      return [`${element.id || element.className} ${element.innerText.slice(0, 20)}`, box.x, box.y + scrollY,
        box.x + box.width, box.y + scrollY + high, cut, near];
    }),
    main: document.querySelector("main").clientWidth,
    scroll: document.documentElement.scrollWidth, client: document.documentElement.clientWidth,
  };
}"""


PASTE = """async ([kind, field, width]) => {
  const canvas = document.createElement("canvas"); canvas.width = width; canvas.height = 20;
  const blob = await new Promise(done => canvas.toBlob(done));
  const data = new DataTransfer(); data.items.add(new File([blob], "image.png", { type: "image/png" }));
  const event = new Event(kind, { bubbles: true, cancelable: true });
  Object.defineProperty(event, field, { value: data });
  document.querySelector("#answer").dispatchEvent(event);
}"""


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


def check_part(page, stub) -> None:
    """The reader gets it in pixels of the file; a click takes it away, and so does another picture."""
    upload(page, saved(Image.new("RGB", (2000, 1000), "white")))
    box = page.locator("#picture img").bounding_box()
    shown = min(box["width"] / 2000, box["height"] / 1000)  # pixels of the screen for one of the file
    left, top = box["x"] + (box["width"] - 2000 * shown) / 2, box["y"] + (box["height"] - 1000 * shown) / 2

    def draw(x1, y1, x2, y2):
        page.mouse.move(left + x1 * shown, top + y1 * shown)
        page.mouse.down()
        page.mouse.move(left + x2 * shown, top + y2 * shown, steps=3)
        page.mouse.up()

    draw(1500, 800, 500, 250)  # from the lower right
    frame = page.locator(".vt-part").bounding_box()
    assert abs(frame["x"] - left - 500 * shown) < 6 and abs(frame["width"] - 1000 * shown) < 10
    run(page, "markdown")
    assert stub.place == pytest.approx([500, 250, 1500, 800], abs=12)
    assert page.locator(".vt-part").count() == 1
    page.mouse.click(left + 50, top + 50)
    assert page.locator(".vt-part").count() == 0
    run(page, "markdown")
    assert stub.place is None
    draw(100, 100, 400, 400)
    upload(page, saved(Image.new("RGB", (500, 500), "white")))
    page.wait_for_function("!document.querySelector('.vt-part')")
    run(page, "markdown")
    assert stub.place is None
