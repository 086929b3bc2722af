"""A model on this machine: of varytoy, or any image-text-to-text model of transformers."""

import threading
from pathlib import Path

from PIL import Image

from data_tools.square.backends.base import Backend, BackendError
from data_tools.square.replies import Ask, Reply
from varytoy.checkpoints.loading import ModelError
from varytoy.errors import first_line
from varytoy.inference.reader import Reader


def open_local(name: str) -> Backend:
    """``name``: as for ``Reader.from_pretrained``, or a folder or hub name of transformers'.

    Raises:
        ValueError: it is no model.
    """
    try:
        return ReaderBackend(Reader.from_pretrained(name), name)
    except ModelError as error:
        try:
            return TransformersBackend(name)
        except (OSError, ValueError) as other:
            raise ValueError(
                f"--backend {name}: {error}; nor is it a model of transformers: {first_line(other)}"
            ) from None


class ReaderBackend(Backend):
    """A checkpoint of varytoy; it is asked as in a conversation, and answers without chance."""

    needs_picture = True

    def __init__(self, reader: Reader, name: str):
        self.reader, self.name, self._lock = reader, name, threading.Lock()

    def reply(self, ask: Ask, prompt: str, image: Path | None, temperature: float, seed: int) -> Reply:
        with self._lock:
            try:
                assert image is not None
                said = self.reader.ask(Image.open(image).convert("RGB"), "chat", prompt, max_new_tokens=ask.max_tokens)
            except ValueError as error:
                raise BackendError(first_line(error)) from error
        return Reply(said.text)

    def close(self) -> None:
        self.reader.close()


class TransformersBackend(Backend):
    """transformers' pipeline "image-text-to-text". Raises OSError, ValueError where it has no such model."""

    def __init__(self, name: str):
        from transformers import pipeline

        self.pipe, self.name, self._lock = pipeline("image-text-to-text", model=name), name, threading.Lock()

    def reply(self, ask: Ask, prompt: str, image: Path | None, temperature: float, seed: int) -> Reply:
        import torch

        content: list[dict] = [{"type": "text", "text": prompt}]
        if image is not None:
            content.insert(0, {"type": "image", "image": Image.open(image).convert("RGB")})
        drawn = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        with self._lock:
            torch.manual_seed(seed)
            try:
                (said,) = self.pipe(
                    text=[{"role": "user", "content": content}],
                    generate_kwargs={"max_new_tokens": ask.max_tokens, **drawn},
                    return_full_text=False,
                )
            except (ValueError, RuntimeError) as error:
                raise BackendError(first_line(error)) from error
        return Reply(said["generated_text"])
