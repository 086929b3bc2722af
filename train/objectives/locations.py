"""Image locations of an answer's characters: for guided attention, and as place tokens in the answer."""

import re
from collections.abc import Sequence

from varytoy.data.boxes import SCALE, written_boxes
from varytoy.data.sample import Sample
from varytoy.processing.processor import VaryProcessor

_LINE_STEP = 6.0
"""Pixels at the model's size; words that differ more in height are on different lines."""


def glyph_locations(sample: Sample, answer: str, size: tuple[int, int]) -> list[tuple[int, float, float]]:
    """(character of the answer, x, y) of all that has a location in the image; x and y as fractions of its sides.

    A printed letter is located where the renderer put it, white space at the letter after it; x1 and y1 of a box at its
    first corner, x2 and y2 at its last. A label is located at the first corner of its first box, not at its centre: of
    an object's tokens only the corners differ from the others, and boxes are sorted by them.
    """
    locations = []
    points = sample.annotations.points
    if points:
        letter_of = dict(_matches(answer, sample.annotations.letters))
        for character in range(len(answer) - 2, -1, -1):
            if answer[character].isspace() and character + 1 in letter_of:
                letter_of[character] = letter_of[character + 1]
        for character, letter in sorted(letter_of.items()):
            x, y = points[letter][0] / size[0], points[letter][1] / size[1]
            locations.append((character, min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)))
    for box in written_boxes(answer):
        x1, y1, x2, y2 = (side / SCALE for side in box.numbers(answer))
        spans = zip(box.sides, [(x1, y1), (x1, y1), (x2, y2), (x2, y2)], strict=True)
        for (first, end), (x, y) in [(box.label or (box.start, box.start + 1), (x1, y1)), *spans]:
            locations += [(character, x, y) for character in range(first, end)]
    return sorted(locations)


def with_places(
    processor: VaryProcessor, answer: str, spots: Sequence[tuple[int, float, float]], size: tuple[int, int]
) -> list[str]:
    """The answer split before each word with a location, with place tokens inserted: ``<y_n>`` at the start of a line,
    ``<x_n>`` always."""
    spot_of = {character: (x * size[0], y * size[1]) for character, x, y in spots}
    cuts, last = [], None
    for word in re.finditer(r"\S+", answer):
        spot = next((spot_of[character] for character in range(*word.span()) if character in spot_of), None)
        if spot is None:
            continue
        begins = last is None or spot[0] < last[0] or abs(spot[1] - last[1]) > _LINE_STEP
        cuts.append((word.start(), [processor.place("y", spot[1])] * begins + [processor.place("x", spot[0])]))
        last = spot
    return _cut(answer, cuts)


def with_corners(
    processor: VaryProcessor, answer: str, spots: Sequence[tuple[int, float, float]], size: tuple[int, int]
) -> list[str]:
    """The answer split before each box or its label and before its second corner, with ``<y_n><x_n>`` of the corner
    inserted: the corner is predicted first, the numbers after it."""
    spot_of = {character: (x * size[0], y * size[1]) for character, x, y in spots}
    corners = [start for box in written_boxes(answer) for start in (box.start, box.sides[2][0])]
    cuts = [
        (start, [processor.place("y", spot_of[start][1]), processor.place("x", spot_of[start][0])]) for start in corners
    ]
    return _cut(answer, cuts)


def _cut(answer: str, cuts: Sequence[tuple[int, list[str]]]) -> list[str]:
    """The pieces of the answer, with the tokens of each cut before it."""
    pieces, start = [], 0
    for index, tokens in cuts:
        if index > start:
            pieces.append(answer[start:index])
        pieces += tokens
        start = index
    return [*pieces, answer[start:]]


def _matches(answer: str, letters: str) -> list[tuple[int, int]]:
    """(index in the answer, index in ``letters``) of the characters that both share in order: markdown syntax is not
    printed, and spaces are not in ``letters``."""
    from rapidfuzz.distance import Levenshtein

    written = [index for index, character in enumerate(answer) if not character.isspace()]
    blocks = Levenshtein.editops("".join(answer[index] for index in written), letters).as_matching_blocks()
    return [(written[block.a + step], block.b + step) for block in blocks for step in range(block.size)]
