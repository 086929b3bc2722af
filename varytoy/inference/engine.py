"""Engines: requests in, answers out. An engine is the backend that runs a model; ``Reader`` works with any."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from varytoy.data.answer import Answer
from varytoy.inference.generate import generate
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.processing.messages import Message
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks.base import Task


@dataclass(frozen=True)
class Request:
    """One request to a model.

    Attributes:
        messages: the conversation, which ends with a user's turn; ``<image>`` stands for each of the images.
        images: RGB, at the size that is passed to the model.
        view: ``"text"`` (letters must stay readable) or ``"picture"`` (the whole scene, downscaled).
        max_new_tokens: the longest answer, in tokens.
        search: search for a likelier answer with the model's ``num_beams``, if it names some.
    """

    messages: Sequence[Message]
    images: Sequence[Image.Image] = ()
    view: str = "text"
    max_new_tokens: int = 1024
    search: bool = False

    @classmethod
    def of(
        cls, task: Task, messages: Sequence[Message], images: Sequence[Image.Image], max_new_tokens: int
    ) -> "Request":
        return cls(messages, images, task.view, max_new_tokens, task.search)


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
        """Answers in the order of the requests: raw text, confidence, stop_reason and tokens.

        Args:
            requests: taken one batch at a time, so that a generator need not hold all images.
            show: called with the texts so far, of all requests up to the first that is not finished.
            cancel: set from another thread to stop; requests that were not started get no answer.

        Raises:
            ValueError: a prompt fills the model's context.
        """
        ...


def context_of(model: VaryForConditionalGeneration) -> int:
    """Maximum number of tokens of a prompt and its answer together."""
    return model.config.text_config.max_position_embeddings


def check_context(length: int, context: int) -> None:
    """Raises ValueError for a prompt of ``length`` tokens that fills the model's context."""
    if length >= context:
        raise ValueError(f"the prompt has {length} tokens, the context is {context}: ask in fewer words")


class TransformersEngine:
    """transformers' ``generate``, greedy or with beams, in batches of consecutive requests.

    Attributes:
        model: on its device.
        batch_size: requests that are answered together.
    """

    def __init__(self, model: VaryForConditionalGeneration, processor: VaryProcessor, batch_size: int = 12):
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size

    @property
    def context(self) -> int:
        return context_of(self.model)

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
        messages, images = [request.messages for request in batch], [request.images for request in batch]
        inputs = self.processor(messages, images, batch[0].view, fit=False)
        length = inputs["input_ids"].shape[1]
        check_context(length, self.context)
        limit = min(batch[0].max_new_tokens, self.context - length)
        beams = (self.model.generation_config.num_beams or 1) if batch[0].search else 1
        answers = generate(self.model, self.processor, inputs, limit, show, cancel, beams)
        for answer, count in zip(answers, inputs["attention_mask"].sum(-1).tolist(), strict=True):
            answer.prompt_tokens = count
        return answers
