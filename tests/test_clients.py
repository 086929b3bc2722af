"""Requests as the programs that people use send them, and images that the server fetches."""

import base64
import http.server
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from conftest import photograph
from test_documents import make_pdf
from test_serving import Running, fake, line_of_text, uri

from varytoy.data.answer import Answer
from varytoy.inference.reader import Reader
from varytoy.serving import fetch as fetching
from varytoy.serving.fetch import FetchError, fetch, is_public


@pytest.fixture(scope="module")
def nano():
    reader = Reader.from_pretrained("nano", "cpu").shared()
    with Running(reader, max_pages=3, max_bytes=2**20) as url:
        yield url
    reader.close()


def image_part(image, kind: str = "png") -> dict:
    return {"type": "image_url", "image_url": {"url": uri(image, kind)}}


def asked(content: list[dict]) -> dict:
    return {"messages": [{"role": "user", "content": content}]}


def test_docling_sends_rgba_first_and_no_model(nano):
    image = line_of_text().convert("RGBA")
    text = {"type": "text", "text": "Convert this page to docling."}
    body = {**asked([image_part(image), text]), "temperature": 0, "stream": True}
    with httpx.stream("POST", f"{nano}/chat/completions", json=body, timeout=60) as reply:
        events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    tags = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert re.fullmatch(r"<doctag><text>(<loc_\d{1,3}>){4}Reading is quick</text>\n</doctag>", tags)
    body |= {"model": "granite-docling", "max_tokens": 8192, "stop": ["</doctag>", "<|end_of_text|>"]}
    del body["stream"]
    whole = httpx.post(f"{nano}/chat/completions", json=body, timeout=60).json()
    (choice,) = whole["choices"]
    assert isinstance(whole["id"], str) and isinstance(whole["created"], int) and choice["index"] == 0
    assert choice["message"]["role"] == "assistant" and choice["logprobs"] is None
    assert choice["message"]["content"] == tags.removesuffix("</doctag>")
    shown = asked([image_part(photograph()), text])
    (choice,) = httpx.post(f"{nano}/chat/completions", json=shown, timeout=60).json()["choices"]
    assert choice["message"]["content"].startswith("<doctag><text><loc_0><loc_0><loc_500><loc_500>A ")
    assert set(whole["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}


def test_olmocr_gets_its_front_matter(nano):
    """Its worker polls ``/models``, sends the text before the image, and parses YAML before the page's text."""
    assert httpx.get(f"{nano}/models").status_code == 200
    prompt = (
        "Attached is a page of a document. Return its text as markdown, with a front matter section on top for "
        "primary_language, is_rotation_valid, rotation_correction, is_table and is_diagram."
    )
    content = [{"type": "text", "text": prompt}, image_part(line_of_text())]
    body = {
        "model": "olmocr",
        "max_tokens": 8000,
        "temperature": 0.1,
        "messages": [{"role": "user", "content": content}],
    }
    (choice,) = httpx.post(f"{nano}/chat/completions", json=body, timeout=60).json()["choices"]
    begin, matter, text = choice["message"]["content"].split("---\n")
    fields = dict(line.split(": ") for line in matter.splitlines())
    assert begin == "" and text == "Reading is quick" and choice["finish_reason"] == "stop"
    assert fields["is_rotation_valid"] == "True" and fields["rotation_correction"] == "0" and len(fields) == 5


def test_lmms_eval_and_vlmevalkit_send_keys_of_their_own(nano):
    client = openai.OpenAI(base_url=nano, api_key="none", max_retries=0)
    content = [image_part(line_of_text()), {"type": "text", "text": "Read the text"}]
    known = {"model": "vary", "messages": [{"role": "user", "content": content}], "max_tokens": 32768, "temperature": 0}
    other = {
        "repetition_penalty": 1.1,
        "top_k": 1,
        "do_sample": False,
        "img_detail": "high",
        "chat_template_kwargs": {},
    }
    found = client.chat.completions.create(**known, extra_body=other, seed=3, top_p=0.1)
    assert found.choices[0].message.content == "Reading is quick"


def test_marker_sends_webp_and_a_schema(nano):
    content = [image_part(line_of_text(), "webp"), {"type": "text", "text": "Read this image."}]
    body = {
        "messages": [{"role": "user", "content": content}],
        "response_format": {"type": "json_object"},
        "timeout": 30,
    }
    reply = httpx.post(f"{nano}/chat/completions", json=body, timeout=60)
    assert reply.json()["choices"][0]["message"]["content"] == "Reading is quick"


def test_open_webui_sends_a_file_and_gets_its_text(nano):
    root = nano.removesuffix("/v1")
    headers = {"X-Filename": "a%20book.pdf", "Content-Type": "application/pdf", "Authorization": "Bearer x"}
    found = httpx.put(f"{root}/process", content=make_pdf("First page", "Second"), headers=headers, timeout=60).json()
    assert found["page_content"] == "First page\n\nSecond"
    assert found["metadata"] == {"source": "a book.pdf", "pages": 2, "model": "vary-nano"}
    for data, status, words in (
        (make_pdf(" "), 422, "no text"),
        (b"nothing", 400, "the file"),
        (make_pdf(*"1234"), 400, "4 pages"),
        (b"x" * (2**20 + 1), 413, "over 1 MiB"),
    ):
        reply = httpx.put(f"{root}/process", content=data, headers=headers, timeout=60)
        assert (reply.status_code, words in reply.json()["error"]["message"]) == (status, True), reply.text
    assert httpx.get(f"{root}/health").json()["running"] == 0


def test_a_photograph_for_open_webui_is_described():
    seen = []
    with Running(
        fake(lambda request: seen.append(request.view) or Answer("A man."), {"ocr": "", "caption": ""})
    ) as url:
        data = base64.b64decode(uri(photograph(), "jpeg").partition(",")[2])
        reply = httpx.put(f"{url}/process", content=data)
    assert reply.json()["page_content"] == "A man." and seen == ["picture"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *(
            (each, False)
            for each in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "0.0.0.0")
        ),
        *((each, False) for each in ("100.64.0.1", "224.0.0.1", "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1")),
        *((each, False) for each in ("64:ff9b::7f00:1", "2002:7f00:1::", "::")),
    ],
)
def test_addresses_that_are_public(address, public):
    assert is_public(address) == public


