"""Blocks of a PDF page: paragraphs, headings, list items, code and tables, from its lines in reading order."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_tools.pdf.characters import Style
from data_tools.pdf.order import Line
from data_tools.pdf.rules import Table

BULLETS = frozenset("•◦▪▫●○■□‣⁃∙·➢✓►–—-*")
_WEAK_BULLETS = frozenset("·–—-*✓")
"""Marks that also begin lines of other text: two of them make a list."""
_NUMBER = re.compile(r"(\d{1,3})([.)])$")
_SECTION = re.compile(r"(\d+|[A-Z])(\.\d+)*\.?$")
_LEVELS = ((1.6, 1), (1.28, 2), (1.15, 3))
"""Size over that of the text, from which a line is a heading of this level."""
_BOLD_LEVEL = 1.04
"""The same for bold lines, of the third level."""
_HEADING_LINES, _HEADING_LETTERS = 3, 200
_INDENT = 0.8
"""Ems by which the first line of a paragraph is indented at least."""


@dataclass
class Block:
    """``kind``: ``paragraph``, ``heading`` (of ``level`` 1 to 4), ``item`` (of a list, after ``marker``; ``level``: how
    deep, from 0), ``code`` or ``table``. ``inside``: a paragraph that goes on with the item before it."""

    kind: str
    lines: list[Line] = field(default_factory=list)
    level: int = 0
    marker: str = ""
    table: Table | None = None
    inside: bool = False


@dataclass(frozen=True)
class Body:
    """The text that most of the page is set in. ``plain_bold``, ``plain_italic``, ``plain_mono``: that style says
    nothing, because most of the page has it."""

    size: float
    plain_bold: bool
    plain_italic: bool
    plain_mono: bool


def body_of(columns: Sequence[Sequence[Line | Table]]) -> Body:
    letters: Counter[Style] = Counter()
    for line in (line for column in columns for line in column if isinstance(line, Line)):
        for style, words in itertools.groupby(line.words, key=lambda word: word.style):
            letters[style] += sum(len(word.text) for word in words)
    sizes: Counter[float] = Counter()
    styles: Counter[str] = Counter()
    for style, count in letters.items():
        sizes[style.size] += count
        styles.update({name: count for name in ("bold", "italic", "mono") if getattr(style, name)})
    most = sum(sizes.values()) * 0.6
    size = max(sizes, key=lambda size: (sizes[size], -size)) if sizes else 10.0
    return Body(size, *(styles[name] > most for name in ("bold", "italic", "mono")))


def make_blocks(columns: Sequence[Sequence[Line | Table]]) -> tuple[list[Block], Body]:
    """The page's blocks in reading order."""
    body = body_of(columns)
    blocks: list[Block] = []
    for number, column in enumerate(columns):
        found = _mark(_paragraphs(column, body), body)
        if len(column) == 1 and number in (0, len(columns) - 1) and found[0].kind == "heading":
            words = found[0].lines[0].words
            if words[0].text.isdecimal() or words[-1].text.isdecimal():  # a running head with the page's number
                found[0].kind = "paragraph"
        blocks += found
    return blocks, body


def _paragraphs(column: Sequence[Line | Table], body: Body) -> list[Block]:
    lines = [line for line in column if isinstance(line, Line)]
    right = max((line.box[2] for line in lines), default=0.0)
    justified = sum(line.box[2] > right - line.size for line in lines) > 0.6 * len(lines)
    left = Counter(round(line.box[0]) for line in lines).most_common(1)[0][0] if lines else 0.0
    leading = _leading(lines)
    items = _markers(lines)
    blocks: list[Block] = []
    before: Line | None = None
    for line in column:
        if isinstance(line, Table):
            blocks.append(Block("table", table=line))
            before = None
            continue
        marker = items.get(id(line), "")
        code = not body.plain_mono and all(word.style.mono for word in line.words)
        kind = "item" if marker else "code" if code else "paragraph"
        goes_on = (
            before is not None
            and not marker
            and (blocks[-1].kind == "code") == code
            and _goes_on(blocks[-1], line, leading, left, right if justified else None, body)
        )
        if goes_on:
            blocks[-1].lines.append(line)
        else:
            blocks.append(Block(kind, [line], marker=marker))
        before = line
    return blocks


