"""Reader: what a user holds. ``Reader.from_pretrained("nano").ocr(image)``."""

import re
import threading
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoProcessor

from varytoy import layout
from varytoy.generation import Generated, generate
from varytoy.model import VaryForConditionalGeneration
from varytoy.processing import Message, VaryProcessor
from varytoy.tasks import Answer, Task, get_task

Show = Callable[[str], None]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_MOST_ENLARGED = 4.0
_MOST_LINES = 8


class ModelError(ValueError):
    """A model that cannot be loaded; the message says what is missing and where."""


class Reader:
    """A model with its processor, for pictures and pages of any size.

    Attributes:
        name: what the model was loaded as.
        batch_size: blocks of a page that are read together.
    """

    def __init__(
        self, model: VaryForConditionalGeneration, processor: VaryProcessor, name: str = "", batch_size: int = 12
    ):
        self.model, self.processor, self.name, self.batch_size = model.eval(), processor, name, batch_size

    @classmethod
    def from_pretrained(cls, name: str = "nano", device: str = "auto") -> "Reader":
        """Load the embedded model (``nano``), a folder or a hub id.

        Raises:
            ModelError: the folder is no model, or the hub cannot give it.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "nano":
            with as_file(files("varytoy") / "nano") as folder:
                if not (folder / "model.safetensors").is_file():
                    raise ModelError("this installation lacks the embedded model; name another with --model")
                return cls(*_load(str(folder)), name="vary-nano").to(device)
        return cls(*_load(name), name=name).to(device)

    def to(self, device: str) -> "Reader":
        self.model.to(device)
        return self

    def ocr(self, image: Image.Image, **options) -> Answer:
        return self.ask(image, "ocr", **options)

    def markdown(self, image: Image.Image, **options) -> Answer:
        return self.ask(image, "markdown", **options)

    def detect(self, image: Image.Image, classes: str = "", **options) -> Answer:
        return self.ask(image, "detect", classes, **options)

    def ground(self, image: Image.Image, phrase: str, **options) -> Answer:
        return self.ask(image, "ground", phrase, **options)

    def caption(self, image: Image.Image, **options) -> Answer:
        return self.ask(image, "caption", **options)

    def vqa(self, image: Image.Image, question: str, **options) -> Answer:
        return self.ask(image, "vqa", question, **options)

    def ask(
        self,
        image: Image.Image,
        task: str = "ocr",
        argument: str = "",
        history: Sequence[Message] = (),
        max_new_tokens: int = 1024,
        show: Show | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """One task on one picture. Text that does not fit in one pass is read as a page.

        Args:
            argument: the phrase, question or classes, for the tasks that take one.
            history: earlier turns on this picture; the first user turn holds ``<image>``.
            show: called with the text so far.
            cancel: set from another thread to stop.

        Raises:
            ValueError: unknown task, or an argument that is missing.
        """
        chosen = get_task(task)
        prompt = chosen.prompt(argument)
        view = image
        if chosen.view == "text" and self._reads_blocks:
            view = self.fit_text(image)
            if not history and not self._fits_one_pass(view):
                return self.read_page(image, task, max_new_tokens, show, cancel)
        messages = [*history, {"role": "user", "content": prompt if history else f"<image>\n{prompt}"}]
        found = self.generate([messages], [view], chosen, max_new_tokens, show, cancel)[0]
        answer = chosen.parse(found.text, image.size, argument)
        answer.stop_reason, answer.confidence = found.stop_reason, found.confidence
        return answer

    def read_page(
        self,
        image: Image.Image,
        task: str = "ocr",
        max_new_tokens: int = 1024,
        show: Show | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Read a page: cut it into blocks by white space, bring each to the size that the model reads best, read them
        in batches, join. An empty page gives an empty text."""
        chosen = get_task(task)
        image = image.convert("RGB")
        blocks = [block for block in layout.cut_blocks(image) if block.kind == "text"]
        if not blocks:
            return Answer("", markdown="" if task == "markdown" else None, confidence=1.0)
        messages = [{"role": "user", "content": f"<image>\n{chosen.prompt()}"}]
        done: list[Generated] = []
        text = ""
        for start in range(0, len(blocks), self.batch_size):
            part = blocks[start : start + self.batch_size]
            crops = [layout.crop_block(image, block, self.processor.image_processor.text_size) for block in part]
            live = _prefixed(show, text) if show else None
            done += self.generate([messages] * len(part), crops, chosen, max_new_tokens, live, cancel)
            text = layout.join_blocks([row.text for row in done], blocks[: len(done)])
            if show:
                show(text)
            if cancel is not None and cancel.is_set():
                break
        answer = chosen.parse(text, image.size)
        answer.stop_reason = next((row.stop_reason for row in done if row.stop_reason != "end"), "end")
        tokens = sum(row.tokens for row in done)
        answer.confidence = sum(row.confidence * row.tokens for row in done) / max(tokens, 1)
        return answer

    def fit_text(self, image: Image.Image) -> Image.Image:
        """The picture at the size at which the model reads its letters best; as it is where no text is found."""
        image = image.convert("RGB")
        size = layout.estimate_text_size(image)
        if not size or not self._reads_blocks:
            return image
        scale = min(self.processor.image_processor.text_size / size, _MOST_ENLARGED)
        if abs(scale - 1) < 0.08:
            return image
        return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)), Image.LANCZOS)

    @property
    def _reads_blocks(self) -> bool:
        """Small models read a block at a time; those that squash a page into a square read it whole."""
        return self.processor.image_processor.mode == "fit"

    def _fits_one_pass(self, view: Image.Image) -> bool:
        """Whether a picture with letters of the model's size is no more than it was taught to read at once."""
        if view.width * view.height > self.processor.image_processor.max_pixels:
            return False
        blocks = layout.cut_blocks(view)
        return sum(block.lines for block in blocks) <= _MOST_LINES and all(block.kind == "text" for block in blocks)

    def generate(
        self,
        conversations: Sequence[Sequence[Message]],
        images: Sequence[Image.Image],
        task: Task,
        max_new_tokens: int = 1024,
        show: Show | None = None,
        cancel: threading.Event | None = None,
    ) -> list[Generated]:
        """Raw answers to a batch of conversations with one image each."""
        inputs = self.processor(list(conversations), [[image] for image in images], task.view)
        return generate(self.model, self.processor, inputs, max_new_tokens, show, cancel)


def _prefixed(show: Show, before: str) -> Show:
    return lambda text: show(f"{before}\n\n{text}" if before else text)


def _load(name: str) -> tuple[VaryForConditionalGeneration, VaryProcessor]:
    folder = Path(name)
    if folder.exists() or not _HUB_ID.fullmatch(name):
        missing = [
            entry
            for entry in ("config.json", "processor_config.json", "tokenizer.json")
            if not (folder / entry).is_file()
        ]
        if not list(folder.glob("*.safetensors")):
            missing.append("model.safetensors")
        if missing:
            raise ModelError(f"{name} is not a varytoy model: it lacks {', '.join(missing)}")
    try:
        model = VaryForConditionalGeneration.from_pretrained(name, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"cannot load the model '{name}': {reason}") from error
    return model, processor
