"""The page of the demo: its components and event handlers."""

import asyncio
import functools
import io
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import gradio as gr
from PIL import Image

from demo import look, part, view
from demo.api import add_api
from demo.documents import Documents
from demo.line import MAX_TOKENS, Line, Waiting, stream
from demo.measured import Measured
from demo.pictures import Example, thumbnail
from demo.session import SHOWN_SIDE, Session, Turn, asked, open_page, sentence, takes_words
from varytoy.data.documents import DocumentError, Page
from varytoy.errors import first_line
from varytoy.inference.drawing import png
from varytoy.layout.frames import Place
from varytoy.outputs import FORMATS
from varytoy.outputs.records import record_of
from varytoy.tasks import TASKS, Answer

WORKERS = 80
_FORMATS = ("html", "hocr", "alto", "pdf")
_LARGEST = 3 * 2**20
"""Bytes of a file to save; it stands in the page."""
# The examples are below the image and the answer.
UPWARDS = "() => { window.scrollTo({ top: 0, behavior: 'smooth' }); }"


class Demo:
    """The page. ``reader`` needs ``ask``, ``read_many`` and ``name``; ``tasks``: those that it was trained on."""

    def __init__(
        self, reader, offered: list[Example], measured: Measured | None = None, tasks: Sequence[str] = tuple(TASKS)
    ):
        self.reader, self.name, self.tasks = reader, view.model_name(reader.name), tasks
        self.offered = [example for example in offered if example.task in tasks]
        self.measured, self.line = measured or Measured(), Line()
        # Uploads and images are deleted after an hour.
        self.page = gr.Blocks(title="varytoy", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600))
        with self.page:
            self.session = gr.State(Session())
            gr.HTML(view.header(self.name, self.measured.known_error()))
            with gr.Row(equal_height=False, elem_id="sides"):
                with gr.Column(scale=6, min_width=320, elem_classes="vt-side vt-left"):
                    self._picture_side()
                with gr.Column(scale=6, min_width=320, elem_classes="vt-side"):
                    self._answer_side()
            self._examples()
            self.documents = Documents(reader, self.line)
            add_api(reader, self.name, self.line)
            self._connect()
            self.page.load(None, js=part.SCRIPT)
        self.page.preprocess_data = _in_a_sentence(self.page.preprocess_data)

    def _picture_side(self) -> None:
        self.file = gr.File(label="Picture or PDF", elem_id="file", show_label=False, height=302)
        self.notice = gr.HTML(elem_id="notice", visible=False)
        self.picture = gr.Image(
            type="filepath", elem_id="picture", label="Picture", show_label=False, interactive=False,
            visible=False, buttons=["download", "fullscreen"], alt_text="The picture that is read",
        )  # fmt: skip
        self.part = gr.Textbox(elem_id="part", label="Part of the picture", container=False)
        self.whole = gr.HTML(view.WHOLE, elem_id="whole", visible=False)
        with gr.Row(elem_id="pager", visible=False) as self.pager:
            self.back = gr.Button("‹", size="sm", elem_id="back")
            self.number = gr.Dropdown(show_label=False, container=False, elem_id="page", interactive=True)
            self.forth = gr.Button("›", size="sm", elem_id="forth")

    def _answer_side(self) -> None:
        first = self.tasks[0]
        choices = [(self._titled(view.label(task), task), task) for task in self.tasks]
        self.task = gr.Radio(choices, value=first, elem_id="task", label="Task", show_label=False, container=False)
        with gr.Column(elem_id="ask"):
            self.warning = gr.HTML(elem_id="warning", visible=False)
            with gr.Row(elem_id="words"):
                self.prompt = gr.Textbox(
                    elem_id="prompt", label="Prompt", show_label=False, container=False, lines=1, max_lines=4,
                    max_length=2000, scale=1, visible=takes_words(first),
                )  # fmt: skip
                self.run = gr.Button("Run", variant="primary", elem_id="run")
                self.stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
        with gr.Column(elem_id="answers"):
            with gr.Tabs():
                with gr.Tab("Answer") as self.answer_tab:
                    self.answer = gr.HTML(view.placeholder(), elem_id="answer", autoscroll=True)
                with gr.Tab("Blocks") as self.blocks_tab:
                    self.blocks = gr.HTML(view.blocks([]), elem_id="blocks")
                with gr.Tab("Source") as self.source_tab:
                    self.source = gr.Textbox(
                        elem_id="source", show_label=True, lines=8, max_lines=24, buttons=["copy"],
                        interactive=False, label="Source",
                    )  # fmt: skip
            self.status = gr.HTML(elem_id="status")
        with gr.Column(elem_id="before"):
            self.turns = gr.HTML(elem_id="turns")
            self.forget = gr.Button("Forget these turns", size="sm", elem_id="forget", visible=False)

    def _examples(self) -> None:
        if self.offered:
            gr.HTML('<section class="vt-examples"><h2>Or try one of these</h2></section>')
        with gr.Row(elem_id="examples"):
            self.buttons = [
                gr.Button(self._titled(example.title, example.task), icon=thumbnail(example))
                for example in self.offered
            ]
        for button in self.buttons:
            button.keep_in_cache.add(button.icon["path"])

    def _titled(self, title: str, task: str) -> str:
        return f"{title} (experimental)" if self.measured.is_experimental(task) else title

    def _connect(self) -> None:
        """Connect the events. Answers wait in ``self.line``; everything else is done at once."""
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        left = [self.file, self.notice, self.picture, self.pager, self.number, self.part, self.whole]
        right = [
            self.answer, self.blocks, self.source, self.status,
            self.turns, self.forget, self.run, self.stop, self.prompt,
        ]  # fmt: skip
        everything = [*left, *right, self.task]
        answering = {
            "fn": self.on_run, "inputs": [self.session, self.task, self.prompt, self.part],
            "outputs": [*right, self.picture], "concurrency_limit": None, **quiet,
        }  # fmt: skip
        gr.on([self.run.click, self.prompt.submit], **answering)
        self.file.upload(self.on_file, [self.session, self.file], everything, **quiet)
        self.number.input(self.on_page, [self.session, self.number], everything, **quiet)
        for button, step in ((self.back, -1), (self.forth, 1)):
            button.click(functools.partial(self.on_step, step), self.session, everything, **quiet)
        self.stop.click(lambda session: session.stop(), self.session, None, queue=False, **quiet)
        self.forget.click(self.on_forget, self.session, [self.turns, self.forget], queue=False, **quiet)
        self.task.change(self.on_task, self.task, [self.prompt, self.warning], queue=False, **quiet)
        self.task.input(self.on_choice, self.session, None, queue=False, **quiet)
        self.part.change(None, self.part, None, js="(part) => window.vtPart && window.vtPart()")
        self.blocks_tab.select(self.on_blocks, self.session, self.picture, **quiet)
        for tab in (self.answer_tab, self.source_tab):
            tab.select(self.on_no_blocks, self.session, self.picture, **quiet)
        for button, example in zip(self.buttons, self.offered, strict=True):
            chosen = button.click(functools.partial(self.on_example, example), self.session, everything, js=UPWARDS,
                                  **quiet)  # fmt: skip
            chosen.then(**answering)
        self.documents.connect(**quiet)

    def on_file(self, session: Session, path: str | None) -> dict:
        """Show a file, with the task that suits it unless the visitor has chosen one."""
        if not path:
            return {self.file: None}
        changes = {**self._open(session, path), self.file: None}
        suitable = session.suitable_task if self.picture in changes and not session.chosen else ""
        return {**changes, self.task: suitable} if suitable in self.tasks else changes

    def on_example(self, example: Example, session: Session) -> dict:
        return {**self._open(session, example.path), self.task: example.task, self.prompt: example.prompt}

    def on_step(self, step: int, session: Session) -> dict:
        return self.on_page(session, min(max(session.page + step, 1), session.page_count))

    def on_page(self, session: Session, number: int) -> dict:
        try:
            session.turn_to(number)
        except DocumentError as error:
            return {**self._shown(session), self.notice: gr.update(value=view.notice(sentence(error)), visible=True)}
        return self._shown(session)

    def on_choice(self, session: Session) -> None:
        """A task that a visitor chose stays for the next files."""
        session.chosen = True

    def on_task(self, task: str | None) -> dict:
        """A prompt box for tasks that take words, and a warning for experimental ones."""
        takes, warning = bool(task) and takes_words(task), self.measured.warning(task)
        return {
            self.prompt: gr.update(visible=takes, placeholder=view.task_hint(task) if takes else ""),
            self.warning: gr.update(visible=bool(warning), value=view.warning(warning)),
        }

    def on_blocks(self, session: Session) -> dict:
        """Draw the blocks of the last answer on the picture, with their numbers in the list."""
        session.outlined = True
        blocks = session.turns[-1].answer.blocks if session.turns else []
        if session.view is None or not blocks:
            return {self.picture: gr.skip()}
        session.marked = True
        return {self.picture: self._saved(session.outlines(blocks))}

    def on_no_blocks(self, session: Session) -> dict:
        outlined, session.outlined = session.outlined, False
        return (self._unmarked(session) if outlined else {}) or {self.picture: gr.skip()}

    def on_forget(self, session: Session) -> dict:
        session.turns = []
        return {self.turns: "", self.forget: gr.update(visible=False)}

    def _open(self, session: Session, path: str) -> dict:
        """Show the first page of a file, without an answer; or an error, which changes nothing else."""
        try:
            session.open(path)
        except DocumentError as error:
            # The server's upload path means nothing to a user.
            message = sentence(error).replace(path, Path(path).name)
            message = f"{message.rstrip('.')}; the picture before it stays." if session.view else message
            return {self.notice: gr.update(value=view.notice(message), visible=True)}
        return self._shown(session)

    def _shown(self, session: Session) -> dict:
        """The session's page, without an answer."""
        pages = [(f"Page {number} of {session.page_count}", number) for number in range(1, session.page_count + 1)]
        visible = session.view is not None
        return {
            self.notice: gr.update(value="", visible=False),
            self.picture: gr.update(value=self._saved(session.view) if visible else None, visible=visible),
            self.part: "",
            self.whole: gr.update(visible=visible),
            self.pager: gr.update(visible=session.page_count > 1),
            self.number: gr.update(choices=pages, value=session.page),
            self.answer: view.placeholder(),
            self.blocks: view.blocks([]),
            self.source: "",
            self.status: "",
            self.turns: "",
            self.forget: gr.update(visible=False),
            **self._buttons(running=False),
        }

    def _saved(self, image) -> str:
        """A PNG in Gradio's cache. Gradio itself would write an image in the event loop of all visitors."""
        folder = Path(self.picture.GRADIO_CACHE) / secrets.token_hex(16)
        folder.mkdir(parents=True)
        image.save(folder / "picture.png", compress_level=2)
        return str(folder / "picture.png")

    async def on_run(self, session: Session, task: str, prompt: str, drawn: str = "") -> AsyncIterator[dict]:
        """Run the task and stream the answer. ``drawn``: the part of the picture to look at, see ``part.place_in``."""
        try:
            if session.view is None:
                raise ValueError("choose another page" if session.data else "choose a picture or a PDF first")
            turn = asked(task, prompt)
            if task not in self.tasks:
                raise ValueError(f"this model was not trained on '{task}'")
            place = part.place_in(drawn, session.size)
            if TASKS[task].view == "drawing" and place is None:
                raise ValueError("draw a rectangle around the place on the picture first")
        except ValueError as error:
            yield await asyncio.to_thread(self._failed, session, error)
            return
        cancel = session.begin()
        rows = [(turn.task, turn.asked, turn.answer.text) for turn in session.turns]
        yield {self.turns: view.turns(rows), self.forget: gr.update(visible=bool(rows)), self.answer: view.live(""),
               self.blocks: view.blocks([]), self.source: "", self.status: view.working(0),
               **await asyncio.to_thread(self._unmarked, session), **self._buttons(running=True)}  # fmt: skip
        try:
            async with aclosing(self._answering(session, cancel, turn, place)) as changes:
                async for change in changes:
                    yield change
        except Exception as error:  # the reader may raise anything: the user gets a sentence, the log the traceback
            if session.cancel is cancel:
                yield await asyncio.to_thread(self._failed, session, error)

    async def _answering(self, session: Session, cancel, turn: Turn, place: Place | None) -> AsyncIterator[dict]:
        start = time.perf_counter()
        reached: list[int] = []  # the block that is read, and their number

        def progress(*place: int) -> None:
            reached[:] = place

        asked = {"task": turn.task, "argument": turn.asked, "history": session.messages(turn.task)}
        asked |= {"place": place} if place else {}
        ask = functools.partial(self.reader.ask, max_new_tokens=MAX_TOKENS, progress=progress, **asked)
        picture = functools.partial(open_page, session.data, session.page)
        async with aclosing(stream(self.line, ask, picture, cancel)) as updates:
            async for update in updates:
                if session.cancel is not cancel:
                    return  # another image is shown by now
                if isinstance(update, Waiting):
                    start = time.perf_counter()
                    yield {self.status: view.waiting(update.place)}
                    continue
                seconds = time.perf_counter() - start
                if isinstance(update, Answer):
                    turn.answer = update
                    changes = await asyncio.to_thread(self._finished, session, turn, seconds)
                    if session.cancel is not cancel:
                        return
                    if update.text and update.image is None:
                        session.turns.append(turn)
                    session.marked = self.picture in changes
                    yield changes
                elif update is None:
                    yield {self.status: view.working(seconds, *reached)}
                else:
                    status = view.working(seconds, *reached)
                    yield {self.answer: view.live(update), self.source: update, self.status: status}

    def _finished(self, session: Session, turn: Turn, seconds: float) -> dict:
        answer, experimental = turn.answer, self.measured.is_experimental(turn.task)
        status = view.finished(self.name, answer, seconds, experimental)
        if answer.text or answer.image is not None:
            status += view.downloads(self._files(session, turn, seconds, experimental))
        if answer.image is not None:
            before = open_page(session.data, session.page)
            shown = view.changed(*(_jpeg(image) for image in (before, answer.image)))
        else:
            shown = view.answer(answer, turn.task)
        changes = {
            self.answer: shown,
            self.blocks: view.blocks(answer.blocks),
            self.source: answer.text,
            self.status: status,
            **self._buttons(running=False),
        }
        if answer.image is None and answer.boxes or (turn.task == "spot" and answer.blocks):
            changes[self.picture] = self._saved(session.drawn(turn))
        elif answer.blocks and session.outlined:
            changes[self.picture] = self._saved(session.outlines(answer.blocks))
        if turn.task in ("chat", "vqa"):
            changes[self.prompt] = ""
        return changes

    def _files(self, session: Session, turn: Turn, seconds: float, experimental: bool) -> dict[str, str | bytes]:
        """File name -> contents for saving. The confidence of an experimental answer would mislead and is left out."""
        answer = turn.answer
        stem = Path(session.name).stem + (f"-page-{session.page}" if session.page_count > 1 else "")
        if answer.image is not None:
            return {f"{stem}-changed.png": png(answer.image)}
        page = Page(session.page, session.page_count, functools.partial(open_page, session.data, session.page))
        record = record_of(self.name, session.name, page, turn.task, answer)
        record |= {"prompt": turn.asked, "experimental": experimental, "seconds": round(seconds, 3)}
        record |= {"confidence": None} if experimental else {}
        files: dict[str, str | bytes] = {f"{stem}.md": answer.markdown} if answer.markdown else {}
        files |= {f"{stem}.txt": answer.text, f"{stem}.json": json.dumps(record, ensure_ascii=False, indent=2)}
        for kind in (FORMATS[name] for name in _FORMATS if answer.blocks):
            contents = kind.write([record], session.data, None)
            if len(contents) <= _LARGEST:
                files[f"{stem}.{kind.suffix}"] = contents
        return files

    def _failed(self, session: Session, error: Exception) -> dict:
        """Show the error, and clear the previous answer, which would be taken for the new one."""
        return {self.status: view.notice(sentence(error)), self.answer: view.placeholder(), self.source: "",
                self.blocks: view.blocks([]), **self._unmarked(session), **self._buttons(running=False)}  # fmt: skip

    def _unmarked(self, session: Session) -> dict:
        """The image without boxes, if the last answer's boxes are drawn on it."""
        if session.view is None or not session.marked:
            return {}
        session.marked = False
        return {self.picture: self._saved(session.view)}

    def _buttons(self, running: bool) -> dict:
        return {self.run: gr.update(visible=not running), self.stop: gr.update(visible=running)}

    def launch(self, host: str, port: int) -> str:
        """Serve in background threads. Returns the address."""
        self.page.queue(default_concurrency_limit=8)
        _, address, _ = self.page.launch(
            server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, inbrowser=False,
            prevent_thread_lock=True, footer_links=["api"], max_file_size="100mb", theme=look.theme(),
            css=look.CSS + part.CSS, js=look.SCRIPT, max_threads=WORKERS,
        )  # fmt: skip
        return address


def _jpeg(image: Image.Image) -> bytes:
    """A picture at most as large as the page shows it."""
    data = io.BytesIO()
    shown = image.convert("RGB")
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    shown.save(data, "JPEG", quality=92)
    return data.getvalue()


def _in_a_sentence(preprocess):
    """Turn errors of Gradio's components into a sentence without a traceback in the log. The page's own buttons send no
    invalid values, such as a missing page or a path instead of an upload."""

    async def checked(*arguments, **options):
        try:
            return await preprocess(*arguments, **options)
        except Exception as error:  # each component raises its own
            reason = f"the page cannot take what was sent to it: {first_line(error)}"
            raise gr.Error(reason, print_exception=False) from error

    return checked
