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

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from varytoy.data.answer import Answer
from varytoy.errors import first_line
from varytoy.inference.reader import Reader
from varytoy.serving.chat import ChatRequest, Question, RequestError, answer, content, read_question

_HELD = 200
"""Characters that a stream holds back: a page of a few words may be read again in another orientation."""
_POLL = 0.2
"""Seconds between two looks whether the client is still there."""


@dataclass(frozen=True)
class Settings:
    """Limits of a server.

    Attributes:
        api_key: asked of clients; empty for none.
        together: requests that are worked on at once.
        queue: requests that may wait besides; more are refused with 429.
        timeout: seconds for one request.
        max_bytes: of one image.
        max_tokens: the longest answer to one image or block.
    """

    api_key: str = ""
    together: int = 8
    queue: int = 64
    timeout: float = 600.0
    max_bytes: int = 50 * 2**20
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
    """A question in progress; ``text``: the answer so far, ``cancel`` stops it, ``status``: what the client gets."""

    question: Question
    most: int
    text: str = ""
    status: int = 200
    cancel: threading.Event = field(default_factory=threading.Event)

    def run(self, reader: Reader) -> Answer:
        show = self._show if len(self.question.images) == 1 and self.question.task not in ("detect", "ground") else None
        return answer(reader, self.question, max_new_tokens=self.most, show=show, cancel=self.cancel)

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
    gate, started = _Gate(settings.together + settings.queue), int(time.time())
    app.exception_handler(HTTPException)(_error)
    app.exception_handler(RequestValidationError)(_not_valid)

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

    @app.post("/v1/chat/completions", response_model=None)
    @app.post("/chat/completions", response_model=None)
    async def complete(request: Request, body: ChatRequest) -> dict | StreamingResponse:
        check_key(request)
        if (body.n or 1) != 1:
            raise HTTPException(400, "n: a request has one answer; send it again for more")
        begun, loop = gate.enter(), asyncio.get_running_loop()
        try:
            question = await loop.run_in_executor(pool, read_question, reader, body.messages, settings.max_bytes)
        except Exception as error:
            wrong = isinstance(error, ValueError)
            gate.leave(begun, 400 if wrong else 500)
            if not wrong:
                raise
            raise HTTPException(400, first_line(error)) from error
        job = _Job(question, min(body.most or settings.max_tokens, settings.max_tokens))
        work = loop.run_in_executor(pool, job.run, reader)
        work.add_done_callback(lambda done: gate.leave(begun, *job.outcome(done)))
        head = _head(body.model or reader.name)
        if body.stream:
            return StreamingResponse(_events(work, job, body, head, settings.timeout), media_type="text/event-stream")
        try:
            return _completion(await _result(request, work, job, settings.timeout), body, head)
        except TimeoutError as error:
            job.status = 504
            raise HTTPException(504, f"no answer after {settings.timeout:.0f} s: send less in one request") from error
        except ValueError as error:
            raise HTTPException(400, first_line(error)) from error

    return app


async def _result(request: Request, work: asyncio.Future, job: _Job, timeout: float) -> Answer:
    """The answer; it is cancelled when the client leaves. Raises TimeoutError after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=_POLL)
            if not work.done() and await request.is_disconnected():
                job.cancel.set()
            if not work.done() and time.monotonic() > end:
                raise TimeoutError
        return work.result()
    finally:
        job.cancel.set()


async def _events(work: asyncio.Future, job: _Job, body: ChatRequest, head: dict, timeout: float) -> AsyncIterator[str]:
    """Server-sent events: the text as it grows, how it finished, and ``[DONE]``."""

    def event(delta: dict, reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"

    sent, end = "", time.monotonic() + timeout
    try:
        yield event({"role": "assistant", "content": ""})
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


def _completion(found: Answer, body: ChatRequest, head: dict) -> dict:
    text, reason = content(found, body.stops)
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(found)}


async def _error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    body = {"error": {"message": error.detail, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, error.status_code, error.headers)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"][1:])) or "the body"
    return await _error(request, HTTPException(400, f"{place}: {first['msg']}"))
