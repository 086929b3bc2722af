"""BatchingEngine: greedy decoding with continuous batching."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from varytoy.data.answer import Answer
from varytoy.inference.engine import Request, check_context
from varytoy.inference.generate import finish, repeated_tail
from varytoy.inference.rows import RunningBatch
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor

_TOGETHER = 4
"""Prompts that are encoded together, padded to the longest: more were slower on a CPU, by a quarter for 12."""
_EVERY = 8
"""Tokens between two looks for a loop."""
_WINDOW = 4
"""Batches of requests that are taken together, to answer those of similar size together."""
_PAUSE = 0.1
"""Seconds between two calls of ``show`` while no row ends."""


@dataclass
class _Row:
    number: int
    limit: int
    ids: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    loop: tuple[int, int] | None = None
    ended: bool = False


class BatchingEngine:
    """Greedy answers, each row by itself: a row leaves the batch when it ends, and a waiting request takes its place.

    Attributes:
        model: on its device.
        batch_size: requests that are answered together.
    """

    def __init__(self, model: VaryForConditionalGeneration, processor: VaryProcessor, batch_size: int = 12):
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size

    @staticmethod
    def supports(model: VaryForConditionalGeneration) -> bool:
        """Whether the decoder has no sliding windows, and answers are the best token at each step."""
        kinds = set(getattr(model.config.text_config, "layer_types", None) or ["full_attention"])
        settings = model.generation_config
        rules = [getattr(settings, name, None) or 0 for name in ("no_repeat_ngram_size", "num_beams")]
        return kinds == {"full_attention"} and not model.config.pointer and not rules[0] and rules[1] <= 1

    @property
    def context(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def generate(
        self,
        requests: Iterable[Request],
        show: Callable[[list[str]], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Answer]:
        """See ``Engine``. Without ``show``, requests of similar size are answered together, out of 48 at a time."""
        waiting = self._waiting(requests, 1 if show else _WINDOW * self.batch_size)
        batch, rows = RunningBatch(self.model), _Rows(self.processor)
        shown = 0.0
        while not (cancel is not None and cancel.is_set()):
            free = self.batch_size - len(rows.running)
            joining = list(itertools.islice(waiting, free)) if 3 * free >= self.batch_size else []
            for start in range(0, len(joining), _TOGETHER):
                part = joining[start : start + _TOGETHER]
                rows.add(part, *self._join(batch, part))
            if not rows.running:
                break
            if not joining:
                rows.take(batch.step(torch.tensor(rows.last, device=self.model.device)))
            if show and (rows.news or time.monotonic() - shown >= _PAUSE):
                show(rows.texts())
                shown, rows.news = time.monotonic(), False
            kept = rows.leave()
            if kept is not None:
                batch.keep(kept)
        answers = rows.answers()
        if show:
            show([answer.text for answer in answers])
        return answers

    def _waiting(self, requests: Iterable[Request], window: int) -> Iterator[tuple[int, Request]]:
        numbered = enumerate(requests)
        while together := list(itertools.islice(numbered, window)):
            yield from sorted(together, key=lambda pair: -_area(pair[1]))

    def _join(self, batch: RunningBatch, joining: Sequence[tuple[int, Request]]) -> tuple[Tensor, list[int]]:
        """The scores of the new rows' first tokens, and how many tokens each may have."""
        requests = [request for _, request in joining]
        inputs = self.processor(
            [request.messages for request in requests],
            [request.images for request in requests],
            [request.view for request in requests],
            fit=False,
        )
        lengths = inputs["attention_mask"].sum(-1).tolist()
        for length in lengths:
            check_context(length, self.context)
        limits = [
            min(each.max_new_tokens, self.context - length) for each, length in zip(requests, lengths, strict=True)
        ]
        return batch.join(inputs), limits


class _Rows:
    """The answers so far, of the rows of a batch and of those that left it."""

    def __init__(self, processor: VaryProcessor):
        self.processor, self.end = processor, processor.tokenizer.eos_token_id
        self.running: list[_Row] = []
        self.all: dict[int, _Row] = {}
        self.news = False
        """Whether a row has ended since this was set to False."""

    @property
    def last(self) -> list[int]:
        return [row.ids[-1] for row in self.running]

    def add(self, joining: Sequence[tuple[int, Request]], scores: Tensor, limits: Sequence[int]) -> None:
        new = [_Row(number, limit) for (number, _), limit in zip(joining, limits, strict=True)]
        self.all |= {row.number: row for row in new}
        self.running += new
        self._take(new, scores)

    def take(self, scores: Tensor) -> None:
        """The best token of each row [B, V]."""
        self._take(self.running, scores)

    def _take(self, rows: Sequence[_Row], scores: Tensor) -> None:
        scores = scores.float()
        values, tokens = scores.max(-1)
        best = (values - scores.logsumexp(-1)).tolist()
        for row, token, value in zip(rows, tokens.tolist(), best, strict=True):
            if row.ended:
                continue
            row.ids.append(token)
            row.best.append(value)
            row.ended = token == self.end or len(row.ids) >= row.limit
            if not row.ended and len(row.ids) % _EVERY == 0 and (period := repeated_tail(row.ids)):
                row.loop, row.ended = (len(row.ids), period), True
            self.news = self.news or row.ended

    def leave(self) -> list[int] | None:
        """Take the rows that ended out if they are a fifth of all: the places of those that stay, or None."""
        places = [place for place, row in enumerate(self.running) if not row.ended]
        if len(places) > 0.8 * len(self.running):
            return None
        self.running = [self.running[place] for place in places]
        return places

    def texts(self) -> list[str]:
        """Of all requests up to the first that is not finished."""
        texts: list[str] = []
        for number in range(len(self.all)):
            row = self.all[number]
            text = self.processor.decode_text(row.ids)
            if not row.ended:
                return [*texts, text.rstrip("\ufffd")]
            texts.append(text)
        return texts

    def answers(self) -> list[Answer]:
        """In the order of the requests; of those that were cancelled, what there is."""
        rows = [self.all.get(number) or _Row(number, 0) for number in range(max(self.all, default=-1) + 1)]
        return [finish(self.processor, row.ids, row.best, row.loop, not row.ended) for row in rows]


def _area(request: Request) -> int:
    return sum(image.width * image.height for image in request.images)
