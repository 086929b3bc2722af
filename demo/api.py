"""The demo's interface for programs: one function, in the same queue as the visitors."""

import base64
import functools
import threading
from contextlib import aclosing

import gradio as gr

from demo.line import MAX_TOKENS, Line, stream
from demo.session import asked, open_page, sentence, suitable_task
from varytoy.data.documents import Page, open_pages
from varytoy.outputs.records import record_of
from varytoy.tasks import Answer

MOST = 50 * 2**20


def add_api(reader, name: str, line: Line) -> None:
    """Add ``/read`` to the Blocks in whose context this is called; Gradio documents it under *Use via API*."""

    async def read(file: str, task: str = "", prompt: str = "", page: int = 1) -> dict:
        """Read a picture or a page of a PDF, or ask about it. ``file``: the bytes in base64, or a data URI. ``task``:
        ocr, markdown, detect, ground, caption, vqa or chat; empty: text is read, a photograph described. ``prompt``:
        the phrase, the question or the classes, for the tasks that take one. ``page``: of a PDF, from 1. The result is
        that of ``varytoy read --json``: text, blocks with lines and words, boxes, confidence, stop_reason."""
        try:
            data = _bytes(file)
            opened = next(iter(open_pages(data, pages=[page])))
            turn = asked(task or suitable_task(opened.image), prompt)
            ask = functools.partial(reader.ask, task=turn.task, argument=turn.asked, max_new_tokens=MAX_TOKENS)
            picture = functools.partial(open_page, data, page)
            async with aclosing(stream(line, ask, picture, threading.Event())) as updates:
                async for update in updates:
                    if isinstance(update, Answer):
                        turn.answer = update
        except Exception as error:  # a file or the model may raise anything
            raise gr.Error(sentence(error), print_exception=False) from error
        place = Page(page, opened.page_count, lambda: opened.image)
        return record_of(name, "file", place, turn.task, turn.answer)

    gr.api(read, api_name="read", concurrency_limit=None)


def _bytes(file: str) -> bytes:
    """Raises ValueError."""
    if len(file) * 3 // 4 > MOST:
        raise ValueError(f"the file is over {MOST // 2**20} MiB: send a smaller one")
    head, comma, data = file.partition(",")
    try:
        return base64.b64decode(data if comma and head.startswith("data:") else file, validate=True)
    except ValueError:
        raise ValueError("the file is not base64: send its bytes in base64, or a data URI") from None
