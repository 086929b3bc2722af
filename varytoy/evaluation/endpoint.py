"""A model behind an API like OpenAI's: ``varytoy serve``, vLLM, a service."""

import base64
import os
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from varytoy.errors import first_line
from varytoy.extras import require


class Endpoint:
    """The official client and the name of a model. The key is ``OPENAI_API_KEY``, if there is one; it is written
    nowhere, even if the server repeats it.

    Args:
        url: the API's base, such as ``http://127.0.0.1:8000/v1``; empty for the client's own.
        model: its name there; empty: the first that the server lists.
        option: that the user gave, for messages, e.g. ``--engine``.
        retries: of a request that fails, with growing pauses, on time-outs, 408, 409, 429 and 5xx.
        settings: of the client, e.g. ``timeout`` in seconds.

    Attributes:
        errors: the module that has the client's exceptions.

    Raises:
        ValueError: the server does not answer or lists no model, or the URL holds a password.
    """

    def __init__(self, url: str, model: str, option: str, retries: int, **settings: Any):
        require("evaluate", "openai", by=f"{option} openai:URL")
        import openai

        if urlsplit(url).password:
            raise ValueError(f"{option} openai:URL: the URL holds a password, which would be kept; leave it out")
        self._key = os.environ.get("OPENAI_API_KEY") or "none"
        self.client = openai.OpenAI(base_url=url or None, api_key=self._key, max_retries=retries, **settings)
        self.errors: ModuleType = openai
        try:
            model = model or next((each.id for each in self.client.with_options(max_retries=1).models.list()), "")
        except openai.OpenAIError as error:
            raise ValueError(f"{option} openai:{url}: {self.said(error)}") from None
        if not model:
            raise ValueError(f"{option} openai:{url}: the server lists no model; name it with --model")
        self.model = model

    def said(self, error: Exception) -> str:
        """An error without the key."""
        return first_line(error).replace(self._key, "***") if len(self._key) > 4 else first_line(error)

    def complete(self, text: str, picture: str, max_tokens: int, temperature: float, **settings: Any) -> Any:
        """The chat completion to a text and, if given, a picture (``data_url``). Raises the client's errors."""
        content: list[Any] = [{"type": "image_url", "image_url": {"url": picture}}] if picture else []
        return self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": [*content, {"type": "text", "text": text}]}],
            max_tokens=max_tokens,
            temperature=temperature,
            **settings,
        )


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
