"""Reader: the high-level interface. ``Reader.from_pretrained("nano").ocr(image)``."""

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from varytoy import layout
from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer, Region
from varytoy.data.documents import DocumentError, Page, Source, open_pages, to_rgb
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.devices.precision import Precision
from varytoy.inference.asking import Options, Show, stream
from varytoy.inference.calibration import calibrated_answer
from varytoy.inference.drafts import PlacedWord
from varytoy.inference.drawing import Drawer
from varytoy.inference.engine import Engine, Request
from varytoy.inference.history import fit_history, with_placeholders
from varytoy.inference.join import join_pages
from varytoy.inference.known_words import lines_in, tesseract_words, view_of
from varytoy.inference.load_engine import load
from varytoy.inference.many import TOGETHER, PageAnswer, inputs_of, read_many
from varytoy.inference.output import OutputFolder
from varytoy.inference.page_reading import read_page, surer
from varytoy.inference.parts import Parts
from varytoy.inference.pieces import read_pieces, shifted
from varytoy.inference.shared import SharedEngine, share
from varytoy.inference.text_answers import Readings, answer_from_text
from varytoy.inference.words import locate, with_words
from varytoy.layout.fitting import fit_text
from varytoy.layout.formulas import formula_view
from varytoy.layout.frames import Box, Place, find_place
from varytoy.layout.page import PageLayout
from varytoy.options import DRAFTS
from varytoy.processing.messages import Message
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS, Task, get_task

Sources = Source | Sequence[Source]
_RAW = ("stop_reason", "confidence", "tokens", "prompt_tokens", "loops", "image", "words", "number_gap")
"""What an engine tells of an answer beside its text."""
_LONGEST = 20
"""Longer side over shorter side, above which a model that reads pages whole reads one in pieces."""


