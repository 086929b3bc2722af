"""Near-duplicate pages by MinHash: shares of the same runs of three words."""

import itertools
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

_PERMUTATIONS, _RUN = 64, 3
_WEIGHTS = (0.1, 0.9)
"""Of pages that are looked at in vain, and of those that are missed."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
"""Chinese, Japanese and Korean have no spaces: a character each."""


@cache
def _empty():
    from datasketch import MinHash

    return MinHash(_PERMUTATIONS, hashfunc=zlib.crc32)


def signature(words: Iterable[str]) -> np.ndarray:
    """The hash values of a page's words."""
    found = _WORD.findall(" ".join(words).casefold())
    runs = {" ".join(found[place : place + _RUN]) for place in range(max(len(found) - _RUN + 1, 1))}
    page = _empty().copy()
    page.update_batch([run.encode() for run in runs])
    return page.hashvalues


class Duplicates:
    """The pages that were kept. ``threshold``: share of runs of words in both of those in either, from which two pages
    are the same."""

    def __init__(self, threshold: float):
        from datasketch import MinHashLSH

        self.threshold = threshold
        self._index = MinHashLSH(threshold, _PERMUTATIONS, weights=_WEIGHTS)
        self._pages: list[tuple[str, np.ndarray]] = []

    def find(self, values: np.ndarray) -> str | None:
        """The place of the first page that is nearly the same."""
        for number in sorted(self._index.query(_page(values))):
            place, other = self._pages[number]
            if np.count_nonzero(values == other) >= self.threshold * len(values):
                return place
        return None

    def add(self, place: str, values: np.ndarray) -> None:
        self._index.insert(len(self._pages), _page(values), check_duplication=False)
        self._pages.append((place, values))

    def add_written(self, samples: Iterable[tuple[str, Sequence[str]]]) -> None:
        """Pages that an interrupted run has kept: place and words of each of their samples."""
        for place, group in itertools.groupby(samples, key=lambda sample: sample[0]):
            self.add(place, signature(next(iter(group))[1]))


def _page(values: np.ndarray):
    page = _empty().copy()
    page.hashvalues = values
    return page
