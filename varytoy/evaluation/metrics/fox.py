"""The page scores of Fox and GOT-OCR2.0, by which the Vary family is compared.

Both repositories score pages by nltk's BLEU-4 without smoothing, by F1, precision and recall of sets of words, and by
Levenshtein distance over the longer length; words are jieba's if either text has Chinese, else what stands between
white space. Texts are taken as they are. Values are means over pages. (They also print METEOR, which needs WordNet's
files; it is left out.)

Protocols:
    fox-compat: bug for bug, to compare with papers. Their functions take (prediction, truth) and are called with
        (truth, prediction): what they print as precision is the recall and the other way round, and BLEU's brevity
        penalty punishes pages that are too long and not those that are cut; F1 and distance are not changed by it. A
        page where either text is empty is left out, as in GOT's program, and here also one that is only white space,
        at which that stops with an error. Fox's own program stops at both.
    strict: with the roles right and all pages: an empty answer is a failure (distance 1, others 0), on an empty page it
        is right. With character and word error rate.
"""

import functools
import re
import warnings

from varytoy.evaluation.metric import Metric, Ratio
from varytoy.evaluation.metrics import text
from varytoy.extras import require
from varytoy.tasks.metrics import edit_distance

PROTOCOLS = ("fox-compat", "strict")
_CHINESE = re.compile("[\u4e00-\u9fa5]")
_NAMES = {
    "edit distance": True,
    "F1 of unique words": False,
    "precision of unique words": False,
    "recall of unique words": False,
    "BLEU of pages": False,
}
"""Scores of a page, in the order of ``_scores``, and whether less is better."""


def page_scores(protocol: str, characters: bool = False) -> list[Metric]:
    """The metrics of a protocol.

    Args:
        characters: take characters for words, as GOT does for text in scenes.

    Raises:
        ValueError: no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol '{protocol}': choose one of {', '.join(PROTOCOLS)}")
    compat = protocol == "fox-compat"
    chosen: list[Metric] = [
        Ratio(f"{name} ({protocol})", functools.partial(_count, number, compat, characters), is_error)
        for number, (name, is_error) in enumerate(_NAMES.items())
    ]
    return chosen if compat else [*chosen, text.character_error_rate(), text.word_error_rate()]


def _count(number: int, compat: bool, characters: bool, prediction, case) -> tuple[float, float]:
    """A score of a page and 1; twice 0 for a page that is left out."""
    pair = (case.truth, prediction.text) if compat else (prediction.text, case.truth)
    scores = _scores(*pair, compat, characters)
    return (scores[number], 1.0) if scores else (0.0, 0.0)


@functools.lru_cache(256)  # each metric asks for the same page
def _scores(predicted: str, true: str, compat: bool, characters: bool) -> tuple[float, ...] | None:
    hypothesis, reference = split(predicted, true, characters)
    if not (hypothesis and reference):
        if compat:
            return None
        right = float(not hypothesis and not reference)
        return (1.0 - right, right, right, right, right)
    found, said, there = len(set(hypothesis) & set(reference)), len(set(hypothesis)), len(set(reference))
    distance = edit_distance(predicted, true) / max(len(predicted), len(true))
    return (distance, 2 * found / (said + there), found / said, found / there, _bleu(reference, hypothesis))


def split(first: str, second: str, characters: bool = False) -> tuple[list[str], list[str]]:
    """The words of two texts that are compared; white space is among jieba's words and the characters, as in Fox.

    Raises:
        MissingExtra: a text has Chinese and jieba is not installed.
    """
    if characters:
        return list(first), list(second)
    if not (_CHINESE.search(first) or _CHINESE.search(second)):
        return first.split(), second.split()
    require("evaluate", "jieba", by="splitting Chinese text into words")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its import, about escapes in its own patterns
        import jieba
    jieba.setLogLevel("WARNING")
    return jieba.lcut(first), jieba.lcut(second)


def _bleu(reference: list[str], hypothesis: list[str]) -> float:
    from nltk.translate.bleu_score import sentence_bleu

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a page without a common 4-gram scores 0
        return float(sentence_bleu([reference], hypothesis))
