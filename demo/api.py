"""The demo's interface for programs: one function, in the same queue as the visitors."""

import base64
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing

import gradio as gr
from PIL import Image

from demo.line import MAX_TOKENS, Line, Waiting, stream
from demo.session import sentence, suitable_task
from varytoy.data.documents import Page, open_pages
from varytoy.errors import first_line
from varytoy.outputs.records import record_of
from varytoy.tasks import Answer, get_task

MOST = 20 * 2**20
"""Bytes of a file."""
_LONGEST = 2000
"""Characters of a prompt."""


class _Question:
    """One call, which is opened and answered on a thread of its own when its turn comes."""

    def __init__(self, reader, file: str, task: str, prompt: str, page: int):
        if len(file) * 3 // 4 > MOST:
            raise ValueError(f"the file is over {MOST // 2**20} MiB: send a smaller one")
        if len(prompt) > _LONGEST:
            raise ValueError(f"the prompt has over {_LONGEST} characters: send a shorter one")
        if task:
            get_task(task).prompt(prompt)
        self.reader, self.file, self.task, self.prompt, self.number = reader, file, task, prompt, page
        self.page: Page | None = None

    def open(self) -> Image.Image:
        self.page = next(iter(open_pages(_bytes(self.file), pages=[self.number])))
        self.file = ""
        self.task = self.task or suitable_task(self.page.image)
        return self.page.image

    def ask(self, image: Image.Image, show, cancel: threading.Event) -> Answer:
        return self.reader.ask(image, self.task, self.prompt, max_new_tokens=MAX_TOKENS, show=show, cancel=cancel)


def add_api(reader, name: str, line: Line) -> None:
    """Add ``/read`` to the Blocks in whose context this is called; Gradio documents it under *Use via API*."""

    async def read(file: str, task: str = "", prompt: str = "", page: int = 1) -> AsyncIterator[dict]:
        """Read a picture or a page of a PDF, or ask about it. ``file``: the bytes in base64, or a data URI. ``task``:
        ocr, markdown, detect, ground, caption, vqa or chat; empty: text is read, a photograph described. ``prompt``:
        the phrase, the question or the classes, for the tasks that take one. ``page``: of a PDF, from 1. The result is
        that of ``varytoy read --json``: text, blocks with lines and words, boxes, confidence, stop_reason. Until it is
        there, the text so far, with the stop_reason null."""
        cancel = threading.Event()
        try:
            question = _Question(reader, file, task, prompt, page)
            del file
            async with aclosing(stream(line, question.ask, question.open, cancel)) as updates:
                async for update in updates:  # a program that leaves ends this between two of them
                    if isinstance(update, Answer):
                        yield record_of(name, "file", question.page, question.task, update)
                    else:
                        waiting = isinstance(update, Waiting) or update is None
                        yield {"text": "" if waiting else update, "stop_reason": None}
        except Exception as error:  # a file or the model may raise anything
            said = first_line(error) if isinstance(error, ValueError) else sentence(error)
            raise gr.Error(said, print_exception=False) from error

    gr.api(read, api_name="read", concurrency_limit=None)


def _bytes(file: str) -> bytes:
    """Raises ValueError."""
    head, comma, data = file.partition(",")
    try:
        given = data if comma and head.startswith("data:") else file
        return base64.b64decode("".join(given.split()), validate=True)
    except ValueError:
        raise ValueError("the file is not base64: send its bytes in base64, or a data URI") from None
