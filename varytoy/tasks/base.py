"""What every task is: one object that prompts, writes training answers, parses model text, draws and scores."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from varytoy.data.boxes import Box, Coordinates
from varytoy.data.samples import Sample
from varytoy.tasks import metrics

_COLOURS = ("#d1242f", "#0969da", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bc4c00", "#6e7781")


@dataclass
class Answer:
    """What a user gets.

    Attributes:
        boxes: of things, ``(label, (x1, y1, x2, y2))`` in pixels of the file.
        blocks: of text, ``(text, (x1, y1, x2, y2))``, for text that was read in blocks.
        confidence: geometric mean of the chosen tokens' probabilities, 0 to 1; None where nothing was asked.
        stop_reason: ``end`` (the model finished), ``length``, ``loop`` (it repeated itself and was stopped),
            ``stopped`` (by the user) or ``error``.
        error: of a file or page that could not be read; else empty.
        size: (width, height) of the picture in pixels.
        skipped: blocks whose letters are too small to be read by anything, or the texture of a picture.
        turned: degrees, counter-clockwise, by which the picture was turned to stand upright; boxes are of the file.
        pages: the answers to each page of a document with several.
    """

    text: str
    boxes: list[tuple[str, Coordinates]] = field(default_factory=list)
    markdown: str | None = None
    confidence: float | None = None
    stop_reason: str = "end"
    blocks: list[tuple[str, Coordinates]] = field(default_factory=list)
    error: str = ""
    size: tuple[int, int] | None = None
    skipped: int = 0
    turned: int = 0
    pages: list["Answer"] = field(default_factory=list)


class Task:
    """Base of all tasks; a subclass names its prompts and overrides what differs.

    Attributes:
        name: what the command line, samples and the demo call it.
        prompts: ways to ask; the first is the standard one. ``{}`` stands for the argument, if the task takes one.
        view: ``"text"`` (letters must stay readable) or ``"picture"`` (the whole scene, made small).
        metric: name of what ``score`` returns.
        takes: what the argument is, in a user's words, or None.
        class_prompts: ways to ask for an argument that may be left out.
    """

    name: str
    prompts: Sequence[str]
    view: str = "picture"
    metric: str = "exact match"
    takes: str | None = None
    class_prompts: Sequence[str] = ()

    def prompt(self, argument: str = "", rng: random.Random | None = None) -> str:
        """The standard prompt, or with ``rng`` any paraphrase.

        Raises:
            ValueError: the task needs an argument and got none, or takes none and got one.
        """
        argument = argument.strip()
        if argument and not self.takes:
            raise ValueError(f"the task '{self.name}' takes no words of yours: leave them out, or choose chat")
        if self.takes and not argument:
            raise ValueError(f"the task '{self.name}' needs {self.takes}: give it as the prompt")
        form = rng.choice(list(self.prompts)) if rng else self.prompts[0]
        return form.format(argument) if self.takes else form

    def answer(self, truth) -> str:
        """The text a model should write for ``truth``; here the truth is the text."""
        return truth

    def parse(self, text: str, size: tuple[int, int], argument: str = "") -> Answer:
        """Model text -> Answer; ``size`` is (width, height) of the file in pixels."""
        return Answer(text.strip())

    def draw(self, image: Image.Image, answer: Answer) -> Image.Image:
        """A copy of ``image`` with the answer's boxes on it."""
        return draw_boxes(image, answer.boxes)

    def score(self, predictions: Sequence[str], samples: Sequence[Sample]) -> float:
        """The task's metric of raw model texts against their samples, over the whole set; here the share of answers
        that are the same words."""
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(metrics.same_answer(text, sample.answer) for text, sample in pairs)


def pixel_boxes(boxes: Sequence[Box], size: tuple[int, int]) -> list[tuple[str, Coordinates]]:
    return [(box.label, box.to_pixels(*size)) for box in boxes]


def draw_boxes(image: Image.Image, boxes: Sequence[tuple[str, Coordinates]]) -> Image.Image:
    """Outline each box in its label's colour and write the label on it."""
    drawn = image.convert("RGB").copy()
    pen = ImageDraw.Draw(drawn)
    thick = max(2, round(max(drawn.size) / 250))
    font = ImageFont.load_default(size=max(11, round(max(drawn.size) / 40)))
    labels = list(dict.fromkeys(label for label, _ in boxes))
    for label, (x1, y1, x2, y2) in boxes:
        colour = _COLOURS[labels.index(label) % len(_COLOURS)]
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=thick)
        if label:
            left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
            height, width = bottom - top + 4, right - left + 6
            y = y1 - height if y1 >= height else y1
            pen.rectangle((x1, y, x1 + width, y + height), fill=colour)
            pen.text((x1 + 3, y + 2 - top), label, fill="white", font=font)
    return drawn
