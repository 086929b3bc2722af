"""Published models in transformers' own classes: KOSMOS-2.5 (arXiv 2309.11419) and, on request, GOT-OCR2 (arXiv
2409.01704). They read a page whole, in one pass, one page at a time."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import BatchFeature

from varytoy.checkpoints.loading import ModelError, load_stock, model_type_of
from varytoy.data.answer import Answer, Region
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.data.spots import Spots, parse_spots
from varytoy.devices.precision import DTYPES, Precision, place
from varytoy.inference.engine import Request, TransformersEngine
from varytoy.inference.generate import generate
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.tiling import WHOLE, across_pages, upon_tiles

_LOCATION = re.compile(r"</?bbox>|<[xy]_\d+>")
_BREAK = re.compile(r"<br\s*/?>")
Parse = Callable[[str], Answer]
"""From a model's text to the fields of the raw answer that come from it."""


@dataclass
class OriginalProcessor:
    """transformers' processor, with what a ``Reader`` asks of ours.

    Attributes:
        stock: transformers' processor.
        prompts: task -> prompt.
        takes_place: see ``VaryProcessor``.
    """

    stock: Any
    prompts: dict[str, str]
    takes_place: bool = False
    learned: tuple[str, ...] = ()
    place_size: tuple[int, int] = (1, 1)
    place_tokens: dict = field(default_factory=dict)
    image_processor: VaryImageProcessor = field(default_factory=VaryImageProcessor)  # does not cut pages into cells

    @property
    def tokenizer(self):
        return self.stock.tokenizer

    def decode_text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def encode(self, *arguments):
        raise ValueError("this model reads one image, and takes no conversation: leave the earlier turns out")


class OriginalEngine(TransformersEngine):
    """Base of the engines of originals. Requests are answered one by one.

    Args:
        stock: transformers' processor.
        dtype: in which the model computes.
    """

    title: ClassVar[str]
    classes: ClassVar[tuple[str, str]]
    """Of transformers: the model's and the processor's."""
    prompts: ClassVar[dict[str, str]]
    takes_place: ClassVar[bool] = False

    def __init__(self, model: Any, stock: Any, dtype: torch.dtype):
        processor: Any = OriginalProcessor(stock, self.prompts, self.takes_place)
        self.model, self.processor, self.batch_size, self.dtype = model.eval(), processor, 1, dtype

    def prepare(self, request: Request, prompt: str) -> tuple[BatchFeature, Parse]:
        """The model's input for one of ``prompts``, and the parser of what it answers."""
        raise NotImplementedError

    def _answer(
        self,
        batch: Sequence[Request],
        show: Callable[[list[str]], None] | None,
        cancel: threading.Event | None,
    ) -> list[Answer]:
        (request,) = batch
        inputs, parse = self.prepare(request, self._prompt(request))
        length = inputs["input_ids"].shape[1]
        if length >= self.context:
            raise ValueError(f"the prompt has {length} tokens, the context is {self.context}")
        live = (lambda texts: show([parse(text).text for text in texts])) if show else None
        limit = min(request.max_new_tokens, self.context - length)
        (raw,) = generate(self.model, self.processor, inputs, limit, live, cancel)
        read = parse(raw.text)
        said = {"regions": read.regions, "dropped": read.dropped, "words": [] if read.regions else raw.words}
        return [replace(raw, text=read.text, prompt_tokens=length, **said)]

    def _prompt(self, request: Request) -> str:
        """The request's prompt. Raises ValueError for what the model does not take."""
        if request.known:
            raise ValueError(f"{self.title} takes no drafts: leave --drafts out")
        if request.tiling.side:
            raise ValueError(f"{self.title} in transformers takes images of its own size: leave the resolution out")
        said = [turn["content"] for turn in request.messages]
        known = {
            f"{IMAGE_PLACEHOLDER}\n{form(prompt)}": prompt
            for prompt in self.prompts.values()
            for form in (str, upon_tiles, across_pages)
        }
        found = [known[text] for text in said if text in known]
        if len(found) != len(said) or len(request.images) != 1:
            raise ValueError(
                f"{self.title} reads one image at a time ({', '.join(self.prompts)}), and takes no conversation"
            )
        return found[0]


