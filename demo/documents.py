"""Whole documents in the demo: several files, all their pages, one file of output each."""

import asyncio
import functools
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, closing
from pathlib import Path

import gradio as gr

from demo import view
from demo.line import MAX_TOKENS, Line, Waiting, stream
from demo.session import Job, sentence
from varytoy.inference.many import PageAnswer
from varytoy.tasks import Answer

MOST = 50
"""Files that are read in one go."""
CHOICES = {
    "Text": "text", "Markdown": "markdown", "Searchable PDF": "pdf", "HTML": "html", "hOCR": "hocr",
    "ALTO": "alto", "JSON lines": "jsonl",
}  # fmt: skip


class Documents:
    """The part of the page that reads whole documents. ``reader`` needs ``read_many`` and ``name``; ``line``: the queue
    of all visitors."""

    def __init__(self, reader, line: Line):
        self.reader, self.line = reader, line
        self.job = gr.State(Job())
        with gr.Accordion("Read whole documents", open=False, elem_id="documents"):
            self.files = gr.File(
                label="Pictures and PDFs", file_count="multiple", elem_id="many", show_label=False, height=160
            )
            with gr.Row(elem_id="many-row"):
                self.output = gr.Dropdown(
                    list(CHOICES), value="Text", elem_id="output", label="Save as", show_label=False, container=False
                )
                self.run = gr.Button("Read all pages", variant="primary", elem_id="read")
                self.stop = gr.Button("Stop", variant="stop", elem_id="read-stop", visible=False)
            self.status = gr.HTML(elem_id="many-status")
            self.table = gr.HTML(elem_id="many-table")
            self.saved = gr.File(label="Read", elem_id="many-saved", visible=False, interactive=False)

    def connect(self, **quiet: str) -> None:
        """Connect the events, with Gradio's options ``quiet``."""
        changed = [self.status, self.table, self.saved, self.run, self.stop]
        self.run.click(self.on_read, [self.job, self.files, self.output], changed, concurrency_limit=None, **quiet)
        self.stop.click(lambda job: job.stop(), self.job, None, queue=False, **quiet)

    async def on_read(self, job: Job, paths: list[str] | None, output: str) -> AsyncIterator[dict]:
        """Read the files and show what was read so far, page by page."""
        cancel = job.begin()
        folder = Path(self.saved.GRADIO_CACHE) / secrets.token_hex(16)
        try:
            if not paths:
                raise ValueError("choose pictures or PDFs first")
            if len(paths) > MOST:
                raise ValueError(f"{len(paths)} files are too many for one go: choose up to {MOST}")
            if output not in CHOICES:
                raise ValueError(f"there is no format '{output}': choose one of {', '.join(CHOICES)}")
            yield {self.status: view.working(0), self.table: "", self.saved: gr.update(visible=False),
                   self.run: gr.update(visible=False), self.stop: gr.update(visible=True)}  # fmt: skip
            read = functools.partial(self._read, folder / "read", CHOICES[output])
            async with aclosing(stream(self.line, read, lambda: _distinct(paths, folder / "files"), cancel)) as updates:
                async for update in updates:
                    if isinstance(update, Waiting):
                        yield {self.status: view.waiting(update.place)}
                    elif isinstance(update, str):
                        progress, _, table = update.partition("\n")
                        yield {self.status: view.working_on(progress), self.table: table}
                    elif isinstance(update, Answer):
                        yield await asyncio.to_thread(self._finished, update, folder)
        except Exception as error:  # a file or the model may raise anything: the visitor gets a sentence
            yield {self.status: view.notice(sentence(error)), **self._buttons()}

    def _read(self, folder: Path, output: str, paths: Sequence[Path], show, cancel: threading.Event) -> Answer:
        """The answer's text is the table of pages. Each update has one line of progress before it."""
        pages: list[PageAnswer] = []
        table = ""
        numbers = {str(path): number for number, path in enumerate(paths, 1)}
        found = self.reader.read_many(paths, out=folder, output=output, max_new_tokens=MAX_TOKENS)
        with closing(found):
            for page in found:
                pages.append(page)
                table = view.pages(pages)
                place = f"page {page.page.number} of {page.page.page_count}" if page.page else "cannot be opened"
                which = f"file {numbers.get(page.item.name, len(paths))} of {len(paths)}"
                show(f"{which}, {place}\n{table}")
                if page.page is not None:
                    page.page.forget()
                if cancel.is_set():
                    return Answer(table, stop_reason="cancelled")
        return Answer(table)

    def _finished(self, answer: Answer, folder: Path) -> dict:
        written = sorted((folder / "read").glob("*")) if (folder / "read").is_dir() else []
        whole = [path for path in written if path.suffix != ".part"]
        shutil.rmtree(folder / "files", ignore_errors=True)
        if len(whole) > 1:
            whole = [Path(shutil.make_archive(str(folder / "read"), "zip", folder / "read"))]
        stopped = answer.stop_reason == "cancelled"
        return {
            self.status: view.stopped() if stopped else "",
            self.table: answer.text[max(0, answer.text.find("<")) :],  # a page that is given up has its progress first
            self.saved: gr.update(value=str(whole[0]) if whole else None, visible=bool(whole)),
            **self._buttons(),
        }

    def _buttons(self) -> dict:
        return {self.run: gr.update(visible=True), self.stop: gr.update(visible=False)}


def _distinct(paths: Sequence[str], folder: Path) -> list[Path]:
    """Copies of uploads under names of their own: two of one name would write one file."""
    folder.mkdir(parents=True)
    copies: list[Path] = []
    for number, path in enumerate(map(Path, paths), 1):
        name = path.name if not (folder / path.name).exists() else f"{path.stem}-{number}{path.suffix}"
        copies.append(Path(shutil.copyfile(path, folder / name)))
    return copies
