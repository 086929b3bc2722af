"""Texts of a source, changed as they are read."""

import re
from collections.abc import Callable, Sequence

_OPENING = re.compile(r"(?:^|(?<=[\s(\[{\u2013\u2014/=,\u201c]))(['\"])(?=\w)")
_SIGNS = {"'": ("\u2018", "\u2019"), '"': ("\u201c", "\u201d")}


class Mapped(Sequence):
    """Texts, each given to a function when it is asked for."""

    def __init__(self, texts: Sequence[str], change: Callable[[str], str]):
        self.texts, self.change = texts, change

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> str:
        return self.change(self.texts[number])


def typographic(text: str) -> str:
    """A text with typographic quotes and apostrophes in place of straight ones."""
    text = _OPENING.sub(lambda found: _SIGNS[found[1]][0], text)
    return text.translate({ord(straight): closing for straight, (_, closing) in _SIGNS.items()})
