"""Composer: random documents from the paragraphs of a source."""

import random
import re
from collections.abc import Callable, Iterator, Sequence

from data_tools.assets.languages import CHINESE
from data_tools.render.document import Block, Code, Figure, Formula, Heading, Items, Note, Paragraph, Run, Runs
from data_tools.render.glyphs import MissingLetter
from data_tools.render.mathematics import random_formula
from data_tools.render.table_contents import random_table

_FIGURES = {"en": "Figure", "fr": "Figure", "de": "Abbildung", "es": "Figura", "pl": "Rysunek", "pt": "Figura"}
_FIGURES |= {"cs": "Obr\u00e1zek", CHINESE: "\u56fe"}
_CODE_WORD = re.compile(r"\w+\(\)|\w+(?:[._]\w+)+(?:\(\))?|--?\w[\w-]+|/\w+(?:/\w+)+")
_SIGNS = "\u00b9\u00b2\u00b3"

_FORMS: dict[str, dict[str, float]] = {
    "prose": {"paragraph": 1.0},
    "chapter": {"heading": 0.18, "paragraph": 0.7, "items": 0.12},
    "article": {"heading": 0.16, "paragraph": 0.56, "items": 0.06, "figure": 0.08, "table": 0.06, "formula": 0.08},
    "report": {"heading": 0.16, "paragraph": 0.4, "items": 0.2, "table": 0.18, "figure": 0.06},
    "manual": {"heading": 0.18, "paragraph": 0.42, "items": 0.2, "code": 0.2},
}
"""Form of a document -> how often each kind of block follows."""


