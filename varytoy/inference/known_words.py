"""Words that are known of a page, for drafts of its text: from a PDF's text layer, or by Tesseract."""

from collections.abc import Callable, Sequence
from statistics import median

from PIL import Image

from varytoy.data.documents import DocumentError, PageWord
from varytoy.data.tesseract import Line, check_tesseract, tesseract, words_in
from varytoy.inference.drafts import PlacedWord
from varytoy.layout.page import Box

_DESCENDING = frozenset("gjpqyQ,;()[]{}|/\\_@$")
Place = Callable[[float, float], tuple[float, float]]
"""From a point on the page to one in the image that the model gets."""


def tesseract_words(image: Image.Image) -> list[PageWord]:
    """Tesseract's reading of a page; none where it fails. Raises DocumentError where it is not installed."""
    check_tesseract()
    words: list[PageWord] = []
    lines: dict[Line, int] = {}
    try:
        found = tesseract(image, "tsv")
    except DocumentError:  # the model reads the page all the same
        return []
    for line, text, box in words_in(found):
        first = box[0] + (box[2] - box[0]) / len(text) / 2
        words.append(PageWord(text, box, lines.setdefault(line, len(lines)), first))
    return words


def view_of(box: Box, scale: float = 1.0) -> Place:
    """See ``Place``; for a view of a box of the page, with ``scale`` pixels of the page in one of its own."""
    return lambda x, y: ((x - box[0]) / scale, (y - box[1]) / scale)


def lines_in(
    words: Sequence[PageWord], box: Box, place: Place, x_height: float | None = None, rows: Sequence[Box] = ()
) -> list[list[PlacedWord]]:
    """The words with their middle in a box of the page, by line, each placed at the middle of its first letter.

    Args:
        place: see ``Place``.
        x_height: of the letters, in pixels of the page, if it is known.
        rows: boxes of the lines from top to bottom; none: the words' own lines.
    """
    lines: dict[int, list[PageWord]] = {}
    for word in words:
        x1, y1, x2, y2 = word.box
        if box[0] <= (x1 + x2) / 2 <= box[2] and box[1] <= (y1 + y2) / 2 <= box[3]:
            line = word.line
            if rows:
                line = min(range(len(rows)), key=lambda number: abs(rows[number][1] + rows[number][3] - y1 - y2))
            lines.setdefault(line, []).append(word)
    if rows:
        lines = {row: sorted(lines[row], key=lambda word: word.first) for row in sorted(lines)}
    placed = []
    for together in lines.values():
        middle = _base(together, x_height or 0.0) - (x_height or 0.0) / 2
        placed.append([PlacedWord(word.text, *place(word.first, middle)) for word in together])
    return placed


def _base(line: Sequence[PageWord], x_height: float) -> float:
    """y of a line's base, on which letters without descenders stand."""
    return median(word.box[3] - 0.4 * x_height * (not _DESCENDING.isdisjoint(word.text)) for word in line)
