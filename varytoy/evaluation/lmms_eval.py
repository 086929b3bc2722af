"""varytoy as a model of lmms-eval: ``lmms_eval --model varytoy``, see docs/evaluation.md.

lmms-eval finds ``manifest`` by the entry point, and by it the class ``Varytoy``. It is no dependency: what needs it is
made when lmms-eval asks for it. ``Answering`` does the work without it.
"""

import functools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from varytoy.data.answer import Answer
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.inference.many import in_order
from varytoy.inference.reader import Reader
from varytoy.inference.routing import takes_free_words, task_of, wording_of
from varytoy.processing.messages import read_chat
from varytoy.tasks import get_task

BOXES = ("text", "pixels", "fractions")
"""How boxes are answered: as the model writes them (0-1000), as JSON in pixels of the image, or as ``[x1, y1, x2, y2]``
from 0 to 1 of its sides."""
_TOGETHER = 12
"""Requests at once for lmms-eval's ``--batch_size auto``."""
_FORMS = (
    ("Report bbox coordinates in JSON", "pixels"),
    ("floating point numbers bounded between 0 and 1", "fractions"),
)
"""What prompts of lmms-eval say of the form of boxes: refcoco_grounding, refcoco_bbox_rec."""
_PARAGRAPHS = "\n\n"
"""lmms-eval's ``until`` for tasks that name none; in what is read it stands between paragraphs."""
_SETTINGS = {"until", "max_new_tokens", "temperature", "do_sample", "num_beams", "top_p", "top_k"}


@dataclass(frozen=True)
class Question:
    """``messages``: turns with parts, as in ``read_chat``; ``settings``: lmms-eval's ``gen_kwargs``; ``name``: for
    errors."""

    messages: Sequence[dict]
    settings: Mapping[str, Any]
    name: str = ""


@dataclass(frozen=True)
class Answering:
    """Answers questions with a ``Reader``.

    Attributes:
        task: of all questions; empty: that which each prompt asks for. ``chat`` passes prompts on as they are.
        boxes: one of ``BOXES``; empty: what the prompt asks for, else ``text``.
        together: questions that are worked on at once. What of them is text shares the model's batches.
        warn: called once with each sentence about a setting that is not used.

    Raises:
        ValueError: an unknown task or form of boxes.
    """

    reader: Reader
    task: str = ""
    boxes: str = ""
    together: int = _TOGETHER
    warn: Callable[[str], None] = print

    def __post_init__(self):
        get_task(self.task or "ocr")
        if self.boxes and self.boxes not in BOXES:
            raise ValueError(f"no boxes '{self.boxes}'; there are {', '.join(BOXES)}")

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answers in the order of the questions. One that cannot be asked gets an empty answer with an ``error``.

        Raises:
            ValueError: a question holds a video or a sound.
        """
        warned: set[str] = set()

        def checked() -> Iterator[Question]:
            for question in questions:
                for sentence in _unused(question.settings):
                    if sentence not in warned:
                        self.warn(sentence)
                        warned.add(sentence)
                yield question

        cancel = threading.Event()
        with closing(self.reader.shared(fair=False)) as reader:
            yield from in_order(functools.partial(self._answer, reader, cancel), checked(), self.together, cancel)

    def _answer(self, reader: Reader, cancel: threading.Event, question: Question) -> Answer:
        messages, images = read_chat(question.messages)
        most = int(question.settings.get("max_new_tokens") or 1024)
        prompt = messages[-1]["content"].replace(IMAGE_PLACEHOLDER, "").strip()
        task, argument = "chat", prompt
        if len(images) == 1 and len([turn for turn in messages if turn["role"] != "system"]) == 1:
            task, argument = self._route(reader, prompt, images[0])
        try:
            if task == "chat":
                answer = reader.chat(messages, images, max_new_tokens=most, cancel=cancel)
            else:
                found = reader.ask(images[0], task, argument, max_new_tokens=most, cancel=cancel)
                assert isinstance(found, Answer)
                answer = found
        except ValueError as error:  # a prompt too long for the model, an image that cannot be opened
            return Answer("", stop_reason="error", error=f"{question.name}: {error}")
        if task in ("detect", "ground"):
            asked = next((form for words, form in _FORMS if words in prompt), "text")
            answer.text = _boxes_as(self.boxes or asked, answer)
        elif answer.markup is not None:
            answer.text = answer.markup
        if answer.tokens > most:  # a page of several blocks, each of which had its own limit
            tokenizer = reader.processor.tokenizer
            ids = tokenizer(answer.text, add_special_tokens=False)["input_ids"]
            answer.text = answer.text if len(ids) <= most else tokenizer.decode(ids[:most])
        answer.text = _until(answer.text, question.settings.get("until"))
        return answer

    def _route(self, reader: Reader, prompt: str, image: Image.Image) -> tuple[str, str]:
        """(task, argument)."""
        found = wording_of(reader, prompt)
        if self.task:
            takes = get_task(self.task).takes or self.task == "detect"
            return self.task, (found[1] if found and found[0] == self.task else prompt) if takes else ""
        if not found and takes_free_words(reader):
            return "chat", prompt
        return task_of(reader, prompt, image)


def _boxes_as(form: str, answer: Answer) -> str:
    """The boxes of an answer in one of ``BOXES``."""
    if form == "text":
        return answer.text
    if form == "pixels":
        return json.dumps([{"bbox_2d": list(box), "label": label} for label, box in answer.boxes], ensure_ascii=False)
    width, height = answer.size or (1, 1)
    sides = [(x1 / width, y1 / height, x2 / width, y2 / height) for _, (x1, y1, x2, y2) in answer.boxes]
    return "\n".join("[" + ", ".join(f"{side:.4f}" for side in box) + "]" for box in sides)


def _until(text: str, stops: str | Sequence[str] | None) -> str:
    """The text before the first of ``stops``."""
    stops = [stops] if isinstance(stops, str) else stops or []
    places = [text.index(stop) for stop in stops if stop and stop != _PARAGRAPHS and stop in text]
    return text[: min(places, default=None)]


def _unused(settings: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that has no effect and asks for something else than the model does."""
    found = [f"the setting '{name}' is not used" for name in sorted(set(settings) - _SETTINGS)]
    if settings.get("do_sample") and (settings.get("temperature") is None or settings["temperature"] > 0):
        found.append("do_sample is not used: varytoy decodes greedily")
    elif (settings.get("temperature") or 0) > 0:
        found.append(f"temperature={settings['temperature']} is not used: varytoy decodes greedily")
    if (settings.get("num_beams") or 1) > 1:
        found.append("num_beams is not used: the model has its own")
    return found


