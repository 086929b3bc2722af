"""Base class of the tasks: builds prompts, formats training answers, parses model output, draws and scores."""

import random
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from varytoy.data.answer import Answer, Region
from varytoy.data.boxes import Box
from varytoy.data.sample import Sample
from varytoy.tasks import metrics

_COLOURS = ("#d1242f", "#0969da", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bc4c00", "#6e7781")


class Task:
    """Base class of all tasks; a subclass sets its prompts and overrides what differs.

    Attributes:
        name: identifier on the command line, in samples and in the demo.
        prompts: wordings of the prompt; the first is the default. ``{}`` is the argument, if the task takes one.
        view: ``"text"`` (letters must stay readable), ``"formula"`` (as text, cut to its ink) or ``"picture"`` (the
            whole scene, downscaled).
        literal: whether answers are the text as it is printed, so that its words have places in the image.
        search: whether answers are sentences, for which a beam search pays.
        metric: name of the value that ``score`` returns.
        is_error: whether ``score`` is an error rate, of which less is better.
        takes: description of the argument for users; None if there is none.
        class_prompts: prompts with an argument that is optional.
        aliases: other models' prompts for the same, such as ``<ocr>``; they are understood but never trained on.
        reads: the task that a model which reads line by line does instead; ``from_lines`` makes the answer of the
            lines.
        learned: whether only models do it whose processor names it among what they learned (``VaryProcessor.learned``).
        asks: whether it is a question about the image, which the text on it may answer.
    """

    name: str
    prompts: Sequence[str]
    view: str = "picture"
    literal: bool = False
    search: bool = False
    metric: str = "exact match"
    is_error: bool = False
    takes: str | None = None
    class_prompts: Sequence[str] = ()
    aliases: Sequence[str] = ()
    reads: str = ""
    learned: bool = False
    asks: bool = False

    def prompt(self, argument: str = "", rng: random.Random | None = None) -> str:
        """The default prompt, or with ``rng`` a random paraphrase.

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
        """The target text for ``truth``; here the truth itself."""
        return truth

    def parse(self, text: str, size: tuple[int, int], argument: str = "") -> Answer:
        """Model output -> Answer; ``size`` is (width, height) of the file in pixels."""
        return Answer(text.strip())

    def from_lines(self, lines: Sequence[Region], size: tuple[int, int]) -> str:
        """The answer's text, from the lines of a page of ``size`` pixels that was read line by line."""
        raise NotImplementedError

    def draw(self, image: Image.Image, answer: Answer) -> Image.Image:
        """A copy of ``image`` with the answer's objects drawn on it."""
        return draw_regions(image, answer.objects)

    def metric_of(self, samples: Sequence[Sample]) -> str:
        """Name of what ``score`` returns for these samples."""
        return self.metric

    def score(self, predictions: Sequence[str], samples: Sequence[Sample]) -> float:
        """The task's metric over the whole set of raw model outputs and their samples; here the share of exact matches
        (``metrics.same_answer``) with the sample's answer or another of its ``references``."""
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(_is_right(text, sample) for text, sample in pairs)

    def scores(self, predictions: Sequence[str], samples: Sequence[Sample]) -> list[float]:
        """Score of each sample by itself."""
        return [self.score([text], [sample]) for text, sample in zip(predictions, samples, strict=True)]


class NotationTask(Task):
    """Base of the tasks whose answer is in a notation, such as markdown."""

    def parse(self, text: str, size: tuple[int, int], argument: str = "") -> Answer:
        return Answer(text.strip(), markup=text.strip())


def _is_right(text: str, sample: Sample) -> bool:
    answers = (sample.answer, *sample.annotations.references)
    return any(metrics.same_answer(text, answer) for answer in answers)


def object_regions(boxes: Sequence[Box], size: tuple[int, int]) -> list[Region]:
    """Predicted boxes as regions of an image of ``size`` pixels."""
    return [Region(box.to_pixels(*size), box.label) for box in boxes]


def draw_regions(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """A copy of ``image`` with each region outlined in its label's colour and the label written on it."""
    drawn = image.convert("RGB").copy()
    pen = ImageDraw.Draw(drawn)
    thick = max(2, round(max(drawn.size) / 250))
    font = ImageFont.load_default(size=max(11, round(max(drawn.size) / 40)))
    labels = list(dict.fromkeys(region.label for region in regions))
    for region in regions:
        colour = _COLOURS[labels.index(region.label) % len(_COLOURS)]
        if region.polygon:
            pen.polygon(region.polygon, outline=colour, width=thick)
        else:
            pen.rectangle(region.box, outline=colour, width=thick)
        if region.label:
            x1, y1 = region.box[:2]
            left, top, right, bottom = pen.textbbox((0, 0), region.label, font=font)
            height, width = bottom - top + 4, right - left + 6
            y = y1 - height if y1 >= height else y1
            pen.rectangle((x1, y, x1 + width, y + height), fill=colour)
            pen.text((x1 + 3, y + 2 - top), region.label, fill="white", font=font)
    return drawn
