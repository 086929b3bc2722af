"""Chat completions of OpenAI's API as questions to a ``Reader``."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge
from PIL import Image
from pydantic import BaseModel

from varytoy.data.answer import Answer
from varytoy.data.documents import open_pages
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.inference.join import join_pages
from varytoy.inference.reader import Reader
from varytoy.processing.messages import Message
from varytoy.tasks import find_prompt

MAX_IMAGES = 16
"""Images in one request."""
_MARKDOWN = re.compile(r"markdown|docling|html|latex|table", re.IGNORECASE)
_FINISHED = {"end": "stop", "length": "length", "loop": "length", "stopped": "stop"}


class RequestError(ValueError):
    """A request that cannot be answered; the message says what to change."""


class ChatRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``; other keys are ignored, also ``temperature``: decoding is greedy."""

    messages: list[dict[str, Any]]
    model: str = ""
    max_tokens: Annotated[int, Ge(1)] | None = None
    max_completion_tokens: Annotated[int, Ge(1)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: int | None = 1

    @property
    def most(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


@dataclass
class Question:
    """What a chat asks for: a task on each of the images, and earlier turns for tasks that talk."""

    images: Sequence[Image.Image]
    task: str
    argument: str
    history: Sequence[Message]


def read_question(reader: Reader, messages: Sequence[dict[str, Any]], max_bytes: int) -> Question:
    """The last message names the task in one of its wordings. Else the picture decides: text is read, as markdown
    if the message speaks of a format; a photograph is described, or asked what the message asks.

    Raises:
        RequestError: messages or images are not valid.
        DocumentError: an image cannot be opened.
    """
    turns, images = _turns(messages, max_bytes)
    if not turns or turns[-1]["role"] != "user":
        raise RequestError("messages must end with one of the role 'user'")
    if not images:
        raise RequestError("messages hold no image: send one as image_url with a data URI")
    prompt = turns[-1]["content"].replace(IMAGE_PLACEHOLDER, "").strip()
    task, argument = _task(reader, prompt, images[0])
    history = turns[:-1] if task in ("vqa", "chat") and len(images) == 1 else []
    return Question(images, task, argument, history)


def answer(reader: Reader, question: Question, **options) -> Answer:
    """Of several images one after another. ``options``: those of ``Reader.ask``."""
    options |= {"task": question.task, "argument": question.argument, "history": question.history}
    answers = reader.ask(list(question.images), **options)
    assert isinstance(answers, list)
    wrong = next((each.error for each in answers if each.error), "")
    if wrong:
        raise RequestError(wrong)
    return answers[0] if len(answers) == 1 else join_pages(answers)


def content(answer: Answer, stops: Sequence[str] = ()) -> tuple[str, str]:
    """(text, finish_reason), cut before the first of ``stops``."""
    text = answer.text if answer.markup is None else answer.markup
    places = [text.index(stop) for stop in stops if stop and stop in text]
    if places:
        return text[: min(places)], "stop"
    return text, _FINISHED.get(answer.stop_reason, "stop")


def _task(reader: Reader, prompt: str, image: Image.Image) -> tuple[str, str]:
    found = find_prompt(prompt)
    if found:
        return found[0].name, found[1]
    likely = reader.task_for(image)
    if likely == "ocr":
        known = reader.processor.prompts
        if prompt and not known and reader.processor.image_processor.mode != "fit":
            return "chat", prompt  # a model that takes free words about a page
        return ("markdown" if _MARKDOWN.search(prompt) and (not known or "markdown" in known) else "ocr"), ""
    return ("vqa", prompt) if prompt.endswith("?") else (likely, "")


def _turns(messages: Sequence[dict[str, Any]], max_bytes: int) -> tuple[list[Message], list[Image.Image]]:
    turns: list[Message] = []
    images: list[Image.Image] = []
    for message in messages:
        role, parts = message.get("role"), message.get("content")
        if role not in ("system", "developer", "user", "assistant"):
            raise RequestError(f"a message has the role {str(role)[:40]!r}: use system, user or assistant")
        texts = []
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts or []:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"].replace(IMAGE_PLACEHOLDER, "image"))
            elif kind == "image_url":
                images.append(_image(part["image_url"] if "image_url" in part else None, max_bytes))
                texts.append(IMAGE_PLACEHOLDER)
            else:
                raise RequestError(f"a part of the type {str(kind)[:40]!r}: send text and image_url")
        if len(images) > MAX_IMAGES:
            raise RequestError(f"over {MAX_IMAGES} images in one request: send them in several")
        if role in ("user", "assistant"):
            turns.append({"role": role, "content": "\n".join(texts)})
    return turns, images


def _image(given: Any, max_bytes: int) -> Image.Image:
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise RequestError("image_url has no url: send {'url': 'data:image/png;base64,…'}")
    head, comma, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise RequestError("images are sent as data URIs (data:image/png;base64,…); this server fetches none")
    if len(data) * 3 // 4 > max_bytes:
        raise RequestError(f"an image is over {max_bytes / 2**20:.0f} MiB: send a smaller one")
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise RequestError(f"an image's data URI is not base64 ({error})") from error
    return next(iter(open_pages(raw))).image
