"""The server: OpenAI's ``/v1/models`` and ``/v1/chat/completions``, ``/health`` and ``/metrics``."""

import asyncio
import hmac
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import unquote

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from varytoy.data.answer import Answer
from varytoy.errors import first_line
from varytoy.inference.reader import Reader
from varytoy.serving.chat import (
    MAX_IMAGES,
    ChatRequest,
    ImageLimits,
    Question,
    RequestError,
    answer,
    content,
    front_matter,
    read_document,
    read_question,
)

_HELD = 200
"""Characters that a stream holds back: a page of a few words may be read again in another orientation."""
_POLL = 0.2
"""Seconds between two looks whether the client is still there."""
_TEXT = 2**20
"""Bytes of a chat request besides its images."""
_CHAT = {"requestBody": {"content": {"application/json": {"schema": ChatRequest.model_json_schema()}}}}
"""For the API's description: the body is read here, so that its size is limited and JSON has one parser."""


@dataclass(frozen=True)
class Settings:
    """Limits of a server.

    Attributes:
        api_key: asked of clients; empty for none.
        together: requests that are worked on at once.
        queue: requests that may wait besides; more are refused with 429.
        timeout: seconds for one request.
        max_bytes: of one image or document.
        max_pages: of one document.
        allow_urls: whether images may be addresses of the public web, which the server then fetches.
        max_tokens: the longest answer to one image or block.
    """

    api_key: str = ""
    together: int = 8
    queue: int = 64
    timeout: float = 600.0
    max_bytes: int = 50 * 2**20
    max_pages: int = 100
    allow_urls: bool = False
    max_tokens: int = 1024


class _Gate:
    """Counts requests in progress, refuses what is too many, and keeps the metrics."""

    def __init__(self, most: int):
        self.most, self.running = most, 0
        self.registry = CollectorRegistry()
        self.requests = Counter("varytoy_requests", "Finished requests by status.", ["status"], registry=self.registry)
        self.tokens = Counter("varytoy_tokens", "Generated tokens.", registry=self.registry)
        self.seconds = Histogram("varytoy_seconds", "Seconds a request took.", registry=self.registry)
        Gauge("varytoy_running", "Requests in progress or waiting.", registry=self.registry).set_function(
            lambda: self.running
        )

    def enter(self) -> float:
        """The time at which a request begins. Raises HTTPException (429) if there are too many."""
        if self.running >= self.most:
            self.requests.labels(429).inc()
            raise HTTPException(429, f"{self.running} requests are waiting: try again later", {"Retry-After": "5"})
        self.running += 1
        return time.monotonic()

    def leave(self, begun: float, status: int, tokens: int = 0) -> None:
        self.running -= 1
        self.requests.labels(status).inc()
        self.tokens.inc(tokens)
        self.seconds.observe(time.monotonic() - begun)


@dataclass
class _Job:
    """A request in progress; ``text``: the answer so far, ``cancel`` stops it, ``status``: what the client gets."""

    most: int
    text: str = ""
    status: int = 200
    cancel: threading.Event = field(default_factory=threading.Event)

    def ask(self, reader: Reader, question: Question) -> Answer:
        show = self._show if question.streams else None
        return answer(reader, question, max_new_tokens=self.most, show=show, cancel=self.cancel)

    def read(self, reader: Reader, data: bytes, max_pages: int) -> Answer:
        return read_document(reader, data, max_pages, max_new_tokens=self.most, cancel=self.cancel)

    def outcome(self, work: asyncio.Future) -> tuple[int, int]:
        """(status, generated tokens) of the finished work."""
        error = work.exception()
        if error is not None:
            return 400 if isinstance(error, ValueError) else 500, 0
        return self.status, work.result().tokens

    def _show(self, text: str) -> None:
        self.text = text


