"""Convert transformers' chat messages to ours: texts with ``<image>`` placeholders, and a separate list of images.

A message's content is a text, or a list of parts: ``{"type": "text", "text": …}`` and ``{"type": "image"}`` with the
image under ``image``, ``url``, ``path`` or ``base64``, or with none of these if the images are given separately.
"""

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

from varytoy.data.documents import MAX_BYTES, open_pages
from varytoy.data.sample import IMAGE_PLACEHOLDER, ROLES
from varytoy.errors import first_line

Message = dict[str, str]
_TIMEOUT = 30  # seconds
_REMOTE = ("http://", "https://", "data:")
_SOURCES = ("image", "url", "path", "base64")


class ChatText(str):
    """A rendered conversation. It keeps its messages, so that a processor need not parse special tokens from user
    text."""

    messages: list[Message]
    ending: str
    template: str | None

    @classmethod
    def of(cls, text: str, messages: list[Message], ending: str, template: str | None) -> "ChatText":
        chat = cls(text)
        chat.messages, chat.ending, chat.template = messages, ending, template
        return chat


def read_chat(conversation: Sequence[dict]) -> tuple[list[Message], list[Image.Image]]:
    """Messages and images of one conversation.

    Raises:
        ValueError: an invalid message, or a part that is neither text nor image; it names the message's number.
    """
    messages: list[Message] = []
    images: list[Image.Image] = []
    for number, message in enumerate(conversation, 1):
        where = f"message {number}"
        if not isinstance(message, dict) or message.get("role") not in ROLES or "content" not in message:
            raise ValueError(f"{where}: a message has 'role' ({', '.join(ROLES)}) and 'content'")
        content = message["content"]
        if not isinstance(content, str):
            content = _join(content, where, images)
        messages.append({"role": message["role"], "content": content})
    return messages, images


def _join(parts: object, where: str, images: list[Image.Image]) -> str:
    """Join a list of parts to one text; their images are appended to ``images``."""
    if not isinstance(parts, (list, tuple)):
        raise ValueError(f"{where}: its content is a text or a list of parts")
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"].replace(IMAGE_PLACEHOLDER, "image"))
        elif kind == "image":
            texts.append(IMAGE_PLACEHOLDER)
            images += [_part_image(part, key, where) for key in _SOURCES if part.get(key) is not None][:1]
        else:
            raise ValueError(f"{where}: a part has 'type' text, with 'text', or image; videos and sounds are not read")
    return "\n".join(texts)


def _part_image(part: dict, key: str, where: str) -> Image.Image:
    source = part[key]
    if key == "base64" and isinstance(source, str) and not source.startswith("data:"):
        source = f"data:image/png;base64,{source}"
    return open_image(source, where)


def open_image(source: object, where: str = "image") -> Image.Image:
    """Open an image given as a PIL image, a path, a URL, base64, or a uint8 array [H, W, 3].

    Raises:
        ValueError: it is none of these, or cannot be read; the message begins with ``where``.
    """
    if isinstance(source, Image.Image):
        return source
    try:
        if isinstance(source, np.ndarray) and source.dtype == np.uint8:
            return Image.fromarray(source[..., 0] if source.ndim == 3 and source.shape[2] == 1 else source)
        if isinstance(source, str) and source.startswith(_REMOTE):
            source = _fetch(source)
        if isinstance(source, (bytes, bytearray, Path, str)):
            page = next(open_pages(source))
            if page.page_count > 1:
                raise ValueError(
                    f"a document of {page.page_count} pages, and one image is needed: give the pages one by one"
                )
            return page.image
    except (ValueError, TypeError, IndexError, OSError, HTTPException) as error:
        raise ValueError(f"{where}: {first_line(error)}") from error
    raise ValueError(f"{where}: an image, a path or an array of bytes is needed, not {type(source).__name__}")


def _fetch(address: str) -> bytes:
    """The content of a URL, ``data:`` URLs included. Raises OSError and ValueError."""
    with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
        return answer.read(MAX_BYTES)