def _leading(lines: Sequence[Line]) -> float:
    """Distance of lines in a paragraph, in ems."""
    steps = sorted(
        (second.base - first.base) / first.size
        for first, second in zip(lines, lines[1:], strict=False)
        if abs(first.size - second.size) < 0.3 and 0.9 < (second.base - first.base) / first.size < 2.2
    )
    return steps[len(steps) * 2 // 5] if steps else 1.2


def _goes_on(block: Block, line: Line, leading: float, left: float, right: float | None, body: Body) -> bool:
    """Whether the line belongs to the paragraph; ``left``, ``right``: edges of the column, None where it is ragged."""
    first, last = block.lines[0], block.lines[-1]
    em = last.size
    step = line.base - last.base
    if not 0.92 < line.size / last.size < 1.09 or step < -em:
        return False
    if block.kind == "code":
        return step < 3 * leading * em
    if line.size > _LEVELS[-1][0] * body.size or (line.size > _BOLD_LEVEL * body.size and _all_bold(line)):
        return step < 1.6 * em and block.kind == "paragraph"  # a heading
    if step > 1.27 * leading * em:
        return False
    if _all_bold(last) != _all_bold(line) and (_all_bold(last) or _all_bold(line)) and len(block.lines) < 3:
        if _all_bold(last) and right is not None and last.box[2] < right - 2 * em:
            return False
    shift = line.box[0] - last.box[0]
    if block.kind == "item" and len(block.lines) == 1:
        text = first.words[1].box[0] if len(first.words) > 1 else first.box[0]
        return first.box[0] - 0.3 * em <= line.box[0] <= text + 1.5 * em
    if shift > _INDENT * em and not _centred(last, line):
        return False
    if shift < -_INDENT * em and len(block.lines) > 1 and not _centred(last, line):
        return False
    short = right is not None and last.box[2] < right - 8 * em and abs(shift) < 0.3 * em
    return not (short and (len(block.lines) > 1 or last.box[0] > left + _INDENT * em))


def _centred(first: Line, second: Line) -> bool:
    return abs((first.box[0] + first.box[2]) - (second.box[0] + second.box[2])) < 0.6 * second.size


def _all_bold(line: Line) -> bool:
    return all(word.style.bold for word in line.words)


def _markers(lines: Sequence[Line]) -> dict[int, str]:
    """The marks of lines that begin items of lists, by the line's id."""
    marks = {}
    numbered = []
    for line in lines:
        word = line.words[0].text
        if len(line.words) < 2 or line.words[0].style.mono:
            continue
        if word in BULLETS and line.words[1].box[0] - line.words[0].box[2] > 0.2 * line.size:
            marks[id(line)] = word
        elif match := _NUMBER.match(word):
            numbered.append((int(match[1]), match[2], line))
    weak = Counter(mark for mark in marks.values() if mark in _WEAK_BULLETS)
    marks = {key: mark for key, mark in marks.items() if mark not in weak or weak[mark] > 1}
    for number, end, line in numbered:
        near = [
            other for other, mark, third in numbered if mark == end and abs(third.box[0] - line.box[0]) < 2 * line.size
        ]
        if number + 1 in near or number - 1 in near:
            marks[id(line)] = f"{number}{end}"
    return marks


def _mark(blocks: list[Block], body: Body) -> list[Block]:
    """Say which paragraphs are headings, and how deep items are."""
    indents: list[tuple[float, float]] = []  # x of the marker and of the text of the items that are open
    for block in blocks:
        if block.kind == "code" and len(block.lines) == 1 and len(block.lines[0].words) == 1:
            block.kind = "paragraph"
        if block.kind == "item":
            line = block.lines[0]
            x, em = line.box[0], line.size
            while indents and indents[-1][0] > x + 0.5 * em:
                indents.pop()
            if not indents or x > indents[-1][0] + 0.5 * em:
                indents.append((x, line.words[1].box[0]))
            block.level = len(indents) - 1
            continue
        if indents and block.kind in ("paragraph", "code"):
            x, em = min(line.box[0] for line in block.lines), block.lines[0].size
            while indents and x < indents[-1][1] - 0.6 * em:
                indents.pop()
            if indents:
                block.inside, block.level = True, len(indents) - 1
        elif block.kind == "table":
            indents = []
        if block.kind == "paragraph" and (level := _heading_level(block, body)):
            block.kind, block.level, block.inside, indents = "heading", level, False, []
    return blocks


def _heading_level(block: Block, body: Body) -> int:
    """0 for none."""
    letters = sum(len(word.text) for line in block.lines for word in line.words)
    if len(block.lines) > _HEADING_LINES or not 2 <= letters <= _HEADING_LETTERS:
        return 0
    if not any(letter.isalpha() for word in block.lines[0].words for letter in word.text):
        return 0
    ratio = min(line.size for line in block.lines) / body.size
    bold = all(map(_all_bold, block.lines))
    for least, level in _LEVELS:
        if ratio >= least:
            return level
    if bold and not body.plain_bold and ratio >= _BOLD_LEVEL:
        return 3
    words = block.lines[0].words
    if bold and not body.plain_bold and ratio > 0.95 and len(block.lines) < 3 and len(words) > 1:
        return 4 if _SECTION.match(words[0].text) and words[1].text[:1].isupper() else 0
    return 0
