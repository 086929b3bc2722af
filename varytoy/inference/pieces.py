"""Images too long for a model that reads pages whole, piece by piece."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from PIL import Image

from varytoy.data.answer import Answer, Region
from varytoy.inference.asking import Options
from varytoy.inference.join import join_pages
from varytoy.inference.known_words import lines_in, view_of
from varytoy.layout.fitting import cut_long


def read_pieces(read: Callable[..., Answer], image: Image.Image, options: Options) -> Answer:
    """The answer about a whole image. ``read``: gives that about a piece, as ``Reader._one_pass``."""
    answers, between = [], " " if image.width > image.height else "\n"
    for box in cut_long(image):
        known = lines_in(options.words, box, view_of(box))
        part = image.crop(box)
        answer = read(part, part.size, replace(options, show=None), known)
        whole = Region(box, text=answer.text, score=answer.confidence)
        answer.regions = shifted(answer.regions, box) if answer.blocks or options.task.reads else [whole]
        answers.append(answer)
        if options.show:
            options.show(between.join(answer.text for answer in answers))
        if options.cancelled:
            break
    joined = join_pages(answers, between)
    joined.regions = [region for answer in answers if answer.text for region in answer.regions]
    joined.pages, joined.size = [], image.size
    return joined


def shifted(regions: Sequence[Region], box: Sequence[float]) -> list[Region]:
    """The regions of a part of an image, in the image."""
    return [region.moved(lambda point: (point[0] + box[0], point[1] + box[1])) for region in regions]