class Composer:
    """An endless document.

    Args:
        texts: paragraphs of the source.
        covers: whether a text can be printed.
        code: (language, lines) of files of program code; without them there are no listings.
        formulas: whether there may be formulas.
        emphasis: whether there are bold and italic words.
    """

    def __init__(
        self,
        rng: random.Random,
        texts: Sequence[str],
        language: str,
        covers: Callable[[str], bool],
        code: Sequence[tuple[str, tuple[str, ...]]] = (),
        formulas: bool = True,
        emphasis: tuple[bool, bool] = (True, True),
    ):
        self.rng, self.texts, self.language, self.covers, self.code = rng, texts, language, covers, code
        self.emphasis = emphasis
        self.spaced = language != CHINESE
        weights = dict(_FORMS[rng.choice(list(_FORMS))])
        weights.pop("formula" if not formulas else "", None)
        weights.pop("code" if not code else "", None)
        self.weights = weights
        self.bullet = rng.choice([sign for sign in "\u2022\u2022\u2022\u2013-\u25aa" if covers(sign)] or ["-"])
        self.numbered = rng.random() < 0.3
        self._section, self._signs = [0, 0, 0], ""
        self._at = rng.randrange(len(texts))

    # ---- texts ----

    def text(self) -> str:
        """The next paragraph of the source that can be printed."""
        for _ in range(500):
            self._at = (self._at + 1) % len(self.texts) if self.rng.random() < 0.8 else self._anywhere()
            text = self.texts[self._at]
            if self.covers(text):
                return text
        raise MissingLetter("the fonts lack the letters of nearly all texts")

    def _anywhere(self) -> int:
        return self.rng.randrange(len(self.texts))

    def words(self, low: int, high: int) -> str:
        """A few words that follow each other in a text, without its numbers and signs."""
        count, text = self.rng.randint(low, high), self.text()
        if not self.spaced:
            return text.split()[0][: 2 * count].rstrip("\uff0c\u3001\uff1a\u3002\uff08\u201c\u300c ") or text[:2]
        plain = [word for word in text.split() if word.isalpha() and len(word) > 1]
        start = self.rng.randrange(max(len(plain) - count, 0) + 1)
        words = " ".join(plain[start : start + count]) or text.split()[0]
        return words[0].upper() + words[1:] if self.covers(words.upper()) else words

    def prose(self, length: int) -> str:
        """Text of about a number of characters."""
        parts = [self.text()]
        while sum(map(len, parts)) < length:
            parts.append(self.text())
        text = (" " if self.spaced else "").join(parts)
        if len(text) <= 2 * length:
            return text
        end = text.rfind(" ", 0, 2 * length) if self.spaced else 2 * length
        return text[: end if end > 0 else None].strip()

    # ---- blocks ----

    def notes(self) -> list[Note]:
        """Foot notes, whose signs the paragraphs to come carry."""
        if self.rng.random() > 0.25 or not self.spaced or not self.covers(_SIGNS):
            return []
        self._signs = _SIGNS[: self.rng.randint(1, 3)]
        length = self.rng.randint(30, 110) // (1 if self.spaced else 3)
        return [Note(sign, (Run(self.prose(length)),)) for sign in self._signs]

    def running(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Header and footer."""
        page = str(self.rng.randint(1, 480))
        title = self.words(2, 5)
        headers = [(), (), (title, page), (page, title), (title,), (title, self.words(1, 3))]
        header = self.rng.choice(headers)
        footers = [(), (page,), (f"- {page} -",), (title, page)]
        footer = self.rng.choice(footers if page not in header else [()])
        return header, footer

    def blocks(self) -> Iterator[Block]:
        if self.rng.random() < 0.6 and "heading" in self.weights:
            yield Heading(1, (Run(self.words(2, 9)),))
        previous = "heading"
        while True:
            name = self.rng.choices(list(self.weights), list(self.weights.values()))[0]
            if previous in ("heading", name) and name != "paragraph":
                name = "paragraph"
            previous = name
            yield getattr(self, f"_{name}")()

    def _heading(self) -> Heading:
        level = self.rng.choice((2, 2, 3))
        text = self.words(1, 6)
        if self.numbered:
            self._section[level - 1] += 1
            self._section[level:] = [0] * (3 - level)
            text = ".".join(map(str, self._section[1:level])) + (". " if self.rng.random() < 0.3 else " ") + text
        return Heading(level, (Run(text),))

    def _paragraph(self) -> Paragraph:
        length = int(self.rng.triangular(80, 900, 320)) // (1 if self.spaced else 3)
        return Paragraph(self._runs(self.prose(length)))

    def _runs(self, text: str) -> Runs:
        """A text with some words in other styles, and with the sign of a foot note that is still open."""
        if self._signs and len(text) > 60 and self.spaced:
            words = text.split()
            at = self.rng.randrange(len(words) // 2 + 1)
            words[at] += self._signs[0]
            text, self._signs = " ".join(words), self._signs[1:]
        if not self.spaced or self.rng.random() < 0.5:
            return (Run(text),)
        words = text.split()
        styles: list[tuple[bool, bool, bool]] = [(False, False, False)] * len(words)
        bold, italic = self.emphasis
        for _ in range(self.rng.randint(1, 3)):
            start = self.rng.randrange(len(words))
            chosen = self.rng.choice([*[(True, False, False)] * bold, *[(False, True, False)] * italic] or [None])
            if chosen:
                end = min(start + self.rng.randint(1, 4), len(words))
                styles[start:end] = [chosen] * (end - start)
        if self.code and self.rng.random() < 0.5:
            styles = [
                (False, False, True) if word.isascii() and _CODE_WORD.fullmatch(word) else style
                for word, style in zip(words, styles, strict=True)
            ]
        runs: list[Run] = []
        start = 0
        for end in range(1, len(words) + 1):
            if end == len(words) or styles[end] != styles[start]:
                runs.append(Run(" ".join(words[start:end]), *styles[start]))
                start = end
        return tuple(runs)

    def _items(self) -> Items:
        length = self.rng.choice((30, 60, 120)) // (1 if self.spaced else 3)
        items = tuple(self._runs(self.prose(length)) for _ in range(self.rng.randint(2, 7)))
        return Items(items, self.rng.random() < 0.4, self.bullet)

    def _table(self) -> Block:
        return random_table(self.rng, self.words, merged=self.rng.random() < 0.3)

    def _formula(self) -> Formula:
        return Formula(random_formula(self.rng, 3))

    def _figure(self) -> Figure:
        self._figure_number = getattr(self, "_figure_number", self.rng.randint(0, 8)) + 1
        label = f"{_FIGURES[self.language]} {self._figure_number}"
        length = self.rng.choice((20, 60, 120)) // (1 if self.spaced else 3)
        return Figure(self.rng.getrandbits(30), (Run(f"{label}{self.rng.choice('.:')} {self.prose(length)}"),))

    def _code(self) -> Code:
        language, lines = self.rng.choice(self.code)
        return random_listing(self.rng, language, lines, self.rng.randint(3, 12), 64)


def random_listing(rng: random.Random, language: str, lines: Sequence[str], count: int, width: int) -> Code:
    """Lines of a file that follow each other, with less indentation and at most ``width`` characters."""
    start = rng.randrange(max(len(lines) - count, 1))
    chosen = list(lines[start : start + count])
    while chosen and not chosen[0].strip():
        chosen.pop(0)
    while chosen and not chosen[-1].strip():
        chosen.pop()
    indent = min((len(line) - len(line.lstrip()) for line in chosen if line.strip()), default=0)
    kept = [line[indent:] for line in chosen if len(line) - indent <= width]
    return Code(tuple(kept) if any(line.strip() for line in kept) else ("pass",), language)
