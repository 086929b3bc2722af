"""Words of an answer: their confidences from the tokens, their boxes from the page."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from varytoy.data.answer import Region, Word
from varytoy.data.boxes import even_rows
from varytoy.layout.ink import Ink
from varytoy.layout.words import Box, word_boxes
from varytoy.processing.processor import VaryProcessor

Map = Callable[[float], float]
"""From x in the image that the model got to x on the page."""


def words_of(processor: VaryProcessor, ids: Sequence[int], best: Sequence[float]) -> list[Word]:
    """The words of generated tokens; ``best``: the tokens' log-probabilities."""
    characters: list[tuple[str, float, float | None]] = []
    pending: list[int] = []
    scores: list[float] = []
    x: float | None = None
    places = processor.place_tokens
    for token, score in zip(ids, best, strict=False):
        if token in places:
            axis, middle = places[token]
            x = middle if axis == "x" else x
            continue
        pending.append(token)
        scores.append(score)
        text = processor.decode_text(pending)
        if text.endswith("\ufffd"):  # the first bytes of a character
            continue
        mean = sum(scores) / len(scores)
        characters += [(character, mean, x) for character in text]
        if text:
            x = None  # it was the place of this word
        pending, scores = [], []
    return _words(characters)


def _words(characters: Sequence[tuple[str, float, float | None]]) -> list[Word]:
    text = "".join(character for character, *_ in characters)
    words = []
    for match in re.finditer(r"\S+", text):
        parts = characters[slice(*match.span())]
        score = math.exp(sum(value for _, value, _ in parts) / len(parts))
        words.append(Word(match[0], text.count("\n", 0, match.start()), score, parts[0][2]))
    return words


def locate(region: Region, words: Sequence[Word], rows: Sequence[Box], ink: Ink, to_page: Map, step: float) -> Region:
    """The region of a block of text with its lines and words as parts.

    Args:
        words: of the block.
        rows: boxes of its lines on the page; none: the block is divided evenly.
        to_page: see ``Map``; ``step``: pixels of the page between two places that the model can tell.
    """
    texts = _by_line(words)
    if not texts:
        return region
    rows = rows or even_rows(region.box, len(texts))
    if len(rows) != len(texts):
        texts = _spread(words, rows)
    lines = []
    for row, line in zip(rows, texts, strict=True):
        if not line:
            continue
        starts = [None if word.x is None else to_page(word.x) for word in line]
        boxes = word_boxes(ink, row, [word.text for word in line], starts, step / 2)
        parts = tuple(Region(box, text=word.text, score=word.score) for word, box in zip(line, boxes, strict=True))
        lines.append(Region(row, text=" ".join(word.text for word in line), score=_mean(line), parts=parts))
    return replace(region, parts=tuple(lines))


def with_words(line: Region, ink: Ink) -> Region:
    """A block with this line, whose words get their boxes from the gaps in the ink."""
    texts = line.text.split()
    boxes = word_boxes(ink, line.box, texts, [None] * len(texts), 0)
    words = tuple(Region(box, text=text) for text, box in zip(texts, boxes, strict=True))
    return replace(line, parts=(replace(line, parts=words),))


def _by_line(words: Sequence[Word]) -> list[list[Word]]:
    lines: dict[int, list[Word]] = {}
    for word in words:
        lines.setdefault(word.line, []).append(word)
    return list(lines.values())


def _spread(words: Sequence[Word], rows: Sequence[Box]) -> list[list[Word]]:
    """Words of a text whose line breaks are not the page's, spread over the rows by their length."""
    total = sum(len(word.text) + 1 for word in words)
    width, ends = sum(x1 - x0 for x0, _, x1, _ in rows), list[float]()
    for x0, _, x1, _ in rows:
        ends.append((ends[-1] if ends else 0.0) + total * (x1 - x0) / max(width, 1))
    lines: list[list[Word]] = [[] for _ in rows]
    position = row = 0
    for word in words:
        while row < len(rows) - 1 and position + (len(word.text) + 1) / 2 > ends[row]:
            row += 1
        lines[row].append(word)
        position += len(word.text) + 1
    return lines


def _mean(words: Sequence[Word]) -> float | None:
    scored = [(word.score, len(word.text)) for word in words if word.score is not None]
    return sum(score * length for score, length in scored) / sum(length for _, length in scored) if scored else None
