"""Decoding: greedy or by beam search, batched, streamed, with a guard against loops, a confidence and a stop reason."""

import functools
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from transformers import (
    BatchFeature,
    LogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from varytoy.data.answer import Answer
from varytoy.data.boxes import SCALE
from varytoy.formats import chart
from varytoy.inference.loops import EVERY, NoRepeats, Once, repeated_tail, without_loop
from varytoy.inference.words import words_of
from varytoy.models.numbers import gap
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.processor import VaryProcessor

STRENGTH = 2.0
"""See ``PointedBoxes``."""
PAUSE = 0.1
"""Seconds between two calls of a ``show`` while no row ends."""


class LoopGuard(StoppingCriteria):
    """Stops each row of a batch separately once its tail repeats; ``looping``: row -> (length, period).

    A finished row (with token ``end``) repeats only padding while the others go on; that is not a loop.
    """

    def __init__(self, start: int, end: int, every: int = EVERY):
        self.start, self.end, self.every = start, end, every
        self.looping: dict[int, tuple[int, int]] = {}

    def __call__(self, input_ids: Tensor, scores, **kwargs) -> Tensor:
        done = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        if (input_ids.shape[1] - self.start) % self.every == 0:
            for number, row in enumerate(input_ids[:, self.start :].tolist()):
                period = 0 if number in self.looping or self.end in row else repeated_tail(row)
                if period:
                    self.looping[number] = (len(row), period)
        for number in self.looping:
            done[number] = True
        return done


class Cancelled(StoppingCriteria):
    """Stops all rows when the event is set."""

    def __init__(self, event: threading.Event):
        self.event = event

    def __call__(self, input_ids: Tensor, scores, **kwargs) -> Tensor:
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


class Confidence(LogitsProcessor):
    """Records the log-probability of the best token of each step, [B] a step; changes nothing."""

    def __init__(self):
        self.best: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.best.append(scores.amax(-1).float() - torch.logsumexp(scores.float(), -1))
        return scores


class PointedBoxes(LogitsProcessor):
    """Adds what the model's pointer sees to the scores of the tokens that write boxes.

    The token of a number gains by how near it is to the pointer's; the best of a kind gains nothing, so the pointer
    does not decide whether a box is written. A box is written to its end, in the
    tokens of whole numbers.

    Args:
        strength: score that a number loses for each hundredth of the image's side it is off.
    """

    def __init__(self, model: VaryForConditionalGeneration, processor: VaryProcessor, strength: float = STRENGTH):
        self.model, self.strength = model, strength
        self.kinds, self.partial = _number_tokens(processor.tokenizer)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        pointed = self.model.pointed
        if pointed is None or len(pointed.boxes) != len(scores) or not self.kinds:
            return scores
        x1, y1, x2, y2 = (pointed.boxes.float() * SCALE).T
        last, before = input_ids[:, -1], input_ids[:, -2] if input_ids.shape[1] > 1 else input_ids[:, -1]
        after_first = self._is("first", last)
        after_second = self._is("middle", last) & self._is("first", before)
        after_third = self._is("middle", last) & ~after_second
        sides = {"first": x1, "middle": torch.where(after_first, y1, x2), "last": y2}
        scores = scores.clone()
        for side, tokens, numbers in self.kinds:
            off = (numbers.to(scores.device)[None] - sides[side][:, None]).abs()
            loss = (off - off.amin(1, keepdim=True)) * self.strength / 10
            scores[:, tokens.to(scores.device)] -= loss.to(scores.dtype)
        scores[:, self.partial.to(scores.device)] = float("-inf")
        for rows, side in ((after_first | after_second, "middle"), (after_third, "last")):
            allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
            allowed[self._ids(side, scores.device)] = True
            scores = scores.masked_fill(rows[:, None] & ~allowed, float("-inf"))
        return scores

    def _ids(self, side: str, device: torch.device) -> Tensor:
        return torch.cat([tokens for kind, tokens, _ in self.kinds if kind == side]).to(device)

    def _is(self, side: str, tokens: Tensor) -> Tensor:
        return torch.isin(tokens, self._ids(side, tokens.device))


_NUMBERS = {"first": (r"\[(\d{3}),", r" \[(\d{3}),"), "middle": (r" (\d{3}),",)} | {
    "last": (r" (\d{3})\]", r" (\d{3})\],", r" (\d{3})\];")
}
"""Forms of the tokens that write the first number of a box, the two in its middle, and its last."""


@functools.lru_cache(8)
def _number_tokens(tokenizer) -> tuple[list[tuple[str, Tensor, Tensor]], Tensor]:
    """(key of ``_NUMBERS``, ids, numbers) of each form that the vocabulary has tokens of, or none if a box cannot be
    written with them; and ids of tokens that begin a box in smaller pieces."""
    kinds = []
    vocabulary = tokenizer.get_vocab()
    for side, forms in _NUMBERS.items():
        for form in forms:
            matches = [(number, re.fullmatch(form, token)) for token, number in vocabulary.items()]
            rows = sorted((number, float(match[1])) for number, match in matches if match)
            if rows:
                kinds.append((side, torch.tensor([n for n, _ in rows]), torch.tensor([v for _, v in rows])))
    partial = [number for token, number in vocabulary.items() if re.fullmatch(r" ?\[\d{0,3}", token)]
    return kinds if {side for side, *_ in kinds} == set(_NUMBERS) else [], torch.tensor(partial, dtype=torch.long)


def texts_so_far(processor: VaryProcessor, rows: Iterable[tuple[Sequence[int], bool]]) -> list[str]:
    """Of rows (ids, whether it has ended), up to the first that has not."""
    texts: list[str] = []
    for ids, ended in rows:
        text = processor.decode_text(ids)
        if not ended:
            return [*texts, text.rstrip("\ufffd")]
        texts.append(text)
    return texts


class _Streamer(BaseStreamer):
    """Passes the texts so far to a callback, a few times a second: of all rows up to the first that is not finished, so
    that text is only ever appended. Incomplete UTF-8 is left out."""

    def __init__(self, processor: VaryProcessor, show: Callable[[list[str]], None], pause: float = PAUSE):
        self.processor, self.show, self.pause = processor, show, pause
        tokenizer = processor.tokenizer
        self.ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}  # a row stopped by a criterion ends in padding
        self.steps: list[list[int]] | None = None
        self.last = 0.0

    def put(self, value: Tensor) -> None:
        if self.steps is None:  # the prompts come first
            self.steps = []
            return
        self.steps.append(value.flatten().tolist())
        if time.monotonic() - self.last >= self.pause:
            self.show(self._texts())
            self.last = time.monotonic()

    def end(self) -> None:
        self.show(self._texts(whole=True))

    def _texts(self, whole: bool = False) -> list[str]:
        rows = zip(*self.steps or [], strict=True)
        answers = ((row, list(itertools.takewhile(lambda token: token not in self.ends, row))) for row in rows)
        return texts_so_far(self.processor, ((ids, whole or len(ids) < len(row)) for row, ids in answers))


