"""The server, asked by OpenAI's own client and by plain HTTP."""

import base64
import io
import json
import threading
import time

import httpx
import openai
import pytest
import uvicorn
from conftest import FakeEngine, photograph
from PIL import Image, ImageDraw, ImageFont

from varytoy.data.answer import Answer
from varytoy.inference.reader import Reader
from varytoy.processing.processor import VaryProcessor
from varytoy.serving.app import Settings, create_app


def line_of_text(text: str = "Reading is quick") -> Image.Image:
    image = Image.new("RGB", (420, 60), "white")
    ImageDraw.Draw(image).text((20, 15), text, "black", font=ImageFont.load_default(size=24))
    return image


def uri(image: Image.Image, kind: str = "png") -> str:
    data = io.BytesIO()
    image.save(data, kind)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def message(text: str, *images: Image.Image) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": uri(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


class Running:
    """The application on a port of its own, in a thread."""

    def __init__(self, reader: Reader, **settings):
        config = uvicorn.Config(create_app(reader, Settings(**settings)), port=0, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    def __exit__(self, *error) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture(scope="module")
def nano():
    with Running(Reader.from_pretrained("nano", "cpu").shared()) as url:
        yield url


@pytest.fixture(scope="module")
def client(nano):
    return openai.OpenAI(base_url=nano, api_key="none", max_retries=0)


def fake(answer, prompts: dict | None = None) -> Reader:
    processor = VaryProcessor.preset("nano")
    processor.prompts = prompts or {}
    return Reader(FakeEngine(processor, answer), "fake")


def test_openais_client_reads_and_streams(client):
    assert [model.id for model in client.models.list()] == ["vary-nano"]
    asked = {"model": "any", "messages": [message("OCR this image.", line_of_text())]}
    answer = client.chat.completions.create(**asked)
    choice, usage = answer.choices[0], answer.usage
    assert choice.message.content == "Reading is quick" and choice.finish_reason == "stop"
    assert usage.completion_tokens > 10 and usage.prompt_tokens > 20
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == "Reading is quick" and chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == usage and len({chunk.id for chunk in chunks}) == 1
    short = client.chat.completions.create(**asked, max_tokens=4).choices[0]
    assert short.finish_reason == "length" and "Reading is quick".startswith(short.message.content)
    cut = client.chat.completions.create(**asked, stop=[" is"], max_completion_tokens=64000).choices[0]
    assert (cut.message.content, cut.finish_reason) == ("Reading", "stop")


def test_a_place_in_gots_words_is_read_alone(client):
    two = Image.new("RGB", (500, 200), "white")
    for y, text in ((0, "Reading is quick"), (100, "Below is more")):
        two.paste(line_of_text(text), (0, y))
    ImageDraw.Draw(two).rectangle((2, 102, 480, 198), outline=(230, 20, 20), width=3)
    for place, text in (("[0, 0, 1000, 500] ", "Reading is quick"), ("[red] ", "Below is more")):
        asked = [message(f"{place}OCR: ", two)]
        assert client.chat.completions.create(model="", messages=asked).choices[0].message.content == text
    with pytest.raises(openai.BadRequestError, match="no blue frame"):
        client.chat.completions.create(model="", messages=[message("[blue] OCR: ", two)])


def test_many_clients_at_once_get_their_own_answers(client):
    words = [f"Number {number} of the lot" for number in range(6)]
    found: dict[str, str] = {}

    def ask(text: str) -> None:
        asked = [message("Read the text", line_of_text(text))]
        found[text] = client.chat.completions.create(model="", messages=asked).choices[0].message.content

    threads = [threading.Thread(target=ask, args=(text,)) for text in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {text: text for text in words}


def test_the_prompt_or_the_picture_chooses_the_task():
    engine_says = []

    def answer(request) -> Answer:
        engine_says.append((request.view, request.messages[-1]["content"].replace("<image>", "").strip()))
        return Answer("x")

    trained = {"ocr": "OCR this image.", "markdown": "Markdown, please.", "caption": "", "vqa": "", "ground": ""}
    with Running(fake(answer, trained)) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        for text, image in (
            ("Please read this", line_of_text()),
            ("Convert this page to markdown.", line_of_text()),
            ("hello", photograph()),
            ("How many dogs are there?", photograph()),
            ("Is it a cat?\nSay yes or no.", photograph()),
            ("What is it?\nAnswer the question using a single word or phrase.", photograph()),
        ):
            client.chat.completions.create(model="", messages=[message(text, image)])
    views, prompts = zip(*dict.fromkeys(engine_says), strict=True)  # a line is asked about again to see which way is up
    assert views == ("text", "text", "picture", "picture", "picture", "picture")
    assert prompts[:2] == ("OCR this image.", "Markdown, please.") and "dogs" in prompts[3] and "cat" in prompts[4]
    assert prompts[5] == "What is it? Answer using a single word or phrase."


def image_at(url) -> dict:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"messages": []}, "must end with"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "no image"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "role 'robot'"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        (image_at(3), "no url"),
        (image_at({"url": "http://a/b"}), "data URI"),
        (image_at({"url": "data:a;base64,@"}), "base64"),
        (image_at("data:a;base64,YWJj"), "the file is not"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [message("x", line_of_text())], "n": 2}, "n: "),
        ({}, "messages"),
    ],
)
def test_a_wrong_request_gets_one_sentence(nano, body, says):
    reply = httpx.post(f"{nano}/chat/completions", json=body)
    error = reply.json()["error"]
    assert reply.status_code == 400 and says in error["message"] and "\n" not in error["message"]