@pytest.fixture
def web():
    """A web server on this machine; path -> (status, headers, body)."""
    pages: dict[str, tuple[int, dict, bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield pages, server.server_address[1]
    server.shutdown()


def test_images_are_fetched_from_public_addresses_only(web, monkeypatch):
    pages, port = web
    pages["/a.png"] = (200, {}, b"image")
    pages["/far"] = (302, {"Location": f"http://elsewhere.test:{port}/a.png"}, b"")
    pages["/near"] = (302, {"Location": "/a.png"}, b"")
    pages["/round"] = (302, {"Location": "/round"}, b"")
    pages["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    pages["/large"] = (200, {}, b"x" * 2000)
    with pytest.raises(FetchError, match="not a public address"):
        fetch(f"http://127.0.0.1:{port}/a.png", 1000)
    with pytest.raises(FetchError, match="not a public address"):
        fetch(f"http://localhost:{port}/a.png", 1000)
    with pytest.raises(FetchError, match="must begin with"):
        fetch("ftp://a.test/b", 1000)
    # A public name whose address is stood in for by this machine's; it would resolve to a private one the next time.
    asked = []

    def resolve(host, port, **options):
        asked.append(host)
        private = host == "elsewhere.test" or asked.count("once.test") > 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1" if private else "8.8.8.8", port))]

    reached = []

    def connected(address, timeout):
        reached.append(address[0])
        stream = socket.socket()
        stream.connect(("127.0.0.1", address[1]))
        return stream

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetching.socket, "create_connection", connected)
    assert fetch(f"http://once.test:{port}/a.png", 1000) == b"image" and asked == ["once.test"]
    assert fetch(f"http://web.test:{port}/near", 1000) == b"image"
    for path, sentence in (
        ("far", "elsewhere.test is not a public"),
        ("round", "redirects more than"),
        ("file", "must begin with"),
        ("large", "over 0 MiB"),
        ("none", "answers 404"),
    ):
        with pytest.raises(FetchError, match=sentence):
            fetch(f"http://web.test:{port}/{path}", 1000)
    assert set(reached) == {"8.8.8.8"}


def test_a_server_fetches_only_if_it_is_allowed(monkeypatch):
    monkeypatch.setattr("varytoy.serving.chat.fetch", lambda url, most: b"not an image" + url.encode())
    part = {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}
    body = asked([part])
    said = []
    for allowed in (False, True):
        with Running(fake(lambda request: Answer("x")), allow_urls=allowed) as url:
            said.append(httpx.post(f"{url}/chat/completions", json=body).json()["error"]["message"])
    assert "fetches none" in said[0] and "the file" in said[1]


@pytest.mark.slow
def test_64_clients_at_once_lose_no_answer(nano):
    """Some wait longer than the queue is long: they are told to come again, and do."""
    words, again = [f"Number {number} of the lot" for number in range(64)], []

    def ask(text: str) -> str:
        content = [image_part(line_of_text(text)), {"type": "text", "text": "Read the text"}]
        while True:
            reply = httpx.post(f"{nano}/chat/completions", json=asked(content), timeout=300)
            if reply.status_code == 200:
                return reply.json()["choices"][0]["message"]["content"]
            assert reply.status_code == 429 and int(reply.headers["Retry-After"]) > 0
            again.append(text)
            time.sleep(0.3)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, words))
    alone = Reader.from_pretrained("nano", "cpu")
    assert answers == [alone.ocr(line_of_text(text)).text for text in words]  # misread letters included
    assert httpx.get(f"{nano.removesuffix('/v1')}/health").json()["running"] == 0
