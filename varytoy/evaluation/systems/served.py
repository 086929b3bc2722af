"""A model behind an API like OpenAI's: ``varytoy serve``, vLLM, a service."""

import base64
import io
import os

from PIL import Image

from varytoy.data.boxes import parse_boxes
from varytoy.evaluation.case import Prediction
from varytoy.evaluation.systems.base import System
from varytoy.extras import require
from varytoy.tasks import get_task


class Served(System):
    """Asks a chat completion for each case, with the task's own prompt. The key is ``OPENAI_API_KEY``, if there is one.

    Args:
        url: the API's base, such as ``http://127.0.0.1:8000/v1``.
        model: its name there; empty: the first that the server lists.

    Raises:
        ValueError: the server does not answer, or lists no model.
    """

    def __init__(self, url: str, model: str = "", max_new_tokens: int = 1024):
        require("evaluate", "openai", by="--engine openai:URL")
        import openai

        self.client = openai.OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=3)
        self.error, self.max_new_tokens = openai.OpenAIError, max_new_tokens
        try:
            self.model = model or next((each.id for each in self.client.models.list()), "")
        except openai.OpenAIError as error:
            raise ValueError(f"--engine openai:{url}: {error}") from error
        if not self.model:
            raise ValueError(f"--engine openai:{url}: the server lists no model; name it with --model")
        self.name, self.version = self.model, url

    def answer(self, case, image):
        prompt = get_task(case.task).prompt(case.prompt)
        content = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": prompt}]
        try:
            answer = self.client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": content}],
                max_tokens=self.max_new_tokens,
                temperature=0,
            )
        except self.error as error:
            raise RuntimeError(str(error)) from error
        if not answer.choices:
            raise RuntimeError("the server answered without choices")
        choice = answer.choices[0]
        text = choice.message.content or ""
        boxes = tuple(parse_boxes(text)) if case.task in ("detect", "ground") else ()
        return Prediction(text, boxes, stop_reason="length" if choice.finish_reason == "length" else "end")


def data_url(image: Image.Image) -> str:
    png = io.BytesIO()
    image.save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