class Reader:
    """A model for images and pages of any size.

    Attributes:
        engine: backend that runs the model.
        name: the name, folder or hub id that the model was loaded from.
        parts: the checkpoint's own models for pictures and formulas.
        precision: device and dtype, if ``from_pretrained`` chose them.
        calibration: scales of answers' confidences by task (varytoy.inference.calibration).
        drawing: loads what draws in pictures, if the checkpoint has an image decoder.
    """

    precision: Precision | None = None
    calibration: Mapping[str, tuple[float, float]] = {}
    drawing: Callable[[], Drawer] | None = None

    def __init__(self, engine: Engine, name: str = "", parts: Parts | None = None):
        self.engine, self.name, self.parts, self._readings = engine, name, parts or Parts(), Readings()

    @property
    def processor(self) -> VaryProcessor:
        return self.engine.processor

    @property
    def picture_engine(self) -> Engine:
        """The engine for pictures; that for text if the checkpoint has no part of its own for them."""
        return self.engine_for("picture")

    @property
    def drawer(self) -> Drawer:
        """What draws in pictures. Raises ModelError for a checkpoint without an image decoder, or a damaged one."""
        if self.drawing is None:
            raise ModelError(f"{self.name or 'this model'} has no image decoder: it reads and cannot draw")
        return self.drawing()

    def shared(self, fair: bool = True) -> "Reader":
        """A reader with the same models for several threads, whose requests join the same batches. ``fair``: each call
        gets its turn; else the oldest goes first. ``close`` ends it."""
        other = Reader(share(self.engine, fair), self.name, self.parts.shared(fair))
        other.precision, other.calibration, other._readings = self.precision, self.calibration, self._readings
        other.drawing = self.drawing
        return other

    def close(self) -> None:
        """End the threads of a reader for several."""
        if isinstance(self.engine, SharedEngine):
            self.engine.close()
        self.parts.close()

    def engine_for(self, view: str) -> Engine:
        """The engine for requests with ``view``: that of the checkpoint's part for it, loaded with the first of them,
        or the engine for text."""
        return self.parts.engine(view) or self.engine

    @classmethod
    def from_pretrained(
        cls,
        name: str = "nano",
        device: str = "auto",
        dtype: str = "auto",
        quantize: str = "",
        runtime: str = "torch",
    ) -> "Reader":
        """Load the embedded model (``nano``), a folder or a hub id: a varytoy checkpoint, or one in a layout that
        ``varytoy convert`` supports, converted in memory.

        Args:
            device: auto, cpu, cuda, cuda:1, mps.
            dtype: auto (see varytoy.devices.precision), fp32, fp16, bf16. For models as small as ``nano`` auto is fp32.
            quantize: int8, nf4 or dynamic-int8 for the decoder; not applied if the device does not support it, which
                ``precision.reason`` tells.
            runtime: ``onnx`` for the image encoders in ONNX Runtime, on a CPU; ``transformers`` for GOT-OCR2 in
                transformers' own class (KOSMOS-2.5 always runs in its own).

        Raises:
            ModelError: the folder holds no model, the hub does not provide it, or the device is not available.
        """
        loaded = load(name, device, dtype, quantize, runtime)
        reader = cls(loaded.engine, loaded.name, Parts(loaded.parts))
        reader.precision, reader.calibration = loaded.precision, loaded.calibration
        if loaded.drawing is not None:
            folder = loaded.drawing
            reader.drawing = functools.cache(lambda: Drawer.beside(folder, reader.picture_engine))
        return reader

    def ocr(self, source: Sources, **options) -> Answer | list[Answer]:
        return self.ask(source, "ocr", **options)

    def markdown(self, source: Sources, **options) -> Answer | list[Answer]:
        return self.ask(source, "markdown", **options)

    def spot(self, source: Sources, **options) -> Answer | list[Answer]:
        return self.ask(source, "spot", **options)

    def detect(self, source: Sources, classes: str = "", **options) -> Answer | list[Answer]:
        return self.ask(source, "detect", classes, **options)

    def ground(self, source: Sources, phrase: str, **options) -> Answer | list[Answer]:
        return self.ask(source, "ground", phrase, **options)

    def caption(self, source: Sources, **options) -> Answer | list[Answer]:
        return self.ask(source, "caption", **options)

    def vqa(self, source: Sources, question: str, **options) -> Answer | list[Answer]:
        return self.ask(source, "vqa", question, **options)

    def stream(self, source: Source, task: str = "ocr", argument: str = "", cancel=None, **options):
        """An iterator: the text of ``ask`` so far, whenever there is more, and last the answer; see
        ``asking.stream``. For several at once use those of ``shared()``. Raises ValueError for a list."""
        if isinstance(source, (list, tuple)):
            raise ValueError("stream takes one image or document: call it for each")
        return stream(functools.partial(self.ask, source, task, argument, **options), cancel)

    def chat(
        self,
        messages: Sequence[Message],
        images: Sequence[Source] = (),
        max_new_tokens: int = 1024,
        show: Show | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """The answer to the last turn of a conversation about any number of images.

        Args:
            messages: turns ``{"role", "content"}`` in turn, the last of the user. ``<image>`` in their contents stands
                for each image; without any, all images come first.
            images: of each the first page.

        Raises:
            ValueError: there are more or fewer placeholders than images, or too many turns for the model.
            DocumentError: an image cannot be opened.
        """
        start, task = time.perf_counter(), get_task("chat")
        views = [next(iter(open_pages(image))).image for image in images]
        request = Request.of(task, with_placeholders(messages, len(views)), views, max_new_tokens)
        size = views[0].size if len(views) == 1 else (0, 0)
        return self._timed(
            self._generate(request, size, Options(task, "", "", (), max_new_tokens, show, cancel)), task, start
        )

    def read_many(
        self,
        sources: Iterable[Source],
        task: str = "",
        argument: str = "",
        *,
        out: str | Path | None = None,
        output: str = "jsonl",
        resume: bool = True,
        password: str | None = None,
        max_new_tokens: int = 1024,
        together: int = TOGETHER,
        drafts: str = "model",
    ) -> Iterator[PageAnswer]:
        """The answers to the pages of files, folders, patterns, images and bytes, in order. A file or page that fails
        gives its ``error``. Pages are read ``together``: their blocks fill the model's batches.

        Args:
            task: empty: of a page of text ``ocr``, of a photograph ``caption``.
            out: folder for a file ``NAME.SUFFIX`` of each document; finished pages are kept when it is interrupted.
            output: format of the files (``varytoy.outputs.FORMATS``).
            resume: leave out the files and pages that ``out`` has; else they are replaced.

        Raises:
            ValueError: a name without files, an unknown task or format; on the first step.
        """
        settings = {"task": task, "argument": argument, "max_new_tokens": max_new_tokens, "model": self.name}
        folder = OutputFolder(out, output, settings, resume, not resume, password) if out is not None else None
        get_task(task or "ocr").prompt(argument)
        pages = read_many(
            self,
            inputs_of(sources),
            task,
            argument,
            password=password,
            max_new_tokens=max_new_tokens,
            together=together,
            drafts=drafts,
            finished=folder.begin if folder else lambda item: (),
        )
        for page in pages:
            if folder:
                folder.add(page)
            yield page
        if folder:
            folder.close()

    def ask(
        self,
        source: Sources,
        task: str = "ocr",
        argument: str = "",
        history: Sequence[Message] = (),
        max_new_tokens: int = 1024,
        show: Show | None = None,
        cancel: threading.Event | None = None,
        password: str | None = None,
        drafts: str = "model",
        progress: Callable[[int, int], None] | None = None,
        place: Place | None = None,
        tiles: int = 1,
        resolution: int = 0,
    ) -> Answer | list[Answer]:
        """Run one task on an image or a document. Text is read line by line, and cell by cell in tables and forms.

        Args:
            source: a PIL image, a path or a file's bytes; a list of them gives a list of answers. A document of
                several pages gives one answer, whose ``pages`` are those of its pages.
            argument: the phrase, question or classes, for the tasks that take one.
            history: earlier turns about this image; the first user turn holds ``<image>``. The oldest are dropped if
                they exceed the model's context.
            show: called with the text so far.
            cancel: set from another thread to stop.
            password: of a protected PDF.
            drafts: where drafts of text come from, which the model checks: its own head for letters (``model``), a
                ``pdf``'s text layer, or ``tesseract``. They change the time, not the answer, but for dynamic-int8.
            progress: called while a page is read, with the number of the block and of all blocks.
            place: the part of the image to look at: x1, y1, x2, y2 in its pixels, or ``red``, ``green`` or ``blue`` for
                what stands in a frame of that colour. Regions of the answer are of the whole image.
            tiles: for models that resize pages to a square: cut the image into at most so many squares of the model's
                size, and add it as a whole (``processing.tiling``). ``resolution``: side of the square in pixels.

        Raises:
            ValueError: unknown task, an argument that is missing or one that the task does not take, a question too
                long for the model, unknown drafts, a place that is not in the image, no such tiles or resolution.
            DocumentError: the file cannot be opened. In a list, and for one of several pages, the message is the
                answer's ``error`` instead.
        """
        chosen = get_task(task)
        prompt = self.prompt_of(chosen, argument)  # raises before anything is opened
        if drafts not in DRAFTS:
            raise ValueError(f"no drafts '{drafts}'; there are {', '.join(DRAFTS)}")
        options = Options(
            chosen, argument, prompt, history, max_new_tokens, show, cancel, drafts, progress=progress, place=place
        )
        options = options.sized(resolution, tiles, self.engine_for(chosen.view).processor.image_processor)
        if isinstance(source, (list, tuple)):
            return self._each(source, options, password)
        return self._document(source, options, password)

    def _each(self, sources: Sequence[Source], options: Options, password: str | None) -> list[Answer]:
        answers = []
        for source in sources:
            if options.cancelled:
                answers.append(Answer("", stop_reason="cancelled"))
            else:
                answers.append(self._ask_or_error(lambda source=source: self._document(source, options, password)))
        return answers

    def _document(self, source: Source, options: Options, password: str | None) -> Answer:
        start = time.perf_counter()
        return self._timed(self._uncalibrated(source, options, password), options.task, start)

    def _timed(self, answer: Answer, task: Task, start: float) -> Answer:
        """The answer with its time since ``start``, and its confidences on the checkpoint's scale."""
        answer.seconds = time.perf_counter() - start
        scale = None if answer.context else self.calibration.get(task.name)
        return answer if scale is None else calibrated_answer(answer, scale)

    def _uncalibrated(self, source: Source, options: Options, password: str | None) -> Answer:
        pages = list(open_pages(source, password=password))
        if len(pages) == 1:
            return self._read(pages[0], options)
        answers: list[Answer] = []
        for page in pages:
            before = "".join(f"{answer.text}\n\n" for answer in answers)
            live = replace(options, show=(lambda text, before=before: options.show(before + text)))
            part = live if options.show else options
            answers.append(self._ask_or_error(lambda page=page, part=part: self._read(page, part)))
            page.forget()
            if options.cancelled:
                break
        return join_pages(answers)

    def _ask_or_error(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except DocumentError as error:
            return Answer("", stop_reason="error", error=str(error))

    def _read(self, opened: Page, options: Options) -> Answer:
        image = opened.image
        if options.task.view == "drawing":
            return self.drawer.answer(image, options)
        if options.task.asks and "question" in self.parts.views and layout.is_text(image):
            reading = self._readings.of(self._read, opened, options, self.prompt_of(get_task("spot")))
            found = answer_from_text(self.engine_for("question"), reading, options)
            if found is not None:
                return found
        if options.place is not None:
            answer = self._look_at(find_place(options.place, image), image, options)
        else:
            if options.drafts == "pdf" and options.task.view == "text":
                options = replace(options, words=opened.words())
            answer = self._look(image, options)
        if options.task.reads and (answer.regions or self._reads_blocks):
            answer.text = options.task.from_lines(answer.lines, image.size)
        return answer

    def _look_at(self, box: Box, image: Image.Image, options: Options) -> Answer:
        """The answer about ``options.place``, which is a box of the image."""
        if self.processor.takes_place:
            answer = self._one_pass(image, image.size, options)
            answer.regions = [Region(box, text=answer.text, score=answer.confidence)] if answer.text else []
            answer.words = []
            return answer
        answer = self._look(image.crop(box), options)
        answer.regions = shifted(answer.regions, box)
        answer.size = image.size
        return answer

    def _look(self, image: Image.Image, options: Options) -> Answer:
        """The answer about a page or picture that may stand turned."""
        page = PageLayout(image, options.cancel)
        if options.task.view != "text" or options.history:
            return self._upright(page, options)
        upright, rotation, certain = page.upright()
        if not certain and not options.cancelled:
            upright, rotation = surer(self.engine, page, upright, rotation, options)
        if upright is not page:
            options = replace(options, words=())
        answer = self._upright(upright, options)
        answer.turned = rotation.turn
        if upright is not page:
            size = upright.image.size
            answer.regions = [region.moved(lambda point: rotation.back(point, size)) for region in answer.regions]
            answer.size = image.size
        return answer

    def _upright(self, page: PageLayout, options: Options) -> Answer:
        task, image = options.task, page.image
        if options.drafts == "tesseract" and task.view == "text":
            options = replace(options, words=tesseract_words(image))
        box, view = (0, 0, *image.size), image
        if task.view == "formula" and self.engine_for("formula").processor.image_processor.mode == "fit":
            view = formula_view(page) or image
        elif task.view == "text" and self._reads_blocks:
            if not options.history:
                return read_page(self.engine, page, options, self.parts)
            settings = self.processor.image_processor
            part = page.one_pass(settings.text_size, settings.max_pixels)
            box = part or box
            view = fit_text(page, settings.text_size, part)
        elif task.view == "text" and not options.history and max(image.size) > _LONGEST * min(image.size):
            return read_pieces(self._one_pass, image, options)
        scale = (box[2] - box[0]) / view.width
        rows = [cell.box for block in page.blocks for cell in block.cells] if view is not image else []
        known: list[list[PlacedWord]] = []
        if options.words:
            known = lines_in(options.words, box, view_of(box, scale), page.text_size, rows)
        answer = self._one_pass(view, image.size, options, known)
        if task.view == "text" and answer.text and not answer.blocks and not task.reads:
            region = Region(box, text=answer.text, score=answer.confidence)
            if task.literal:
                step = self.processor.place_size[1] * scale
                region = locate(region, answer.words, rows, page.ink, lambda x: box[0] + x * scale, step)
            answer.regions = [region, *answer.objects]
        elif task.view == "text":
            answer.regions = [with_words(line, page.ink) for line in answer.blocks]
        answer.words = []
        return answer

    def _one_pass(
        self, view: Image.Image, size: tuple[int, int], options: Options, known: Sequence[Sequence[PlacedWord]] = ()
    ) -> Answer:
        """``view``: the image that the model gets; ``size``: of the file, in whose pixels boxes are given."""
        task = options.task
        engine = self.engine_for(task.view)
        images = engine.processor.image_processor
        tiling = options.tiling(view.size, images)
        plan = images.plan(view.size, task.view, tiling)
        messages = fit_history(engine, options.history, options.prompt, plan, options.max_new_tokens)
        request = replace(Request.of(task, messages, [view], options.max_new_tokens, known), tiling=tiling)
        if self.processor.takes_place:
            request = replace(request, place=options.place)
        return self._generate(request, size, options)

    def _generate(self, request: Request, size: tuple[int, int], options: Options) -> Answer:
        """The answer to one request."""
        task, show = options.task, options.show
        live = (lambda texts: show(texts[0] if texts else "")) if show else None
        raw, *_ = self.engine_for(task.view).generate([request], live, options.cancel) or [
            Answer("", stop_reason="cancelled")
        ]
        answer = task.parse(raw.text, size, options.argument)
        if raw.regions or raw.dropped:  # of a model that finds lines
            answer.regions, answer.dropped = raw.regions, raw.dropped
        return replace(answer, **{name: getattr(raw, name) for name in _RAW}, size=size)

    def task_for(self, image: Image.Image) -> str:
        """The task of an image for which none was named: ``caption`` for a photograph if the model was trained on it,
        else ``ocr``."""
        if layout.is_text(image):
            return "ocr"  # and a checkpoint's part for pictures is not loaded
        known = self.picture_engine.processor.prompts
        return "caption" if not known or "caption" in known else "ocr"

    def read_page(
        self,
        image: Image.Image,
        task: str = "ocr",
        max_new_tokens: int = 1024,
        show: Show | None = None,
        cancel: threading.Event | None = None,
    ) -> Answer:
        """Read a page that stands upright: split it into cells at white space, scale each to the text size that the
        model reads best, read them in batches and join the texts. An empty page gives an empty text."""
        chosen = get_task(task)
        options = Options(chosen, "", self.prompt_of(chosen), (), max_new_tokens, show, cancel)
        return read_page(self.engine, PageLayout(to_rgb(image), cancel), options, self.parts)

    def prompt_of(self, task: Task, argument: str = "") -> str:
        """The prompt for the model. Raises ValueError for a task that it was not trained on."""
        known = self.engine_for(task.view).processor.prompts
        asked = self._asked(task)
        if task.name not in self.tasks:
            name, taught = self.name or "this model", ", ".join(known or self.tasks)
            raise ValueError(f"{name} was trained on {taught}, and not on the task '{task.name}'")
        return known.get(asked.name) or asked.prompt(argument).replace(IMAGE_PLACEHOLDER, "image")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the model can do, without loading its parts."""
        known, learned = self.processor.prompts, self.processor.learned
        taught = [
            (name, self._asked(task).name)
            for name, task in TASKS.items()
            if not task.learned
            or name in learned
            or (task.view == name and name in self.parts.views)
            or (task.view == "drawing" and self.drawing)
        ]
        return tuple(name for name, asked in taught if not known or asked in known)

    def _asked(self, task: Task) -> Task:
        """The task whose prompt the model gets."""
        return get_task(task.reads) if task.reads and self._reads_blocks else task

    def fit_text(self, image: Image.Image) -> Image.Image:
        """The image scaled to the text size that the model reads best; unchanged if no text is found."""
        image = to_rgb(image)
        return fit_text(PageLayout(image), self.processor.image_processor.text_size) if self._reads_blocks else image

    @property
    def _reads_blocks(self) -> bool:
        """Whether the model reads a page cell by cell; models of the modes squash and patches read it whole."""
        return self.processor.image_processor.mode == "fit"
