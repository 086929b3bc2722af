"""Bad requests to the server: each gets a status, one sentence in JSON and no traceback, in seconds."""

import base64
import functools
import io
import json
import socket
import string
import time
from unittest import mock

import pytest
from conftest import noise, tiny_config, tiny_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mutations import FUZZ, ODD
from starlette.testclient import TestClient
from test_documents import encoded, make_pdf

from varytoy.inference.engine import TransformersEngine
from varytoy.inference.reader import Reader
from varytoy.processing.processor import VaryProcessor
from varytoy.serving.app import Settings, create_app
from varytoy.serving.fetch import FetchError, fetch

SECONDS = 5
JSON = {"Content-Type": "application/json"}


@functools.cache
def client() -> TestClient:
    """The true reader of a tiny model, which says two tokens of nonsense."""
    processor = VaryProcessor.preset("nano")
    processor.image_processor.clip_size = 32
    reader = Reader(TransformersEngine(tiny_model(tiny_config()), processor), "tiny").shared()
    limits = Settings(max_bytes=2**16, max_pages=3, max_tokens=2, timeout=20)
    return TestClient(create_app(reader, limits), raise_server_exceptions=False)


def checked(method: str, path: str, **request) -> int:
    """The status. Whatever is wrong is one sentence in OpenAI's form, and no request stays counted."""
    begun = time.process_time()
    reply = client().request(method, path, **request)
    assert time.process_time() - begun < SECONDS
    assert "Traceback" not in reply.text and '", line ' not in reply.text
    if reply.headers["content-type"].startswith("text/event-stream"):
        *events, last = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
        assert last == "[DONE]" and all(
            "choices" in json.loads(event) or "error" in json.loads(event) for event in events
        )
    elif reply.status_code == 200:
        assert isinstance(reply.json(), dict)
    else:
        assert 400 <= reply.status_code < 500, reply.text
        said = reply.json()["error"]["message"]
        assert said.strip() and "\n" not in said and len(said) < 500
    assert client().get("/health").json()["running"] == 0
    return reply.status_code


# ---- strategies -----------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=()), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | WORDS | st.sampled_from(ODD)
WILD = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner), max_leaves=6)


def mostly(good: st.SearchStrategy) -> st.SearchStrategy:
    return st.integers(0, 9).flatmap(lambda number: WILD if number == 0 else good)


def uri_of(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


PICTURES = [uri_of(encoded(noise(40, 24), kind)) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF")]
URIS = st.sampled_from(PICTURES) | st.binary(max_size=60).map(uri_of) | WORDS.map("data:;base64,{}".format) | WORDS
URLS = mostly(URIS | st.fixed_dictionaries({"url": mostly(URIS)}, optional={"detail": WILD}))
TEXTS = WORDS | st.sampled_from(
    ("OCR this image.", "Where is {}?", "Detect [] in this image.", "what? ", "<image>", "as a table", "Front matter")
)
PARTS = st.fixed_dictionaries({"type": st.just("text"), "text": mostly(TEXTS)})
PARTS |= st.fixed_dictionaries({"type": st.just("image_url"), "image_url": URLS})
ROLES = st.sampled_from(("system", "developer", "user", "user", "assistant"))
CONTENTS = TEXTS | st.lists(mostly(PARTS), max_size=4)
MESSAGES = st.fixed_dictionaries({"role": mostly(ROLES), "content": mostly(CONTENTS)}, optional={"name": WILD})
ASKS = st.fixed_dictionaries(
    {
        "role": st.just("user"),
        "content": st.tuples(
            st.fixed_dictionaries({"type": st.just("image_url"), "image_url": st.sampled_from(PICTURES)}),
            st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}),
        ),
    }
)
BODIES = st.fixed_dictionaries(
    {"messages": mostly(st.tuples(st.lists(mostly(MESSAGES), max_size=4), ASKS).map(lambda two: [*two[0], two[1]]))},
    optional={
        "model": mostly(TEXTS),
        "max_tokens": mostly(st.integers(1)),
        "max_completion_tokens": mostly(st.integers(1)),
        "stop": mostly(st.lists(WORDS)),
        "stream": mostly(st.booleans()),
        "stream_options": mostly(st.fixed_dictionaries({"include_usage": WILD})),
        "n": mostly(st.just(1)),
        "temperature": WILD,
        "\ud800": WILD,
    },
)
PICTURE = {"type": "image_url", "image_url": {"url": PICTURES[0]}}
QUESTION = {"role": "user", "content": [PICTURE, {"type": "text", "text": "What is it? Give a short answer."}]}


def user(content) -> dict:
    return {"messages": [{"role": "user", "content": content}]}


# ---- tests ----------------------------------------------------------------------------------------------------------


