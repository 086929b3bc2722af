"""BatchingEngine: greedy decoding with continuous batching."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import BatchFeature

from varytoy.data.answer import Answer
from varytoy.inference.drafts import Lookup, draft, draft_words, go_on, space_tokens
from varytoy.inference.engine import ModelEngine, Request
from varytoy.inference.generate import PAUSE, finish, texts_so_far
from varytoy.inference.loops import EVERY, Once, repeated_tail, without_loop
from varytoy.inference.rows import RunningBatch
from varytoy.inference.slots import SlotBatch
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor

PROMPTS = 4
"""Prompts that are encoded together, padded to the longest: more were slower on a CPU, by a quarter for 12."""
DRAFTED = 12
"""The most tokens of a draft that are checked in one pass."""
COST = 0.15
"""What another token a row adds to the time of a pass, which is 1 for one token: from 0.1 to 0.25 on a CPU."""
_FORGET, _FIRST = 0.9, (4.0, 5.0)
"""Of the tokens of a draft that a row agreed with, and of those tried: what each pass leaves of them, and the first."""
_RETRIES = 2
"""Loops of one answer that are taken back; after the next one it ends."""
_FREE = 64
"""Tokens that an answer about the smallest image may have."""
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
        draft: tokens that the answer may have, of which those from ``at`` on are next.
        lookup: what drafts an answer without a ``draft``.
        agreed: how many of the last ones the decoder agreed with, of how many ``tried``.
        loops: repetitions that were taken back.
        banned: tokens that must not come next, because they would begin a repetition.
    """

    ids: list[int] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    limit: int = 0
    prompt_tokens: int = 0
    loop: tuple[int, int] | None = None
    ended: bool = False
    stopped: bool = False
    draft: list[int] = field(default_factory=list)
    at: int = 0
    lookup: Lookup | None = None
    agreed: float = _FIRST[0]
    tried: float = _FIRST[1]
    loops: int = 0
    banned: set[int] = field(default_factory=set)

    def next_drafted(self, most: int) -> list[int]:
        """The tokens of the draft that are checked next."""
        return [] if self.ended or self.banned else self.draft[self.at : self.at + most]

    def answer(self, processor: VaryProcessor) -> Answer:
        answer = finish(processor, self.ids, self.best, self.loop, self.stopped or not self.ended)
        answer.prompt_tokens, answer.loops = self.prompt_tokens, self.loops
        return answer