def manifest():
    """The ``ModelManifest`` of the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="varytoy", chat_class_path=f"{__name__}.Varytoy")


def __getattr__(name: str) -> Any:
    if name == "Varytoy":
        return _model_class()
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


@functools.cache
def _model_class() -> type:
    """The class that lmms-eval makes with ``--model_args`` as keywords."""
    from lmms_eval.api.instance import GenerationResult, TokenCounts
    from lmms_eval.api.model import lmms
    from loguru import logger
    from tqdm import tqdm

    class Varytoy(lmms):
        """``pretrained``, ``device``, ``dtype``, ``quantize``, ``runtime``: as in ``Reader.from_pretrained``; ``task``,
        ``boxes``: as in ``Answering``; ``batch_size``: its ``together``, ``auto`` for 12."""

        is_simple = False

        def __init__(
            self,
            pretrained: str = "nano",
            device: str | None = None,
            dtype: str = "auto",
            quantize: str = "",
            runtime: str = "torch",
            task: str = "",
            boxes: str = "",
            batch_size: int | str = 1,
            max_batch_size: int | None = None,
            **unknown,
        ):
            super().__init__()
            if unknown:
                known = "pretrained, device, dtype, quantize, runtime, task, boxes"
                raise ValueError(f"no model_args {', '.join(unknown)}; varytoy takes {known}")
            reader = Reader.from_pretrained(pretrained, device_of_rank(device), dtype, quantize, runtime)
            self.device = torch.device(reader.precision.device)
            self.batch_size = _TOGETHER if str(batch_size).startswith("auto") else int(batch_size)
            self.answering = Answering(reader, task, boxes, self.batch_size, logger.warning)

        def generate_until(self, requests):
            """The answers to requests, in their order."""
            results = []
            bar = tqdm(total=len(requests), disable=self.rank != 0, desc="varytoy")
            for answer in self.answering.answers(map(self._question, requests)):
                if answer.error:
                    logger.error(f"{answer.error}; the answer is empty")
                counts = TokenCounts(answer.prompt_tokens, answer.tokens)
                results.append(GenerationResult(answer.text, counts))
                bar.update()
            bar.close()
            return results

        def _question(self, request) -> Question:
            _, doc_to_messages, settings, number, task, split = request.args
            messages = doc_to_messages(self.task_dict[task][split][number])
            return Question(messages, settings, f"document {number} of {task}")

        def loglikelihood(self, requests):
            raise NotImplementedError("varytoy answers and scores no given texts: choose a task that generates")

        def generate_until_multi_round(self, requests):
            raise NotImplementedError("varytoy takes no tasks of several rounds: choose a task that generates once")

    return Varytoy


def device_of_rank(device: str | None) -> str:
    """The device of this process: the card of its own where several run."""
    if device in (None, "auto", "cuda") and int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device or "auto"