def test_keys_queues_time_and_who_leaves():
    free, cancelled = threading.Event(), []

    class Slow(FakeEngine):
        def generate(self, requests, show=None, cancel=None):
            while not free.is_set() and not cancel.is_set():
                time.sleep(0.02)
            cancelled.append(cancel.is_set())
            return [Answer("x", tokens=1)]

    reader = Reader(Slow(VaryProcessor.preset("nano"), None), "slow")
    body = {"messages": [message("OCR this image.", line_of_text())]}
    with Running(reader, api_key="secret", together=1, queue=1, timeout=1.5) as url:
        assert httpx.get(f"{url}/models").status_code == 401
        assert (
            httpx.post(f"{url}/chat/completions", json=body, headers={"Authorization": "Bearer no"}).status_code == 401
        )
        headers = {"Authorization": "Bearer secret"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/chat/completions", json=body, headers=headers, timeout=0.4)
        while not cancelled:
            time.sleep(0.02)
        assert all(cancelled)
        replies: list[httpx.Response] = []
        ask = lambda: replies.append(httpx.post(f"{url}/chat/completions", json=body, headers=headers))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [reply for reply in replies if reply.status_code == 429]
        assert len(refused) == 1 and refused[0].headers["Retry-After"] == "5"
        assert sorted(reply.status_code for reply in replies)[-1] == 504
        free.set()
        assert httpx.post(f"{url}/chat/completions", json=body, headers=headers).json()["choices"][0]["index"] == 0
        root = url.removesuffix("/v1")
        assert httpx.get(f"{root}/health").json() == {"status": "ok", "running": 0}
        assert 'varytoy_requests_total{status="429"} 1.0' in httpx.get(f"{root}/metrics").text


def test_a_stream_whose_answer_fails_says_so():
    def answer(request) -> Answer:
        raise RuntimeError("out of memory")

    body = {"messages": [message("OCR this image.", line_of_text())], "stream": True}
    with Running(fake(answer)) as url, httpx.stream("POST", f"{url}/chat/completions", json=body) as reply:
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert json.loads(lines[-2])["error"]["message"] == "out of memory" and lines[-1] == "[DONE]"
