"""A model behind an API like OpenAI's."""

import base64
import mimetypes
import os
from pathlib import Path
from urllib.parse import urlsplit

from data_tools.square.backends.base import Backend, BackendError
from data_tools.square.replies import Ask, Reply
from varytoy.errors import first_line
from varytoy.extras import require

_RETRIES = 6


class ServedBackend(Backend):
    """Chat completions with the official client, which retries with growing pauses on time-outs, 408, 409, 429 and 5xx.
    The key is ``OPENAI_API_KEY``, if there is one; it is written nowhere, even if the server repeats it.

    Args:
        url: the API's base, such as ``http://127.0.0.1:8000/v1``; empty for the client's own.
        model: its name there; empty: the first that the server lists.
        timeout: of a request, in seconds.

    Raises:
        ValueError: the server does not answer or lists no model, or the URL holds a password.
    """

    def __init__(self, url: str, model: str, concurrency: int, timeout: float):
        require("evaluate", "openai", by="--backend openai:URL")
        import openai

        if urlsplit(url).password:
            raise ValueError(
                "--backend openai:URL: the URL holds a password, which would be kept with the replies; leave it out"
            )
        self._key = os.environ.get("OPENAI_API_KEY") or "none"
        self.client = openai.OpenAI(base_url=url or None, api_key=self._key, max_retries=_RETRIES, timeout=timeout)
        self.errors, self.concurrency = openai, concurrency
        try:
            model = model or next((each.id for each in self.client.with_options(max_retries=1).models.list()), "")
        except openai.OpenAIError as error:
            raise ValueError(f"--backend openai:{url}: {self._said(error)}") from None
        if not model:
            raise ValueError(f"--backend openai:{url}: the server lists no model; name it with --model")
        self.model = self.name = model

    def reply(self, ask: Ask, prompt: str, image: Path | None, temperature: float, seed: int) -> Reply:
        content: list[dict] = [{"type": "text", "text": prompt}]
        if image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": _data_url(image)}})
        openai = self.errors
        try:
            said = self.client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                max_tokens=ask.max_tokens,
                temperature=temperature,
                seed=seed,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise BackendError(self._said(error), final=True) from None
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise BackendError(self._said(error), refused=True) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: what came back is no JSON
            raise BackendError(self._said(error)) from None
        choices = getattr(said, "choices", None)
        if not choices or choices[0].message is None:
            raise BackendError("the server answered without choices")
        used = said.usage
        tokens = (used.prompt_tokens or 0, used.completion_tokens or 0) if used else (0, 0)
        return Reply(choices[0].message.content or "", tokens)

    def _said(self, error: Exception) -> str:
        """An error without the key."""
        return first_line(error).replace(self._key, "***") if len(self._key) > 4 else first_line(error)

    def close(self) -> None:
        self.client.close()


def _data_url(image: Path) -> str:
    kind = mimetypes.guess_type(image.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"
