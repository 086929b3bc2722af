"""Engines for several callers at once: their requests share the batches of one model, or wait for each other."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from varytoy.data.answer import Answer
from varytoy.inference.batching import PROMPTS, BatchingEngine, Row, RowDecoder, texts
from varytoy.inference.engine import Engine, Request
from varytoy.inference.generate import PAUSE


@dataclass
class _Call:
    """One call of ``generate``: its rows in the order of the requests; ``waiting``: those that are not in the batch."""

    rows: list[Row] = field(default_factory=list)
    waiting: list[tuple[Row, Request]] = field(default_factory=list)
    error: Exception | None = None


class SharedEngine:
    """An engine for many threads. The model runs on a thread of its own; requests of all calls join one batch, each
    call in its turn: a long page does not keep a short question waiting. Not ``fair``: the oldest call first."""

    def __init__(self, engine: BatchingEngine, fair: bool = True):
        self.engine, self.processor, self.fair = engine, engine.processor, fair
        self._change = threading.Condition()
        self._calls: list[_Call] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._decoder = self._new_decoder()

    @property
    def context(self) -> int:
        return self.engine.context

    def generate(
        self,
        requests: Iterable[Request],
        show: Callable[[list[str]], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Answer]:
        """See ``Engine``; from any thread. ``show`` is called on the caller's."""
        call, more, shown = _Call(), iter(requests), 0.0
        with self._change:
            self._start()
            self._calls.append(call)
        try:
            while True:
                ahead = self.engine.batch_size - sum(not row.ended for row in call.rows)
                new = [(Row(), request) for request in itertools.islice(more, ahead)]  # may open images
                with self._change:
                    call.rows += [row for row, _ in new]
                    call.waiting += new
                    if new:  # else callers would wake each other without end
                        self._change.notify_all()
                    if call.error is not None:
                        raise call.error
                    if cancel is not None and cancel.is_set():
                        break
                    if not new and all(row.ended for row in call.rows):
                        break
                    self._change.wait(PAUSE)
                if show and time.monotonic() - shown >= PAUSE:
                    show(texts(call.rows, self.processor))
                    shown = time.monotonic()
        finally:
            with self._change:
                self._calls.remove(call)
                call.waiting.clear()
                for row in call.rows:
                    if not row.ended:
                        row.ended = row.stopped = True
        answers = [row.answer(self.processor) for row in call.rows]
        if show:
            show([answer.text for answer in answers])
        return answers

    def close(self) -> None:
        """End the thread, once its step is done; calls that run end with an error."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread is not None:  # a thread that computes while Python ends aborts the process
            self._thread.join()

    def _start(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="varytoy-engine", daemon=True)
            self._thread.start()

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(self._has_work)
                if self._closed:
                    self._fail(RuntimeError("the engine was closed"), list(self._calls))
                    return
                decoder, ended = self._decoder, self._decoder.ended
                joining = self._next(self.engine.batch_size - len(decoder.running))
            try:
                for start in range(0, len(joining), PROMPTS):
                    self._add(decoder, joining[start : start + PROMPTS])
                if decoder.running and not joining:
                    decoder.step()
                decoder.leave()
            except Exception as error:  # out of memory, for instance: the batch is lost, the engine goes on
                self._decoder = self._new_decoder()
                with self._change:
                    self._fail(error, [call for call in self._calls if any(not row.ended for row in call.rows)])
            if decoder.ended > ended:
                with self._change:
                    self._change.notify_all()

    def _new_decoder(self) -> RowDecoder:
        return RowDecoder(self.engine)

    def _has_work(self) -> bool:
        return self._closed or bool(self._decoder.running) or any(call.waiting for call in self._calls)

    def _next(self, free: int) -> list[tuple[_Call, Row, Request]]:
        """Up to ``free`` waiting rows."""
        found: list[tuple[_Call, Row, Request]] = []
        while len(found) < free and (calls := [call for call in self._calls if call.waiting]):
            found += [(call, *call.waiting.pop(0)) for call in calls[: free - len(found) if self.fair else 1]]
        return found

    def _add(self, decoder: RowDecoder, joining: list[tuple[_Call, Row, Request]]) -> None:
        try:
            decoder.add([row for _, row, _ in joining], [request for _, _, request in joining])
        except ValueError as error:  # of one of them
            if len(joining) > 1:
                for each in joining:
                    self._add(decoder, [each])
                return
            with self._change:
                self._fail(error, [joining[0][0]])

    def _fail(self, error: Exception, calls: list[_Call]) -> None:
        for call in calls:
            call.error = error
            call.waiting.clear()
        self._change.notify_all()


class LockedEngine:
    """Any engine for many threads: one call at a time."""

    def __init__(self, engine: Engine):
        self.engine, self.processor, self.context = engine, engine.processor, engine.context
        self._lock = threading.Lock()

    def generate(
        self,
        requests: Iterable[Request],
        show: Callable[[list[str]], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Answer]:
        """See ``Engine``."""
        with self._lock:
            return self.engine.generate(requests, show, cancel)


def share(engine: Engine, fair: bool = True) -> Engine:
    """The engine for many threads."""
    return SharedEngine(engine, fair) if isinstance(engine, BatchingEngine) else LockedEngine(engine)
