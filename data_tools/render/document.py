"""Document: one tree of headings, paragraphs, lists, tables, formulas, figures, code and notes.

The tree is data alone. ``plain_text`` writes it here, data_tools.render.markdown as markdown, and
data_tools.render.layout prints it; all of them walk the same words in the same order, so they agree by construction.

Text is words with single spaces between them. Chinese has words of one character; a space in it is printed as one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

_WIDE = r"\u2e80-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef"
_CLOSING = r"\u3001\u3002\uff0c\uff0e\uff1a\uff1b\uff01\uff1f\uff09\u300b\u300d\u300f\u3011\u201d\u2019\u2026"
_OPENING = r"\uff08\u300a\u300c\u300e\u3010\u201c\u2018"
_PIECE = re.compile(rf"[{_OPENING}]*(?:[{_WIDE}]|[^{_WIDE}{_OPENING}]+?(?=[{_WIDE}{_OPENING}]|$))[{_CLOSING}]*|.")


@dataclass(frozen=True)
class Word:
    """A word that is printed in one piece.

    Attributes:
        spaced: whether a space stands before it, unless a line begins with it.
    """

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False
    spaced: bool = True


@dataclass(frozen=True)
class Run:
    """Words in one style."""

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False

    def words(self) -> list[Word]:
        style = (self.bold, self.italic, self.code)
        if self.text.isascii() or not re.search(f"[{_WIDE}]", self.text):
            return [Word(text, *style) for text in self.text.split()]
        return [
            Word(piece, *style, spaced=number == 0)
            for text in self.text.split()
            for number, piece in enumerate(_PIECE.findall(text))
        ]


Runs = tuple[Run, ...]


def plain(runs: Sequence[Run]) -> str:
    return " ".join(run.text for run in runs if run.text)


def words_of(runs: Sequence[Run]) -> list[Word]:
    return [word for run in runs for word in run.words()]


def first_words(runs: Sequence[Run], count: int) -> Runs:
    """The runs up to a number of words."""
    kept: list[Run] = []
    for run in runs:
        words = run.words()
        if count >= len(words):
            kept.append(run)
        elif count > 0:
            text = "".join(" " * word.spaced + word.text for word in words[:count]).strip()
            kept.append(replace(run, text=text))
        count -= len(words)
    return tuple(kept)


@dataclass(frozen=True)
class Heading:
    level: int
    runs: Runs


@dataclass(frozen=True)
class Paragraph:
    runs: Runs


@dataclass(frozen=True)
class Items:
    """A list; ``numbered`` from 1."""

    items: tuple[Runs, ...]
    numbered: bool = False
    bullet: str = "\u2022"

    def mark(self, number: int) -> str:
        """What is printed before an item, counted from 0."""
        return f"{number + 1}." if self.numbered else self.bullet


@dataclass(frozen=True)
class Cell:
    """A cell of a table, which may span rows and columns."""

    text: str
    across: int = 1
    down: int = 1
    head: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of the cells that begin in them."""

    rows: tuple[tuple[Cell, ...], ...]

    @property
    def merged(self) -> bool:
        return any(cell.across > 1 or cell.down > 1 for row in self.rows for cell in row)

    @property
    def width(self) -> int:
        return sum(cell.across for cell in self.rows[0])

    def places(self) -> Iterator[tuple[int, int, Cell]]:
        """(row, column, cell) of each cell, row by row."""
        taken: set[tuple[int, int]] = set()
        for row, cells in enumerate(self.rows):
            column = 0
            for cell in cells:
                while (row, column) in taken:
                    column += 1
                yield row, column, cell
                taken |= {(row + y, column + x) for y in range(cell.down) for x in range(cell.across)}


@dataclass(frozen=True)
class Formula:
    """Display mathematics in LaTeX. It has no words."""

    latex: str


@dataclass(frozen=True)
class Figure:
    """A picture without text, drawn from ``seed``, and its caption."""

    seed: int
    caption: Runs


@dataclass(frozen=True)
class Code:
    lines: tuple[str, ...]
    language: str = ""


@dataclass(frozen=True)
class Note:
    """A foot note; the sign stands in the text too."""

    sign: str
    runs: Runs


Block = Heading | Paragraph | Items | Table | Formula | Figure | Code


@dataclass(frozen=True)
class Document:
    """One page of content. ``header`` and ``footer`` hold what runs on every page; markdown leaves them out."""

    blocks: tuple[Block, ...]
    header: tuple[str, ...] = ()
    footer: tuple[str, ...] = ()
    notes: tuple[Note, ...] = field(default=())

    @property
    def has_formulas(self) -> bool:
        return any(isinstance(block, Formula) for block in self.blocks)


def plain_text(document: Document) -> str:
    """All that is printed but formulas, in reading order: a line for each heading, paragraph, item and row."""
    lines = [" ".join(document.header)]
    for block in document.blocks:
        lines += plain_lines(block)
    lines += [f"{note.sign} {plain(note.runs)}" for note in document.notes]
    return "\n".join(line for line in [*lines, " ".join(document.footer)] if line)


def plain_lines(block: Block) -> list[str]:
    if isinstance(block, (Heading, Paragraph)):
        return [plain(block.runs)]
    if isinstance(block, Items):
        return [f"{block.mark(number)} {plain(item)}" for number, item in enumerate(block.items)]
    if isinstance(block, Table):
        return [" ".join(cell.text for cell in row if cell.text) for row in block.rows]
    if isinstance(block, Figure):
        return [plain(block.caption)] if block.caption else []
    if isinstance(block, Code):
        return list(block.lines)
    return []


def cut(block: Block, count: int) -> Block | None:
    """The first words of a paragraph or list, or lines of code; None if there is nothing left, or nothing to cut."""
    if count <= 0:
        return None
    if isinstance(block, Paragraph):
        return Paragraph(first_words(block.runs, count))
    if isinstance(block, Items):
        kept: list[Runs] = []
        for item in block.items:
            words = len(words_of(item))
            if count > 0:
                kept.append(item if count >= words else first_words(item, count))
            count -= words
        return replace(block, items=tuple(kept))
    if isinstance(block, Code):
        return replace(block, lines=block.lines[:count])
    return None