class RowDecoder:
    """Decodes rows together. ``running``: those in the batch, some of which may have ended; ``ended``: how many did."""

    def __init__(self, engine: "BatchingEngine"):
        self.engine, self.batch = engine, engine.batch()
        self.running: list[Row] = []
        self.once = Once.of(engine.model.generation_config, engine.processor.tokenizer)
        self.places, self.spaces = frozenset(engine.processor.place_tokens), space_tokens(engine.processor)
        self.ended = 0

    def add(self, rows: Sequence[Row], requests: Sequence[Request]) -> None:
        """Encode the requests of rows, add them and take their first tokens.

        Raises:
            ValueError: a prompt fills the model's context, or is not valid; none of the rows is added.
        """
        inputs, lengths = self.engine.encode(requests)
        for row, request, length in zip(rows, requests, lengths, strict=True):
            row.limit = int(min(request.max_new_tokens, self.engine.context - length, _most_tokens(request)))
            row.prompt_tokens = length
        scores, features = self.batch.join(inputs)
        self.running += rows
        for row, best in zip(rows, _best(scores[:, None]), strict=True):
            self._take(row, best)
        if self.engine.drafts:
            self._draft(rows, requests, self._readings(inputs, features))
            for row, ids, mask in zip(rows, inputs["input_ids"], inputs["attention_mask"], strict=True):
                if not row.draft:
                    row.lookup = Lookup(ids[mask.bool()].tolist())
                    row.draft, row.at = row.lookup.follow(row.ids), 0

    def step(self) -> None:
        """Take the next tokens of each row: one, and as many of its draft as the decoder agrees with."""
        most = self._worth()
        drafts = [row.next_drafted(most) for row in self.running]
        count = 1 + max(map(len, drafts))
        tokens = [
            [row.ids[-1], *part, *[0] * (count - 1 - len(part))] for row, part in zip(self.running, drafts, strict=True)
        ]
        scores = self.batch.step(torch.tensor(tokens))
        for place, row in enumerate(self.running):
            if row.banned:
                scores[place, 0, list(row.banned)] = -torch.inf
        kept = []
        for row, part, best in zip(self.running, drafts, _best(scores), strict=True):
            agreed = next((k for k, token in enumerate(part) if token != best[k][0]), len(part))
            kept.append(0 if row.ended else agreed + 1)
            if not row.ended:
                self._take(row, best[: agreed + 1])
                self._go_on(row, agreed, len(part))
        self.batch.accept(kept, count)
        self.engine.passes += 1
        for place, row in enumerate(self.running):
            if row.banned:
                self.batch.take_back(place, row.prompt_tokens + len(row.ids) - 1)

    def leave(self) -> None:
        """Take the rows that ended out of the batch, once they are a fifth of it."""
        places = [place for place, row in enumerate(self.running) if not row.ended]
        if len(places) <= 0.8 * len(self.running):
            self.running = [self.running[place] for place in places]
            self.batch.keep(places)

    def _take(self, row: Row, best: Sequence[tuple[int, float]]) -> None:
        """Add tokens, with their log-probabilities, until the row ends."""
        end = self.engine.processor.tokenizer.eos_token_id
        for token, value in best:
            if self.once is not None and token != end and token in (banned := self.once.banned(row.ids)):
                row.banned |= banned - {end}
                return
            row.banned = set()
            row.ids.append(token)
            row.best.append(value)
            row.ended = token == end or len(row.ids) >= row.limit
            if self.engine.guard and not row.ended and len(row.ids) % EVERY == 0 and (period := repeated_tail(row.ids)):
                if row.loops < _RETRIES:
                    self._take_back(row, period)
                    return
                row.loop, row.ended = (len(row.ids), period), True
            if row.ended:
                self.ended += 1
                return

    def _take_back(self, row: Row, period: int) -> None:
        """Go back to the first copy of a repeated tail, to go on with another token than the one that repeats it."""
        kept = len(without_loop(row.ids, period))
        row.banned, row.loops = {row.ids[kept]}, row.loops + 1
        del row.ids[kept:], row.best[kept:]

    def _readings(self, inputs: BatchFeature, features: dict[str, Tensor] | None) -> list[Tensor]:
        """The features [h, w, D] of each image that the head for letters can read."""
        if features is None or self.engine.model.letters is None:
            return []
        tokens, sizes = features["vocabulary"], inputs.get("image_sizes")
        if sizes is None:
            return list(tokens)
        grids = (sizes // torch.tensor(self.engine.processor.image_processor.stride)).tolist()
        return [image[:height, :width] for image, (height, width) in zip(tokens, grids, strict=True)]

    def _draft(self, rows: Sequence[Row], requests: Sequence[Request], features: Sequence[Tensor]) -> None:
        """Draft the answers to requests for the text of one image, from its known words or else its features."""
        processor, image = self.engine.processor, 0
        for row, request in zip(rows, requests, strict=True):
            if request.view == "text" and len(request.images) == 1 and not row.ended:
                if request.known:
                    row.draft = draft_words(processor, request.known)
                elif features:
                    row.draft = draft(processor, self.engine.model.letters, features[image])
                row.at = go_on(row.draft, 0, row.ids, self.places, self.spaces)
            image += len(request.images)

    def _worth(self) -> int:
        """How many tokens of the drafts to check in the next pass, for the most tokens in its time."""
        chances = [row.agreed / row.tried if row.at < len(row.draft) else 0.0 for row in self.running if not row.ended]
        best, worth = 0, float(len(chances))
        expected, reached = worth, [1.0] * len(chances)
        for count in range(1, DRAFTED + 1):
            reached = [before * chance for before, chance in zip(reached, chances, strict=True)]
            expected += sum(reached)
            if expected / (1 + COST * count) > worth:
                best, worth = count, expected / (1 + COST * count)
        return best

    def _go_on(self, row: Row, agreed: int, drafted: int) -> None:
        """Move on in the draft after a step."""
        self.engine.drafted, self.engine.agreed = self.engine.drafted + drafted, self.engine.agreed + agreed
        at = row.at + agreed
        if not drafted and at < len(row.draft):  # not checked, but known all the same
            agreed, drafted = int(row.draft[at] == row.ids[-1]), 1
        if drafted:
            row.agreed = _FORGET * row.agreed + agreed
            row.tried = _FORGET * row.tried + min(agreed + 1, drafted)
        row.at = go_on(row.draft, at, row.ids, self.places, self.spaces)
        if row.lookup is not None and not row.ended and (agreed < drafted or row.at >= len(row.draft)):
            row.draft, row.at = row.lookup.follow(row.ids), 0


def _best(scores: Tensor) -> list[list[tuple[int, float]]]:
    """The best token of each position and its log-probability, by scores [B, K, V]."""
    scores = scores.float()
    values, tokens = scores.max(-1)
    logs = values - scores.logsumexp(-1)
    return [list(zip(*row, strict=True)) for row in zip(tokens.tolist(), logs.tolist(), strict=True)]


class BatchingEngine(ModelEngine):
    """Greedy answers, each row by itself: a row leaves the batch when it ends, and a waiting request joins.

    Attributes:
        slots: whether rows have slots of a cache of fixed size, with captured steps: on a GPU.
        drafts: whether answers are drafted: from a request's known words, by the model's head for letters, or else from
            what the prompt and the answer hold (prompt lookup).
        guard: whether loops are taken back, and end an answer.
        passes: of the decoder so far; ``drafted``: tokens of drafts in them, ``agreed``: those that it agreed with.
    """

    drafts = guard = True
    passes = drafted = agreed = 0

    def __init__(self, model: VaryForConditionalGeneration, processor: VaryProcessor, batch_size: int = 12):
        super().__init__(model, processor, batch_size)
        self.slots = model.device.type == "cuda"
        self._idle: list[SlotBatch] = []

    def batch(self) -> RunningBatch | SlotBatch:
        """An empty batch of rows."""
        if not self.slots:
            return RunningBatch(self.model)
        return self._idle.pop() if self._idle else SlotBatch(self.model, self.batch_size)

    def give_back(self, batch: RunningBatch | SlotBatch) -> None:
        """Keep a batch, with what was captured for it, for the next call."""
        if isinstance(batch, SlotBatch):
            batch.keep([])
            self._idle.append(batch)

    @staticmethod
    def supports(model: VaryForConditionalGeneration) -> bool:
        """Whether the decoder has no sliding windows, the model no pointer and no head for numbers, and its answers are
        not searched for."""
        kinds = set(getattr(model.config.text_config, "layer_types", None) or ["full_attention"])
        beams = model.generation_config.num_beams or 1
        heads = model.config.pointer or model.config.numbers
        return kinds == {"full_attention"} and not heads and beams == 1

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
            for start in range(0, len(joining), PROMPTS):
                numbers, together = zip(*joining[start : start + PROMPTS], strict=True)
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
        self.give_back(decoder.batch)
        answers = [
            rows[number].answer(self.processor) if number in rows else Answer("", stop_reason="cancelled")
            for number in range(max(rows, default=-1) + 1)
        ]
        if show:
            show([answer.text for answer in answers])
        return answers

    def _waiting(self, requests: Iterable[Request], window: int) -> Iterator[tuple[int, Request]]:
        numbered = enumerate(requests)
        while together := list(itertools.islice(numbered, window)):
            yield from sorted(together, key=lambda pair: -_area(pair[1]))


def _most_tokens(request: Request) -> float:
    """More tokens than what a request shows can have letters: one for each 16 pixels of a text, which is a quarter of
    the smallest letter that is read with the space around it. A runaway answer about a small block ends early."""
    if request.view != "text" or not request.images:
        return math.inf
    return _FREE + sum(image.width * image.height // 16 for image in request.images)


def texts(rows: Iterable[Row], processor: VaryProcessor) -> list[str]:
    """Of all rows up to the first that has not ended."""
    return texts_so_far(processor, ((row.ids, row.ended) for row in rows))


def _area(request: Request) -> int:
    return sum(image.width * image.height for image in request.images)
