"""Engines: requests in, answers out. An engine is the backend that runs a model; ``Reader`` works with any."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from transformers import BatchFeature

from varytoy.data.answer import Answer
from varytoy.inference.drafts import PlacedWord
from varytoy.inference.generate import generate
from varytoy.layout.frames import Place
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.messages import Message
from varytoy.processing.processor import VaryProcessor
from varytoy.processing.tiling import WHOLE, Tiling
from varytoy.tasks.base import Task

_RECENT = 4
"""Images whose features are kept for the next question about them."""


@dataclass(frozen=True)
class Request:
    """One request to a model.

    Attributes:
        messages: the conversation, which ends with a user's turn; ``<image>`` stands for each of the images.
        images: RGB, at the size that is passed to the model.
        view: ``"text"`` (letters must stay readable) or ``"picture"`` (the whole scene, downscaled).
        max_new_tokens: the longest answer, in tokens.
        search: search for a likelier answer with the model's ``num_beams``, if it names some.
        known: lines of words that the image is known to have, from which the answer is drafted, not taken.
        place: the part to look at, xyxy in pixels of the image or the colour of a frame, for a processor that
            ``takes_place``.
        tiling: of each image.
    """

    messages: Sequence[Message]
    images: Sequence[Image.Image] = ()
    view: str = "text"
    max_new_tokens: int = 1024
    search: bool = False
    known: Sequence[Sequence[PlacedWord]] = ()
    place: Place | None = None
    tiling: Tiling = WHOLE

    @classmethod
    def of(
        cls,
        task: Task,
        messages: Sequence[Message],
        images: Sequence[Image.Image],
        max_new_tokens: int,
        known: Sequence[Sequence[PlacedWord]] = (),
    ) -> "Request":
        return cls(messages, images, task.view, max_new_tokens, task.search, known)


class Engine(Protocol):
    """Backend that runs a model.

    Attributes:
        processor: the model's; defines image preprocessing and the prompts that the model knows.
        context: maximum number of tokens of a prompt and its answer together.
    """

    processor: VaryProcessor

    @property
    def context(self) -> int: ...

    def generate(
        self,
        requests: Iterable[Request],
        show: Callable[[list[str]], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Answer]:
        """Answers in the order of the requests: raw text, confidence, stop_reason and tokens; of a model that finds
        lines also regions, in pixels of the request's image, and what it ``dropped``.

        Args:
            requests: taken one batch at a time, so that a generator need not hold all images.
            show: called with the texts so far, of all requests up to the first that is not finished.
            cancel: set from another thread to stop; requests that were not started get no answer.

        Raises:
            ValueError: a prompt fills the model's context.
        """
        ...


class ModelEngine:
    """Base of the engines that hold the model.

    Attributes:
        model: on its device.
        batch_size: requests that are answered together.
    """

    def __init__(self, model: VaryForConditionalGeneration, processor: VaryProcessor, batch_size: int = 12):
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size
        self.model.remember_images(_RECENT)

    @property
    def context(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def encode(self, requests: Sequence[Request]) -> tuple[BatchFeature, list[int]]:
        """The model's input, and the tokens of each prompt. Raises ValueError for one that fills the context."""
        inputs = self.processor(
            [request.messages for request in requests],
            [request.images for request in requests],
            [request.view for request in requests],
            fit=False,
            tilings=[request.tiling for request in requests],
        )
        lengths = inputs["attention_mask"].sum(-1).tolist()
        if max(lengths) >= self.context:
            raise ValueError(f"the prompt has {max(lengths)} tokens, the context is {self.context}: ask in fewer words")
        return inputs, lengths


class TransformersEngine(ModelEngine):
    """transformers' ``generate``, greedy or with beams, in batches of consecutive requests."""

    def generate(
        self,
        requests: Iterable[Request],
        show: Callable[[list[str]], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Answer]:
        answers: list[Answer] = []
        for batch in self._batches(requests):
            before = [answer.text for answer in answers]
            live = (lambda texts, before=before: show(before + texts)) if show else None
            answers += self._answer(batch, live, cancel)
            if show:
                show([answer.text for answer in answers])
            if cancel is not None and cancel.is_set():
                break
        return answers

    def _batches(self, requests: Iterable[Request]) -> Iterator[list[Request]]:
        for _, group in itertools.groupby(requests, lambda each: (each.view, each.max_new_tokens, each.search)):
            while batch := list(itertools.islice(group, self.batch_size)):
                yield batch

    def _answer(
        self,
        batch: Sequence[Request],
        show: Callable[[list[str]], None] | None,
        cancel: threading.Event | None,
    ) -> list[Answer]:
        inputs, lengths = self.encode(batch)
        limit = min(batch[0].max_new_tokens, self.context - max(lengths))
        beams = (self.model.generation_config.num_beams or 1) if batch[0].search else 1
        answers = generate(self.model, self.processor, inputs, limit, show, cancel, beams)
        for answer, length in zip(answers, lengths, strict=True):
            answer.prompt_tokens = length
        return answers