@settings(max_examples=90, **FUZZ)
@given(body=BODIES)
@example(user(5))
@example(user(True))
@example({"messages": [QUESTION], "model": "\ud800"})
@example({"messages": [QUESTION], "model": "\udc00", "stream": True})
@example(user([PICTURE, {"type": "text", "text": "\ud800?"}]))
@example(user([{"type": "image_url", "image_url": "data:;base64,\u00e9"}]))
@example({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, QUESTION]})
@example(
    {"messages": [{"role": "assistant", "content": [PICTURE]}, {"role": "user", "content": "a? Give a short answer."}]}
)
def test_any_chat_gets_an_answer_or_a_sentence(body):
    checked("POST", "/v1/chat/completions", content=json.dumps(body).encode(), headers=JSON)


@settings(max_examples=60, **FUZZ)
@given(body=st.binary(max_size=80) | st.text(string.printable, max_size=80).map(str.encode))
@example(b"\xff\xfe")
@example(b'{"messages": "\xff"}')
@example(b"[" * 100_000)
@example(b'{"messages": [{"role": ' + b"[" * 900 + b"]" * 900 + b"}]}")
@example(b'{"messages": [], "max_tokens": ' + b"9" * 5000 + b"}")
@example(b'{"messages": [], "max_tokens": NaN, "n": 1e999}')
def test_any_bytes_as_a_chat_get_a_sentence(body):
    assert checked("POST", "/chat/completions", content=body, headers=JSON) == 400


def test_a_body_that_is_too_large_is_refused_before_it_is_all_received():
    sent = []

    def parts():
        for number in range(1000):
            sent.append(number)
            yield b" " * 2**16

    for path, method in (("/v1/chat/completions", "POST"), ("/process", "PUT")):
        assert checked(method, path, content=parts()) == 413


def test_an_image_with_two_thousand_turns_is_asked_in_seconds():
    turns = [{"role": ("user", "assistant")[number % 2], "content": "hello there you"} for number in range(2000)]
    last = {"role": "user", "content": "What is it? Give a short answer."}
    assert checked("POST", "/v1/chat/completions", json={"messages": [QUESTION, turns[1], *turns, last]}) == 200


def test_a_fault_of_the_server_is_one_sentence_too():
    with mock.patch.object(Reader, "ask", side_effect=RuntimeError("out of memory\nFile x")):
        for method, path, request in (
            ("POST", "/v1/chat/completions", {"json": {"messages": [QUESTION]}}),
            ("PUT", "/process", {"content": encoded(noise(40, 24), "PNG")}),
        ):
            reply = client().request(method, path, **request)
            assert reply.status_code == 500
            assert reply.json()["error"] == {
                "message": "out of memory",
                "type": "server_error",
                "param": None,
                "code": None,
            }


CLAIM = make_pdf("a").replace(b"/Count 1 ", b"/Count 1048570 ")
FILES = [encoded(noise(40, 24), "PNG"), encoded(noise(40, 24), "TIFF"), make_pdf("a"), make_pdf("a", "b"), CLAIM]


@settings(max_examples=60, **FUZZ)
@given(
    data=st.binary(max_size=80) | st.sampled_from(FILES),
    cut=st.integers(0, 400),
    name=st.binary(max_size=20) | st.none(),
)
@example(CLAIM, 0, None)
@example(FILES[0], 0, b"%ff%00\xff%ED%A0%80")
def test_any_file_gets_its_text_or_a_sentence(data, cut, name):
    headers = {} if name is None else {"X-Filename": name}
    assert checked("PUT", "/process", content=data[: len(data) - cut], headers=headers) in (200, 400, 422)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/models", "/v1/chat/completions", "/process", "/%00%ff"])
def test_other_paths_and_methods_get_a_sentence(method, path):
    checked(method, path)


class Wire:
    """A connection on which a server has said something."""

    def __init__(self, said: bytes):
        self.said = said

    def makefile(self, *modes) -> io.BytesIO:
        return io.BytesIO(self.said)

    def sendall(self, data: bytes) -> None:
        pass

    close = settimeout = lambda self, *given: None


HEAD = st.sampled_from(
    (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 302 Found\r\nLocation: ", b"HTTP/1.1 200\r\nContent-Length: ")
)
TAIL = st.sampled_from((b"", b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"))
ADDRESSES = WORDS.map("http://{}".format) | WORDS.map("http://example.org/{}".format) | WORDS


@settings(max_examples=150, **FUZZ)
@given(url=ADDRESSES, said=st.binary(max_size=60) | st.tuples(HEAD, st.binary(max_size=20), TAIL).map(b"".join))
@example("http://[", b"")
@example("http://example.org/", b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n")
@example("http://example.org/a b\n", b"")
def test_any_address_and_any_reply_are_bytes_or_a_fetch_error(url, said):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))]
    with (
        mock.patch.object(socket, "getaddrinfo", return_value=found),
        mock.patch.object(socket, "create_connection", side_effect=lambda *given, **options: Wire(said)),
    ):
        try:
            assert len(fetch(url, 1000)) <= 1000
        except FetchError as error:
            assert str(error)