@torch.inference_mode()
def generate(
    model: VaryForConditionalGeneration,
    processor: VaryProcessor,
    inputs: BatchFeature,
    max_new_tokens: int = 1024,
    show: Callable[[list[str]], None] | None = None,
    cancel: threading.Event | None = None,
    beams: int = 1,
) -> list[Answer]:
    """Answers to a batch from ``processor(…)``: greedy, or by a search with several beams. Of the model's generation
    configuration the settings of ``Once`` and ``length_penalty`` count.

    Args:
        show: called with the texts so far, of all rows up to the first that is not finished; not in a beam search.
        cancel: set it from another thread to stop early.
    """
    tensors = {name: value.to(model.device) for name, value in inputs.items()}
    start = tensors["input_ids"].shape[1]
    guard, confidence = LoopGuard(start, processor.tokenizer.eos_token_id), Confidence()
    guards = [guard] if beams == 1 else []  # rows of a search are not rows of the batch
    criteria = StoppingCriteriaList(guards + ([Cancelled(cancel)] if cancel else []))
    streamer = _Streamer(processor, show) if show and beams == 1 else None
    once = Once.of(model.generation_config, processor.tokenizer)
    processors: list[LogitsProcessor] = [NoRepeats(once, start)] if once else []
    processors += [PointedBoxes(model, processor)] if getattr(model.config, "pointer", None) else []
    model.estimated = None
    output = model.generate(
        **tensors,
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=beams,
        early_stopping=beams > 1,
        return_dict_in_generate=True,
        output_scores=beams > 1,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
        logits_processor=[*processors, confidence],
        stopping_criteria=criteria,
        streamer=streamer,
    )
    generated = output.sequences[:, start:].tolist()
    best = torch.stack(confidence.best, 1).tolist() if beams == 1 else _chosen(model, output)
    stopped = cancel is not None and cancel.is_set()
    rows = enumerate(generated)
    answers = [finish(processor, row, best[number], guard.looping.get(number), stopped) for number, row in rows]
    if model.estimated is not None:
        _compare_numbers(answers, model.estimated, (tensors["input_ids"] == model.config.image_token_id).any(1))
    return answers


def _compare_numbers(answers: Sequence[Answer], estimated: Tensor, has_image: Tensor) -> None:
    """Set ``number_gap``; ``estimated`` [B * beams, N]: by the model's head for numbers, ``has_image`` [B]."""
    beams = len(estimated) // len(answers)
    for answer, numbers, seen in zip(answers, estimated[::beams], has_image.tolist(), strict=True):
        if seen and answer.stop_reason == "end":
            answer.number_gap = gap(numbers, chart.values(answer.text))


def _chosen(model: VaryForConditionalGeneration, output) -> list[list[float]]:
    """Log-probability of each token of the best beams."""
    return model.compute_transition_scores(output.sequences, output.scores, output.beam_indices).tolist()


def finish(
    processor: VaryProcessor, ids: list[int], best: list[float], loop: tuple[int, int] | None, stopped: bool
) -> Answer:
    """The answer of one row; ``best``: the tokens' log-probabilities, ``loop``: see ``LoopGuard.looping``."""
    end = processor.tokenizer.eos_token_id
    reason = "cancelled" if stopped else "length"
    if end in ids:
        ids, reason = ids[: ids.index(end) + 1], "end"
    if loop is not None:
        length, period = loop
        ids, reason = without_loop(ids[:length], period), "loop"
    excluded = set(processor.tokenizer.all_special_ids) - {end}  # place tokens are not part of the answer
    chosen = [value for token, value in zip(ids, best, strict=False) if token not in excluded]
    confidence = float(torch.tensor(chosen).mean().exp()) if chosen else 0.0
    words = words_of(processor, ids, best)
    return Answer(processor.decode_text(ids), confidence=confidence, stop_reason=reason, tokens=len(ids), words=words)
