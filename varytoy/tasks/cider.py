"""CIDEr-D (arXiv 1411.5726), by hand, because pycocoevalcap is 100 MB of Java for other metrics; tests/test_tasks.py
has its figures."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SIGMA = 6.0
_LONGEST = 4
_WORD = re.compile(r"[a-z0-9']+|[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass
class _Counted:
    """A text's n-grams, n from 1: their weights, the norm of these, and the number of pairs of words."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


class CiderD:
    """Scores captions against several references each, with the document frequencies of a corpus. Words are runs of
    Latin letters, digits and apostrophes in lower case; of Chinese each character is a word.

    Args:
        corpus: the references of each image.
    """

    def __init__(self, corpus: Iterable[Sequence[str]]):
        self.frequency: Counter = Counter()
        documents = 0
        for group in corpus:
            documents += 1
            self.frequency.update({ngram for reference in group for ngram in _ngrams(reference)})
        self.documents = math.log(max(documents, 1))
        self._known: dict[str, _Counted] = {}

    def score(self, caption: str, references: Sequence[str]) -> float:
        """Of one caption, times 10: 0 to 10."""
        own, total = self._count(caption), 0.0
        for reference in map(self._reference, references):
            penalty = math.exp(-((own.length - reference.length) ** 2) / (2 * _SIGMA**2))
            for n in range(_LONGEST):
                other = reference.weights[n]
                common = sum(
                    min(value, other[ngram]) * other[ngram] for ngram, value in own.weights[n].items() if ngram in other
                )
                if own.norms[n] and reference.norms[n]:
                    total += common / (own.norms[n] * reference.norms[n]) * penalty / _LONGEST
        return 10.0 * total / len(references)

    def _reference(self, text: str) -> _Counted:
        """As ``_count``, kept for the next caption of the same image."""
        if text not in self._known:
            self._known[text] = self._count(text)
        return self._known[text]

    def _count(self, text: str) -> _Counted:
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(_LONGEST)]
        counts = _ngrams(text)
        for ngram, count in counts.items():
            weights[len(ngram) - 1][ngram] = count * (self.documents - math.log(max(1, self.frequency[ngram])))
        norms = [math.sqrt(sum(value**2 for value in part.values())) for part in weights]
        return _Counted(weights, norms, sum(count for ngram, count in counts.items() if len(ngram) == 2))


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean CIDEr-D of a set, with the document frequencies of its references."""
    scorer = CiderD(references)
    scores = [scorer.score(*pair) for pair in zip(captions, references, strict=True)]
    return sum(scores) / len(scores) if scores else 0.0


def _ngrams(text: str) -> Counter:
    words = _WORD.findall(text.lower())
    return Counter(
        tuple(words[start : start + n]) for n in range(1, _LONGEST + 1) for start in range(len(words) - n + 1)
    )
