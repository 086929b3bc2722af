"""``varytoy erase``, ``edit`` and ``draw``: change the text in a picture and write the result to a file."""

import argparse
from pathlib import Path

from PIL import Image

from varytoy.data.answer import Answer
from varytoy.data.boxes import Coordinates, around
from varytoy.data.documents import open_pages
from varytoy.layout.frames import find_place, parse_place

_PAPER = (512, 128)
"""Width and height in pixels of the sheet for words that are written on nothing, and the margin around them."""
_MARGIN = 16


def draw_file(options: argparse.Namespace) -> int:
    """Returns the exit code.

    Raises:
        ValueError, OSError: the picture cannot be read, drawn in or written; the sentence says what to change.
    """
    from transformers.utils import logging

    from varytoy.inference.drawing import save
    from varytoy.inference.reader import Reader

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    target = Path(options.out)
    if target.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--out {target}: name a picture, such as {target.stem or 'picture'}.png")
    box = None
    if options.image:
        image = next(iter(open_pages(options.image))).image
    else:
        image = Image.new("RGB", _PAPER, "white")
        box = (_MARGIN, _MARGIN, _PAPER[0] - _MARGIN, _PAPER[1] - _MARGIN)
    if options.box:
        box = _box(options.box, image)
    word = getattr(options, "word", "")
    if box is None and not word:
        raise ValueError("which text? give --box X1,Y1,X2,Y2 around it" + ", or --word" * (options.task != "generate"))
    reader = Reader.from_pretrained(options.model, options.device)
    box = find_words(reader.spot(image), word) if box is None else box
    save(reader.drawer.draw(image, options.task, box, options.text), target)
    print(f"written to {target}")
    return 0


def _box(text: str, image: Image.Image) -> Coordinates:
    try:
        return find_place(parse_place(text), image)
    except ValueError as error:
        raise ValueError(f"--box: {error}") from None


def find_words(answer: Answer, wanted: str) -> Coordinates:
    """The box of words that stand in one line of what was read.

    Raises:
        ValueError: they stand in none, or in several.
    """
    words = wanted.casefold().split()
    found: list[Coordinates] = []
    for line in answer.lines:
        parts = line.parts or (line,)
        texts = [part.text.casefold() for part in parts]
        for start in range(len(parts) - len(words) + 1):
            if texts[start : start + len(words)] == words:
                found.append(around([part.box for part in parts[start : start + len(words)]]))
    if len(found) != 1:
        where = "; ".join(",".join(f"{side:.0f}" for side in box) for box in found[:5])
        problem = f"stands in {len(found)} places ({where})" if found else "was not read in this picture"
        raise ValueError(f"'{wanted}' {problem}: give the place with --box X1,Y1,X2,Y2")
    return found[0]