class Kosmos(OriginalEngine):
    """KOSMOS-2.5: text lines with their boxes, and markdown."""

    title = "KOSMOS-2.5"
    classes = ("Kosmos2_5ForConditionalGeneration", "Kosmos2_5Processor")
    prompts = {"ocr": "<ocr>", "markdown": "<md>", "spot": "<ocr>"}

    def prepare(self, request, prompt):
        (image,) = request.images
        if request.tiling != WHOLE:
            raise ValueError(f"{self.title} takes no tiles: leave them out")
        inputs = self.processor.stock(images=image, text=prompt, return_tensors="pt")
        scaled = int(inputs.pop("width")[0]), int(inputs.pop("height")[0])
        inputs["flattened_patches"] = inputs["flattened_patches"].to(self.dtype)
        if prompt == "<md>":
            return inputs, lambda text: Answer(plain_markdown(text))
        return inputs, lambda text: read_lines(text, scaled, image.size)


class Got(OriginalEngine):
    """GOT-OCR2: text, or text with its formatting, of a whole image or of a part of it."""

    title = "GOT-OCR2"
    classes = ("GotOcr2ForConditionalGeneration", "GotOcr2Processor")
    prompts = {"ocr": " OCR: ", "markdown": " OCR with format: "}
    takes_place = True

    def __init__(self, model: Any, stock: Any, dtype: torch.dtype):
        super().__init__(model, stock, dtype)
        stock.tokenizer.eos_token = stock.message_end_token
        stock.tokenizer.pad_token = stock.tokenizer.pad_token or stock.message_end_token

    def prepare(self, request, prompt):
        (image,) = request.images
        part: dict[str, Any] = {}
        if isinstance(request.place, str):
            part["color"] = request.place
        elif request.place is not None:
            part["box"] = list(request.place)
        images: Any = image
        if request.tiling.rows > 1 and not request.tiling.thumbnail:  # pages in a strip
            side = image.width
            images = [[image.crop((0, row * side, side, (row + 1) * side)) for row in range(request.tiling.rows)]]
            part["multi_page"] = True
        if request.tiling.thumbnail:
            part |= {"crop_to_patches": True, "max_patches": request.tiling.columns * request.tiling.rows}
        inputs = self.processor.stock(images, format=prompt == self.prompts["markdown"], return_tensors="pt", **part)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return inputs, Answer


KINDS: dict[str, type[OriginalEngine]] = {"kosmos-2.5": Kosmos, "got_ocr2": Got}
"""``model_type`` of a configuration -> engine."""


def load_original(folder: Path, precision: Precision, runtime: str) -> OriginalEngine | None:
    """The engine of a folder that holds an original; None for other folders, and for GOT-OCR2 in another runtime than
    ``transformers``, which our own classes run.

    Raises:
        ModelError: the folder is incomplete, or an option is not for this model.
    """
    kind = KINDS.get(model_type_of(folder))
    if runtime != "transformers" and kind is not Kosmos:
        return None
    titles = " and ".join(each.title for each in KINDS.values())
    if kind is None:
        raise ModelError(f"--runtime transformers is for {titles}: leave it out")
    if runtime == "onnx":
        raise ModelError(f"{kind.title} runs in transformers: leave --runtime out")
    if precision.quantize:
        raise ModelError(
            f"{kind.title} in transformers is not quantized: leave --quantize out; --dtype bf16 is smaller"
        )
    model, stock = load_stock(folder, *kind.classes, DTYPES[precision.storage])
    return kind(place(model, precision), stock, DTYPES[precision.compute])


def read_lines(text: str, scaled: tuple[int, int], size: tuple[int, int]) -> Answer:
    """KOSMOS-2.5's answer to ``<ocr>`` as plain text, with a region for each line whose box can be read.

    Args:
        text: ``<bbox><x_l><y_t><x_r><y_b></bbox>line``, one after the other; the tokens count pixels of the image that
            the model got.
        scaled: (width, height) of that image.
        size: (width, height) of the image before it was resized, in whose pixels regions are given.
    """
    words = [" ".join(_LOCATION.sub(" ", part).split()) for part in text.split("<bbox>")]
    spots = (
        parse_spots(text, pixels=scaled) if "<bbox>" in text else Spots(dropped={"malformed": 1} if any(words) else {})
    )
    regions = [Region(line.to_pixels(*size), text=line.label) for line in spots.lines]
    return Answer("\n".join(filter(None, words)), regions, dropped=spots.dropped)


def plain_markdown(text: str) -> str:
    """KOSMOS-2.5's answer to ``<md>`` as its release prints it: ``<br>`` as line breaks, lines without white space at
    their ends, no two empty lines in a row."""
    lines = "\n".join(line.strip() for line in _BREAK.sub("\n", text).splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip()
