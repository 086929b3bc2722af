"""The browser demo: ``python demo/app.py [--model FOLDER_OR_HUB_ID] [--host HOST] [--port PORT]``."""

import os

# Gradio reads this when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import argparse  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    import gradio as gr  # noqa: E402
except ImportError:
    from varytoy.extras import pip_line

    sys.exit(f"The demo needs Gradio: {pip_line('demo')}")

from demo import look, view  # noqa: E402
from demo.pictures import Example, examples, thumbnail  # noqa: E402
from demo.session import Session, Turn, resolve, sentence, stream  # noqa: E402
from varytoy.documents import DocumentError  # noqa: E402
from varytoy.options import device_options  # noqa: E402
from varytoy.reader import ModelError, Reader  # noqa: E402
from varytoy.tasks import Answer, get_task  # noqa: E402

SHOWN_SIDE = 1600


class Demo:
    """The page and what its buttons do. ``reader`` needs ``ask`` and ``name``."""

    def __init__(self, reader, error: str, offered: list[Example]):
        self.reader, self.offered, self.name = reader, offered, view.model_name(reader.name)
        # Uploads are deleted an hour after they came.
        self.page = gr.Blocks(title="varytoy", analytics_enabled=False, fill_width=True, delete_cache=(600, 3600))
        with self.page:
            self.session = gr.State(Session())
            gr.HTML(view.header(self.name, error))
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=320, elem_classes="vt-left"):
                    self._picture_side()
                with gr.Column(scale=6, min_width=320):
                    self._answer_side()
            self._examples()
            self._connect()

    def _picture_side(self) -> None:
        self.file = gr.File(label="Picture or PDF", elem_id="file", show_label=False, height=302)
        self.notice = gr.HTML(elem_id="notice", visible=False)
        self.picture = gr.Image(
            type="pil", format="png", elem_id="picture", label="Picture", show_label=False, interactive=False,
            visible=False, buttons=["download", "fullscreen"], alt_text="The picture that is read",
        )  # fmt: skip
        with gr.Row(elem_id="pager", visible=False) as self.pager:
            self.back = gr.Button("‹", size="sm", elem_id="back")
            self.number = gr.Dropdown(show_label=False, container=False, elem_id="page", interactive=True)
            self.forth = gr.Button("›", size="sm", elem_id="forth")

    def _answer_side(self) -> None:
        self.task = gr.Radio(
            view.task_choices(), value="ocr", elem_id="task", label="Task", show_label=False, container=False
        )
        with gr.Row(elem_id="ask"):
            self.prompt = gr.Textbox(
                elem_id="prompt", label="Prompt", show_label=False, container=False, lines=1, max_lines=4,
                placeholder=view.task_hint("ocr"), max_length=2000, scale=1,
            )  # fmt: skip
            self.run = gr.Button("Run", variant="primary", elem_id="run")
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
        with gr.Column(elem_id="answers"):
            with gr.Tabs():
                with gr.Tab("Answer"):
                    self.answer = gr.HTML(view.placeholder(), elem_id="answer", autoscroll=True)
                with gr.Tab("Source"):
                    self.source = gr.Textbox(
                        elem_id="source", show_label=True, lines=8, max_lines=24, buttons=["copy"],
                        interactive=False, label="Source",
                    )  # fmt: skip
            self.status = gr.HTML(elem_id="status")
        self.turns = gr.HTML(elem_id="turns")
        self.forget = gr.Button("Forget these turns", size="sm", variant="secondary", elem_id="forget", visible=False)

    def _examples(self) -> None:
        gr.HTML('<section class="vt-examples"><h2>Or try one of these</h2></section>')
        with gr.Row(elem_id="examples"):
            self.buttons = [gr.Button(example.title, icon=thumbnail(example)) for example in self.offered]
        for button in self.buttons:
            button.keep_in_cache.add(button.icon["path"])

    def _connect(self) -> None:
        """Wire the events. Answers are made one at a time; everything else answers at once."""
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        left = [self.file, self.notice, self.picture, self.pager, self.number]
        right = [self.answer, self.source, self.status, self.turns, self.forget, self.run, self.stop, self.prompt]
        everything = [*left, *right, self.task]
        answering = {
            "fn": self.on_run, "inputs": [self.session, self.task, self.prompt], "outputs": [*right, self.picture],
            "concurrency_limit": 1, "concurrency_id": "model", **quiet,
        }  # fmt: skip
        gr.on([self.run.click, self.prompt.submit], **answering)
        self.file.upload(self.on_file, [self.session, self.file], everything, **quiet)
        self.number.input(self.on_page, [self.session, self.number], everything, **quiet)
        for button, step in ((self.back, -1), (self.forth, 1)):
            button.click(lambda session, step=step: self.on_page(session, session.page + step), self.session,
                         everything, **quiet)  # fmt: skip
        self.stop.click(lambda session: session.stop(), self.session, None, queue=False, **quiet)
        self.forget.click(self.on_forget, self.session, [self.turns, self.forget], queue=False, **quiet)
        self.task.change(lambda task: gr.update(placeholder=view.task_hint(task)), self.task, self.prompt, **quiet)
        for button, example in zip(self.buttons, self.offered, strict=True):
            chosen = button.click(lambda session, example=example: self.on_example(session, example), self.session,
                                  everything, **quiet)  # fmt: skip
            chosen.then(**answering)

    def on_file(self, session: Session, path: str | None) -> dict:
        return {**self._open(session, path, 1), self.file: None} if path else {self.file: None}

    def on_page(self, session: Session, number: int) -> dict:
        number = min(max(number, 1), session.of)
        return self._open(session, session.path, number) if session.path else {self.file: None}

    def on_example(self, session: Session, example: Example) -> dict:
        return {**self._open(session, example.path, 1), self.task: example.task, self.prompt: example.prompt}

    def on_forget(self, session: Session) -> dict:
        session.turns = []
        return {self.turns: "", self.forget: gr.update(visible=False)}

    def _open(self, session: Session, path: str, page: int) -> dict:
        """Show a page of a file, with nothing asked yet; or say why not and leave the rest."""
        try:
            session.open(path, page)
        except DocumentError as error:
            # Where the server keeps uploads says nothing to a user.
            said = sentence(error).replace(path, Path(path).name)
            return {self.notice: gr.update(value=view.notice(said), visible=True)}
        pages = [(f"Page {number} of {session.of}", number) for number in range(1, session.of + 1)]
        return {
            self.notice: gr.update(value="", visible=False),
            self.picture: gr.update(value=shown(session.image), visible=True),
            self.pager: gr.update(visible=session.of > 1),
            self.number: gr.update(choices=pages, value=session.page),
            self.answer: view.placeholder(),
            self.source: "",
            self.status: "",
            self.turns: "",
            self.forget: gr.update(visible=False),
            **self._buttons(running=False),
        }

    def on_run(self, session: Session, task: str, prompt: str) -> Iterator[dict]:
        """Ask, and stream what comes."""
        if session.image is None:
            yield {self.status: view.notice("Choose a picture or a PDF first.")}
            return
        try:
            task, argument = resolve(task, prompt)
            said = get_task(task).prompt(argument)
        except ValueError as error:
            yield {self.status: view.notice(sentence(error))}
            return
        cancel = session.begin()
        yield {**self._earlier(session), **self._buttons(running=True), self.picture: shown(session.image),
               self.answer: view.live(""), self.source: "", self.status: view.working(0)}  # fmt: skip
        yield from self._answering(session, cancel, Turn(task, argument, said, Answer("")))

    def _answering(self, session: Session, cancel, turn: Turn) -> Iterator[dict]:
        start = time.perf_counter()
        history = session.messages(turn.task)
        try:
            for found in stream(self.reader, session.image, turn.task, turn.asked, history, cancel):
                if session.cancel is not cancel:
                    return  # another picture is shown by now
                seconds = time.perf_counter() - start
                if isinstance(found, Answer):
                    turn.answer = found
                    yield self._finish(session, turn, seconds)
                elif found is None:
                    yield {self.status: view.working(seconds)}
                else:
                    yield {self.answer: view.live(found), self.source: found, self.status: view.working(seconds)}
        except Exception as error:
            yield {self.status: view.notice(sentence(error)), self.answer: view.placeholder(),
                   **self._buttons(running=False)}  # fmt: skip

    def _finish(self, session: Session, turn: Turn, seconds: float) -> dict:
        found, task = turn.answer, get_task(turn.task)
        session.turns.append(turn)
        changes = {
            self.answer: view.answer(found),
            self.source: found.text,
            self.status: view.finished(self.name, found, seconds),
            **self._buttons(running=False),
        }
        if found.boxes:
            changes[self.picture] = shown(task.draw(session.image, found))
        if turn.task in ("chat", "vqa"):
            changes[self.prompt] = ""
        return changes

    def _earlier(self, session: Session) -> dict:
        rows = [(turn.task, turn.asked, turn.answer.text) for turn in session.turns]
        return {self.turns: view.turns(rows), self.forget: gr.update(visible=bool(rows))}

    def _buttons(self, running: bool) -> dict:
        return {self.run: gr.update(visible=not running), self.stop: gr.update(visible=running)}

    def launch(self, host: str, port: int) -> str:
        """Serve from threads of their own. Returns the address."""
        self.page.queue(default_concurrency_limit=8)
        _, address, _ = self.page.launch(
            server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, inbrowser=False,
            prevent_thread_lock=True, footer_links=[], max_file_size="100mb", theme=look.theme(), css=look.CSS,
            js=look.SCRIPT,
        )  # fmt: skip
        return address


def shown(image):
    """A copy that is no larger than a screen."""
    image = image.copy()
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return image


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port: a number from 1 to 65535")
    return int(text)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A page in the browser where a model reads pictures and PDFs.")
    parser.add_argument("--model", default="nano", metavar="FOLDER_OR_HUB_ID", help="default: the embedded model, nano")
    device_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=_port, default=7860, help="default: 7860")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    chosen = arguments(words)
    try:
        reader = Reader.from_pretrained(chosen.model, chosen.device, chosen.dtype, chosen.quantize)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(reader, view.known_error(chosen.model), examples(Path(folder)))
        try:
            demo.launch(chosen.host, chosen.port)
        except OSError:
            reason = "the port is taken or the address is not this machine's; choose another with --port or --host"
            print(f"cannot serve on {chosen.host}:{chosen.port}: {reason}", file=sys.stderr)
            return 2
        print(f"{reader.name} on {reader.precision.reason}")
        print(f"Open http://{chosen.host}:{chosen.port} in a browser; Ctrl+C ends.", flush=True)
        demo.page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