def create_app(reader: Reader, settings: Settings | None = None) -> FastAPI:
    """The application; ``reader``'s engines must allow several threads (varytoy.inference.shared)."""
    settings = settings or Settings()
    app = FastAPI(title="varytoy")
    pool = ThreadPoolExecutor(settings.together, thread_name_prefix="varytoy-request")
    limits = ImageLimits(settings.max_bytes, settings.allow_urls)
    gate, started = _Gate(settings.together + settings.queue), int(time.time())
    app.exception_handler(AnyHTTPException)(_error)
    app.exception_handler(ValidationError)(_not_valid)
    app.exception_handler(Exception)(_failed)

    def check_key(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if settings.api_key and not hmac.compare_digest(given.encode(), settings.api_key.encode()):
            raise HTTPException(401, "the API key is missing or wrong: send it as Authorization: Bearer KEY")

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "running": gate.running}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(gate.registry))

    @app.get("/v1/models")
    @app.get("/models")
    async def models(request: Request) -> dict:
        check_key(request)
        row = {"id": reader.name, "object": "model", "created": started, "owned_by": "varytoy"}
        return {"object": "list", "data": [row]}

    @app.post("/v1/chat/completions", response_model=None, openapi_extra=_CHAT)
    @app.post("/chat/completions", response_model=None, openapi_extra=_CHAT)
    async def complete(request: Request) -> dict | StreamingResponse:
        check_key(request)
        most = MAX_IMAGES * settings.max_bytes * 4 // 3 + _TEXT  # base64 makes four bytes of three
        body = ChatRequest.model_validate_json(await _body(request, most, "request"))
        if (body.n or 1) != 1:
            raise HTTPException(400, "n: a request has one answer; send it again for more")
        begun, loop = gate.enter(), asyncio.get_running_loop()
        try:
            question = await loop.run_in_executor(pool, read_question, reader, body.messages, limits)
        except Exception as error:
            wrong = isinstance(error, ValueError)
            gate.leave(begun, 400 if wrong else 500)
            if not wrong:
                raise
            raise HTTPException(400, first_line(error)) from error
        job = _Job(min(body.most or settings.max_tokens, settings.max_tokens))
        work = loop.run_in_executor(pool, job.ask, reader, question)
        work.add_done_callback(lambda done: gate.leave(begun, *job.outcome(done)))
        head, start = _head(body.model or reader.name), front_matter(question)
        if body.stream:
            events = _events(work, job, body, head, settings.timeout, start)
            return StreamingResponse(events, media_type="text/event-stream")
        return _completion(await _result(request, work, job, settings.timeout), body, head, start)

    @app.put("/process")
    @app.put("/v1/process")
    async def process(request: Request) -> dict:
        """Open WebUI's external document loader: the bytes of a file in, its text out."""
        check_key(request)
        begun, loop, job = gate.enter(), asyncio.get_running_loop(), _Job(settings.max_tokens)
        try:
            data = await _body(request, settings.max_bytes, "document")
        except BaseException as error:
            gate.leave(begun, getattr(error, "status_code", 499))
            raise
        work = loop.run_in_executor(pool, job.read, reader, data, settings.max_pages)
        work.add_done_callback(lambda done: gate.leave(begun, *job.outcome(done)))
        found = await _result(request, work, job, settings.timeout)
        if not found.text.strip():
            raise HTTPException(422, found.error or "no text was found in the document")
        name = unquote(request.headers.get("x-filename", ""))
        metadata = {"source": name, "pages": max(len(found.pages), 1), "model": reader.name}
        return {"page_content": found.text, "metadata": metadata}

    return app


async def _body(request: Request, most: int, what: str) -> bytes:
    """Raises HTTPException (413) for a larger one, before it is all received."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, f"the {what} is over {most / 2**20:.0f} MiB: send a smaller one")
    return bytes(body)


async def _result(request: Request, work: asyncio.Future, job: _Job, timeout: float) -> Answer:
    """The answer; it is cancelled when the client leaves. Raises HTTPException: 504 after ``timeout`` seconds, 400 for
    a request that cannot be answered."""
    end = time.monotonic() + timeout
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=_POLL)
            if not work.done() and await request.is_disconnected():
                job.cancel.set()
            if not work.done() and time.monotonic() > end:
                job.status = 504
                raise HTTPException(504, f"no answer after {timeout:.0f} s: send less in one request")
        return work.result()
    except ValueError as error:
        raise HTTPException(400, first_line(error)) from error
    finally:
        job.cancel.set()


async def _events(
    work: asyncio.Future, job: _Job, body: ChatRequest, head: dict, timeout: float, start: str
) -> AsyncIterator[str]:
    """Server-sent events: ``start``, the text as it grows, how it finished, and ``[DONE]``."""

    def event(delta: dict, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"

    sent, end = "", time.monotonic() + timeout
    try:
        yield event({"role": "assistant", "content": start})
        while not work.done() and time.monotonic() < end:
            await asyncio.wait({work}, timeout=_POLL / 2)
            text = job.text
            if not body.stops and len(text) > max(_HELD, len(sent)) and text.startswith(sent):
                yield event({"content": text[len(sent) :]})
                sent = text
        if not work.done():
            raise TimeoutError(f"no answer after {timeout:.0f} s: send less in one request")
        found = work.result()
        text, reason = content(found, body.stops)
        if not text.startswith(sent):
            raise RequestError("the page was read again in another way: ask without stream")
        if text[len(sent) :]:
            yield event({"content": text[len(sent) :]})
        yield event({}, reason)
        if (body.stream_options or {}).get("include_usage"):
            usage = {**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(found)}
            yield f"data: {json.dumps(usage)}\n\n"
    except Exception as error:  # the response has begun: an event is all that can still be sent
        yield f"data: {json.dumps({'error': {'message': first_line(error), 'type': 'server_error'}})}\n\n"
    finally:
        job.cancel.set()
    yield "data: [DONE]\n\n"


def _head(model: str) -> dict:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def _usage(found: Answer) -> dict:
    counts = {"prompt_tokens": found.prompt_tokens, "completion_tokens": found.tokens}
    return {**counts, "total_tokens": sum(counts.values())}


def _completion(found: Answer, body: ChatRequest, head: dict, start: str) -> dict:
    text, reason = content(found, body.stops)
    message = {"role": "assistant", "content": start + text}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(found)}


async def _error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    body = {"error": {"message": error.detail, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, error.status_code, error.headers)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ValidationError)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or "the body"
    return await _error(request, HTTPException(400, f"{place}: {first['msg']}"))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """A fault of the server; its log has the traceback."""
    return await _error(request, HTTPException(500, first_line(error)))
