"""Chat completions of OpenAI's API as questions to a ``Reader``."""

import base64
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
from varytoy.inference.routing import task_of
from varytoy.layout.frames import Place, place_in_prompt
from varytoy.outputs.doctags import doctags
from varytoy.processing.messages import Message
from varytoy.serving.fetch import fetch

MAX_IMAGES = 16
"""Images in one request."""
_DOCTAGS = re.compile(r"docling|doctags", re.IGNORECASE)
_FINISHED = {"end": "stop", "length": "length", "loop": "length", "cancelled": "stop"}


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
    """What a chat asks for: a task on each of the images or a place in them, and earlier turns for tasks that talk."""

    images: Sequence[Image.Image]
    task: str
    argument: str
    history: Sequence[Message]
    front_matter: bool = False
    doctags: bool = False
    place: Place | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer can be shown as it grows."""
        return len(self.images) == 1 and self.task not in ("detect", "ground") and not self.doctags


@dataclass(frozen=True)
class ImageLimits:
    """What a request may send: ``max_bytes`` an image; ``allow_urls``: also addresses of the public web."""

    max_bytes: int
    allow_urls: bool = False


def read_question(reader: Reader, messages: Sequence[dict[str, Any]], limits: ImageLimits) -> Question:
    """The last message names the task in one of its wordings. Else the picture decides: text is read, as markdown
    if the message speaks of a format; a photograph is described, or asked what the message asks.

    Raises:
        RequestError: messages or images are not valid.
        DocumentError: an image cannot be opened.
    """
    turns, images = _turns(messages, limits)
    if not turns or turns[-1]["role"] != "user":
        raise RequestError("messages must end with one of the role 'user'")
    if not images:
        raise RequestError("messages hold no image: send one as image_url with a data URI")
    prompt = turns[-1]["content"].replace(IMAGE_PLACEHOLDER, "").strip()
    place, prompt = place_in_prompt(prompt, images[0].size)
    task, argument = task_of(reader, prompt, images[0])
    history = _history(turns[:-1]) if task in ("vqa", "chat") and len(images) == 1 else []
    doctags = (
        task in ("ocr", "markdown", "caption") and bool(_DOCTAGS.search(prompt)) and "markdown" not in prompt.lower()
    )
    return Question(
        images,
        "ocr" if doctags and task == "markdown" else task,
        argument,
        history,
        "front matter" in prompt.lower(),
        doctags,
        place,
    )


def read_document(reader: Reader, data: bytes, max_pages: int, **options) -> Answer:
    """The text of a file: its pages are read, a photograph is described.

    Raises:
        DocumentError: it cannot be opened.
        RequestError: it has too many pages.
    """
    page = next(open_pages(data))
    if page.page_count > max_pages:
        count = page.page_count
        raise RequestError(f"the document has {count} pages, and this server reads {max_pages} at once: split it")
    task = reader.task_for(page.image) if page.page_count == 1 else "ocr"
    found = reader.ask(data, task, **options)
    assert isinstance(found, Answer)
    return found


def answer(reader: Reader, question: Question, **options) -> Answer:
    """Of several images one after another. ``options``: those of ``Reader.ask``."""
    options |= {"task": question.task, "argument": question.argument, "history": question.history}
    options |= {"place": question.place}
    answers = reader.ask(list(question.images), **options)
    assert isinstance(answers, list)
    wrong = next((each.error for each in answers if each.error), "")
    if wrong:
        raise RequestError(wrong)
    joined = answers[0] if len(answers) == 1 else join_pages(answers)
    if question.doctags:
        joined.markup = doctags(answers)
    return joined


def front_matter(question: Question) -> str:
    """The YAML that olmOCR's prompt asks for, with what is known: pages are read upright, whatever their rotation."""
    if not question.front_matter:
        return ""
    wants = {"primary_language": "null", "is_rotation_valid": "True", "rotation_correction": "0"}
    wants |= {"is_table": "False", "is_diagram": str(question.task == "caption")}
    return "".join(["---\n", *(f"{key}: {value}\n" for key, value in wants.items()), "---\n"])


def content(answer: Answer, stops: Sequence[str] = ()) -> tuple[str, str]:
    """(text, finish_reason), cut before the first of ``stops``."""
    text = answer.text if answer.markup is None else answer.markup
    places = [text.index(stop) for stop in stops if stop and stop in text]
    if places:
        return text[: min(places)], "stop"
    return text, _FINISHED.get(answer.stop_reason, "stop")


def _history(turns: Sequence[Message]) -> list[Message]:
    """Earlier turns, whichever held the image: ``Reader.ask`` puts it into the first that it keeps."""
    return [{**turn, "content": turn["content"].replace(IMAGE_PLACEHOLDER, "").strip()} for turn in turns]


def _turns(messages: Sequence[dict[str, Any]], limits: ImageLimits) -> tuple[list[Message], list[Image.Image]]:
    turns: list[Message] = []
    images: list[Image.Image] = []
    for message in messages:
        role, parts = message.get("role"), message.get("content")
        if role not in ("system", "developer", "user", "assistant"):
            raise RequestError(f"a message has the role {str(role)[:40]!r}: use system, user or assistant")
        if parts is not None and not isinstance(parts, (str, list)):
            raise RequestError("a message's content is a text or a list of parts of the types text and image_url")
        texts = []
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts or []:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                texts.append(part["text"].replace(IMAGE_PLACEHOLDER, "image"))
            elif kind == "image_url":
                images.append(_image(part["image_url"] if "image_url" in part else None, limits))
                texts.append(IMAGE_PLACEHOLDER)
            else:
                raise RequestError(f"a part of the type {str(kind)[:40]!r}: send text and image_url")
        if len(images) > MAX_IMAGES:
            raise RequestError(f"over {MAX_IMAGES} images in one request: send them in several")
        if role in ("user", "assistant"):
            turns.append({"role": role, "content": "\n".join(texts)})
    return turns, images


def _image(given: Any, limits: ImageLimits) -> Image.Image:
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise RequestError("image_url has no url: send {'url': 'data:image/png;base64,…'}")
    if limits.allow_urls and not url.startswith("data:"):
        return next(iter(open_pages(fetch(url, limits.max_bytes)))).image
    head, comma, data = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise RequestError("images are sent as data URIs (data:image/png;base64,…); this server fetches none")
    if len(data) * 3 // 4 > limits.max_bytes:
        raise RequestError(f"an image is over {limits.max_bytes / 2**20:.0f} MiB: send a smaller one")
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError as error:  # of the alphabet, or of characters that are not ASCII
        raise RequestError(f"an image's data URI is not base64 ({error})") from error
    return next(iter(open_pages(raw))).image
