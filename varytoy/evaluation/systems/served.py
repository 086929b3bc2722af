"""A model behind an API like OpenAI's: ``varytoy serve``, vLLM, a service."""

import io

from varytoy.data.boxes import parse_boxes
from varytoy.evaluation.case import Prediction
from varytoy.evaluation.endpoint import Endpoint, data_url
from varytoy.evaluation.systems.base import System
from varytoy.tasks import get_task


class Served(System):
    """Asks a chat completion for each case, with the task's own prompt. ``url``, ``model``: of the ``Endpoint``."""

    def __init__(self, url: str, model: str = "", max_new_tokens: int = 1024):
        self.endpoint, self.max_new_tokens = Endpoint(url, model, "--engine", 3), max_new_tokens
        self.name, self.version = self.endpoint.model, url

    def answer(self, case, image):
        png = io.BytesIO()
        image.save(png, "PNG")
        prompt = get_task(case.task).prompt(case.prompt)
        try:
            answer = self.endpoint.complete(prompt, data_url(png.getvalue()), self.max_new_tokens, 0)
        except self.endpoint.errors.OpenAIError as error:
            raise RuntimeError(self.endpoint.said(error)) from None
        if not answer.choices:
            raise RuntimeError("the server answered without choices")
        choice = answer.choices[0]
        text = choice.message.content or ""
        boxes = tuple(parse_boxes(text)) if case.task in ("detect", "ground") else ()
        return Prediction(text, boxes, stop_reason="length" if choice.finish_reason == "length" else "end")
