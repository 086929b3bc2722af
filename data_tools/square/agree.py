"""Whether two answers mean the same, as far as that can be said without a model."""

import re
from dataclasses import dataclass

from data_tools.render.truth import as_number
from varytoy.tasks.metrics import edit_distance, normalise, same_answer

TOLERANCE = 0.001
"""Of numbers: the share of the larger one by which they may differ, which is rounding."""
SIMILARITY = 0.8
"""Average normalised Levenshtein similarity (ANLS) from which texts with the same digits are the same."""
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Agreement:
    """``same``: None if it cannot be said; ``by``: what the verdict rests on: text, number, similarity, nothing, or
    model."""

    same: bool | None
    by: str


def compare(first: str, second: str) -> Agreement:
    """Compare two answers: equal without case, articles and punctuation; or equal numbers; or similar texts with the
    same digits. Two different numbers are different, and so are texts with nothing in common; the rest is undecided."""
    if same_answer(first, second):
        return Agreement(True, "text")
    one, other = as_number(first), as_number(second)
    if one is not None and other is not None:
        return Agreement(abs(one - other) <= TOLERANCE * max(abs(one), abs(other)), "number")
    if not first.strip() or not second.strip():
        return Agreement(False, "text")
    if _DIGITS.findall(first) == _DIGITS.findall(second) and similarity(first, second) >= SIMILARITY:
        return Agreement(True, "similarity")
    return Agreement(None, "nothing")


def similarity(first: str, second: str) -> float:
    """1 - edit distance / longer length, in lower case."""
    first, second = normalise(first).lower(), normalise(second).lower()
    return 1 - edit_distance(first, second) / max(len(first), len(second), 1)


def stands_in(answer: str, text: str) -> bool:
    """Whether an answer stands in a text, word for word, without case and punctuation around words."""
    wanted, there = words_of(answer), words_of(text)
    return bool(wanted) and f" {' '.join(wanted)} " in f" {' '.join(there)} "


def words_of(text: str) -> list[str]:
    """In lower case, without punctuation around them."""
    return [bare for word in text.casefold().split() if (bare := word.strip(".,;:!?'\"()[]|"))]
