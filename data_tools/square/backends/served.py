"""A model behind an API like OpenAI's."""

import mimetypes
from pathlib import Path

from data_tools.square.backends.base import Backend, BackendError
from data_tools.square.replies import Ask, Reply
from varytoy.evaluation.endpoint import Endpoint, data_url

_RETRIES = 6


class ServedBackend(Backend):
    """Chat completions. ``url``, ``model``: of the ``Endpoint``; ``timeout``: of a request, in seconds."""

    def __init__(self, url: str, model: str, concurrency: int, timeout: float):
        self.endpoint = Endpoint(url, model, "--backend", _RETRIES, timeout=timeout)
        self.concurrency, self.name = concurrency, self.endpoint.model

    def reply(self, ask: Ask, prompt: str, image: Path | None, temperature: float, seed: int) -> Reply:
        openai, picture = self.endpoint.errors, ""
        if image is not None:
            picture = data_url(image.read_bytes(), mimetypes.guess_type(image.name)[0] or "image/png")
        try:
            said = self.endpoint.complete(prompt, picture, ask.max_tokens, temperature, seed=seed)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise BackendError(self.endpoint.said(error), final=True) from None
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            raise BackendError(self.endpoint.said(error), refused=True) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: what came back is no JSON
            raise BackendError(self.endpoint.said(error)) from None
        choices = getattr(said, "choices", None)
        if not choices or choices[0].message is None:
            raise BackendError("the server answered without choices")
        used = said.usage
        tokens = (used.prompt_tokens or 0, used.completion_tokens or 0) if used else (0, 0)
        return Reply(choices[0].message.content or "", tokens)

    def close(self) -> None:
        self.endpoint.client.close()
