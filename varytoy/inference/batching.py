"""BatchingEngine: greedy decoding with continuous batching."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from varytoy.data.answer import Answer
from varytoy.inference.engine import ModelEngine, Request
from varytoy.inference.generate import EVERY, PAUSE, finish, repeated_tail, texts_so_far
from varytoy.inference.rows import RunningBatch
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor

_TOGETHER = 4
"""Prompts that are encoded together, padded to the longest: more were slower on a CPU, by a quarter for 12."""
_WINDOW = 4
"""Batches of requests that are taken together, to answer those of similar size together."""


@dataclass
class Row:
    """The answer to a request so far. The request is not kept: its images may be large.

    Attributes:
        ids: the tokens, with ``best``, their log-probabilities.
        limit: the most tokens.
        loop: see ``LoopGuard.looping``.
        ended: whether it gets no more tokens; ``stopped``: because it was cancelled.
    """

    ids: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    limit: int = 0
    prompt_tokens: int = 0
    loop: tuple[int, int] | None = None
    ended: bool = False
    stopped: bool = False

    def answer(self, processor: VaryProcessor) -> Answer:
        answer = finish(processor, self.ids, self.best, self.loop, self.stopped or not self.ended)
        answer.prompt_tokens = self.prompt_tokens
        return answer


class RowDecoder:
    """Decodes rows together. ``running``: those in the batch, some of which may have ended; ``ended``: how many did."""

    def __init__(self, engine: ModelEngine):
        self.engine, self.batch = engine, RunningBatch(engine.model)
        self.running: list[Row] = []
        self.ended = 0

    def add(self, rows: Sequence[Row], requests: Sequence[Request]) -> None:
        """Encode the requests of rows, add them and take their first tokens.

        Raises:
            ValueError: a prompt fills the model's context, or is not valid; none of the rows is added.
        """
        inputs, lengths = self.engine.encode(requests)
        for row, request, length in zip(rows, requests, lengths, strict=True):
            row.limit, row.prompt_tokens = min(request.max_new_tokens, self.engine.context - length), length
        scores = self.batch.join(inputs)
        self.running += rows
        self._take(rows, scores)

    def step(self) -> None:
        """Take the next token of each row."""
        last = torch.tensor([row.ids[-1] for row in self.running], device=self.engine.model.device)
        self._take(self.running, self.batch.step(last))

    def leave(self) -> None:
        """Take the rows that ended out of the batch, once they are a fifth of it."""
        places = [place for place, row in enumerate(self.running) if not row.ended]
        if len(places) <= 0.8 * len(self.running):
            self.running = [self.running[place] for place in places]
            self.batch.keep(places)

    def _take(self, rows: Sequence[Row], scores: Tensor) -> None:
        """The best token of each row, by scores [B, V]."""
        scores, end = scores.float(), self.engine.processor.tokenizer.eos_token_id
        values, tokens = scores.max(-1)
        best = (values - scores.logsumexp(-1)).tolist()
        for row, token, value in zip(rows, tokens.tolist(), best, strict=True):
            if row.ended:
                continue
            row.ids.append(token)
            row.best.append(value)
            row.ended = token == end or len(row.ids) >= row.limit
            if not row.ended and len(row.ids) % EVERY == 0 and (period := repeated_tail(row.ids)):
                row.loop, row.ended = (len(row.ids), period), True
            self.ended += row.ended


class BatchingEngine(ModelEngine):
    """Greedy answers, each row by itself: a row leaves the batch when it ends, and a waiting request joins."""

    @staticmethod
    def supports(model: VaryForConditionalGeneration) -> bool:
        """Whether the decoder has no sliding windows, and answers are the best token at each step."""
        kinds = set(getattr(model.config.text_config, "layer_types", None) or ["full_attention"])
        settings = model.generation_config
        rules = [getattr(settings, name, None) or 0 for name in ("no_repeat_ngram_size", "num_beams")]
        return kinds == {"full_attention"} and not model.config.pointer and not rules[0] and rules[1] <= 1

    @torch.inference_mode()
    def generate(
        self,
        requests: Iterable[Request],
        show: Callable[[list[str]], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Answer]:
        """See ``Engine``. Without ``show``, requests of similar size are answered together, out of 48 at a time."""
        waiting = self._waiting(requests, 1 if show else _WINDOW * self.batch_size)
        decoder, rows = RowDecoder(self), dict[int, Row]()
        shown, ended = 0.0, 0
        while not (cancel is not None and cancel.is_set()):
            free = self.batch_size - len(decoder.running)
            joining = list(itertools.islice(waiting, free)) if 3 * free >= self.batch_size else []
            for start in range(0, len(joining), _TOGETHER):
                numbers, together = zip(*joining[start : start + _TOGETHER], strict=True)
                new = [Row() for _ in numbers]
                rows |= zip(numbers, new, strict=True)
                decoder.add(new, together)
            if not decoder.running:
                break
            if not joining:
                decoder.step()
            if show and (decoder.ended > ended or time.monotonic() - shown >= PAUSE):
                show(texts((rows[number] for number in range(len(rows))), self.processor))
                shown, ended = time.monotonic(), decoder.ended
            decoder.leave()
        answers = [
            rows[number].answer(self.processor) if number in rows else Answer("", stop_reason="stopped")
            for number in range(max(rows, default=-1) + 1)
        ]
        if show:
            show([answer.text for answer in answers])
        return answers

    def _waiting(self, requests: Iterable[Request], window: int) -> Iterator[tuple[int, Request]]:
        numbered = enumerate(requests)
        while together := list(itertools.islice(numbered, window)):
            yield from sorted(together, key=lambda pair: -_area(pair[1]))


def texts(rows: Iterable[Row], processor: VaryProcessor) -> list[str]:
    """Of all rows up to the first that has not ended."""
    return texts_so_far(processor, ((row.ids, row.ended) for row in rows))


def _area(request: Request) -> int:
    return sum(image.width * image.height for image in request.images)
