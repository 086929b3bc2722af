"""transformers' chat messages -> ours: the texts with ``<image>`` placeholders, and the pictures apart.

A message's content is a text, or a list of parts: ``{"type": "text", "text": …}`` and ``{"type": "image"}`` with the
picture under ``image``, ``url``, ``path`` or ``base64``, or with none where the pictures are given apart.
"""

import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from varytoy.data.documents import MAX_BYTES, open_pages
from varytoy.data.sample import IMAGE_PLACEHOLDER, ROLES
from varytoy.errors import first_line

Message = dict[str, str]
_PATIENCE = 30  # seconds
_REMOTE = ("http://", "https://", "data:")
_SOURCES = ("image", "url", "path", "base64")


class ChatText(str):
    """A conversation as the text that a model sees. It remembers the messages it was made of, so that a processor can
    take it back without reading special tokens out of somebody's words."""

    messages: list[Message]
    ending: str
    template: str | None

    @classmethod
    def of(cls, text: str, messages: list[Message], ending: str, template: str | None) -> "ChatText":
        chat = cls(text)
        chat.messages, chat.ending, chat.template = messages, ending, template
        return chat


def read_chat(conversation: Sequence[dict]) -> tuple[list[Message], list[Image.Image]]:
    """Messages and pictures of one conversation.

    Raises:
        ValueError: a message that is none, or a part that is neither text nor picture; with its number.
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
    """One text of a list of parts; their pictures are added to ``images``."""
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
    """A picture as people give it to a processor: opened, a path, an address, base64, or an array [H, W, 3] of bytes.

    Raises:
        ValueError: it is none of these, or cannot be read; beginning with ``where``.
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
                    f"a document of {page.page_count} pages, and one picture is needed: give the pages one by one"
                )
            return page.image
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{where}: {first_line(error)}") from error
    raise ValueError(f"{where}: a picture, a path or an array of bytes is needed, not {type(source).__name__}")


def _fetch(address: str) -> bytes:
    """The bytes behind an address or in a ``data:`` one. Raises OSError and ValueError."""
    with urllib.request.urlopen(address, timeout=_PATIENCE) as answer:
        return answer.read(MAX_BYTES)
