"""Markdown (CommonMark with pipe tables) and plain text of a PDF page's blocks. Lines stay as they are printed."""

import re
from collections.abc import Iterator, Sequence

from data_tools.pdf.blocks import Block, Body
from data_tools.pdf.characters import Word
from data_tools.pdf.order import Line, text_of, touch
from data_tools.pdf.rules import Table, lines_of

_ESCAPED = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)"  # backslashes that would escape
    r"|[*`]|(?<![^\W_])_|_(?![^\W_])"
    r"|\](?=[(:\[])|<(?=[A-Za-z/!?])|&(?=#?\w+;)|~(?=~)"
)
_BEARING = 0.17
"""Share of its place that a letter's ink leaves free, in fonts with letters of one width."""
_LINE_START = re.compile(r"(#{1,6}(?=\s|$)|>|[-+](?=\s|$)|=+\s*$|-{2,}\s*$|~{3,})|(\d{1,9})([.)])(?=\s|$)")


def escape(text: str) -> str:
    """Text of one line that markdown shows as it is, where it does not begin a line."""
    return _ESCAPED.sub(lambda found: "\\" + found[0], text)


def escape_start(line: str) -> str:
    """A line of escaped text that does not begin a heading, list, quotation or rule."""
    found = _LINE_START.match(line)
    if not found:
        return line
    return f"\\{line}" if found[1] else f"{found[2]}\\{line[found.end(2) :]}"


def to_markdown(blocks: Sequence[Block], body: Body) -> str:
    """Headings by #, items by - or their number, indented by depth, tables with |, bold and italic words by *."""
    parts: list[str] = []
    indents = [0]
    before: Block | None = None
    for block in blocks:
        if block.kind == "item":
            mark = "-" if not block.marker[0].isdigit() else block.marker
            indents = indents[: block.level + 1]
            rows = _rows(block.lines, body, skip=1)
            indent = " " * indents[-1]
            indents.append(indents[-1] + len(mark) + 1)
            rest = " " * indents[-1]
            rows = [f"{indent}{mark} {rows[0]}", *(rest + row for row in rows[1:])]
            tight = before is not None and (before.kind == "item" or before.inside)
        else:
            rows, tight = list(_block(block, body)), False
            if block.inside:
                indents = indents[: block.level + 2]
                rows = [" " * indents[-1] + row if row else row for row in rows]
            else:
                indents = [0]
        parts += [] if tight or not parts else [""]
        parts += rows
        before = block
    return "\n".join(parts)


def _block(block: Block, body: Body) -> Iterator[str]:
    if block.kind == "heading":
        words = [word for line in block.lines for word in line.words]
        text = escape(" ".join(text_of(line.words) for line in block.lines) if words else "")
        yield "#" * block.level + " " + re.sub(r"(#+)$", r"\\\1", text)
    elif block.kind == "code":
        rows = code_rows(block.lines)
        longest = max((len(ticks) for row in rows for ticks in re.findall("`+", row)), default=0)
        fence = "`" * max(3, longest + 1)
        yield from (fence, *rows, fence)
    elif block.table is not None and block.table.whole:
        yield from _table(block.table, body)
    elif block.table is not None:
        yield from (escape_start(escape(line.text)) for line in table_lines(block.table))
    else:
        yield from _rows(block.lines, body)


def _rows(lines: Sequence[Line], body: Body, skip: int = 0) -> list[str]:
    """A row of markdown a line, without its first ``skip`` words; emphasis may go on over lines."""
    words: list[tuple[Word, str]] = []
    for number, line in enumerate(lines):
        for place, word in enumerate(line.words[skip if number == 0 else 0 :]):
            joint = "" if not words else "\n" if place == 0 else "" if touch(words[-1][0], word) else " "
            words.append((word, joint))
    return [escape_start(row) for row in _marked(words, body).split("\n")]


def _marked(words: Sequence[tuple[Word, str]], body: Body) -> str:
    """Words, each after what stands before it, with the marks of bold and italic ones."""
    parts: list[str] = []
    before = ""
    for word, joint in words:
        mark = _emphasis(word, body)
        if mark != before:
            _close(parts, before)
            parts += [joint, mark]
        else:
            parts.append(joint)
        parts.append(escape(word.text))
        before = mark
    _close(parts, before)
    return "".join(parts)


def _close(parts: list[str], mark: str) -> None:
    """End bold or italic words before the punctuation after them: the file tells the font of a word's first letter."""
    if mark:
        word = parts[-1]
        text = word.rstrip(").,;:!?]}\u00bb\u201d\u2019\"'") or word
        parts[-1:] = [text, mark, word[len(text) :]]


def _emphasis(word: Word, body: Body) -> str:
    """Words of letters only: a mark beside punctuation may not be one."""
    if not (word.text[0].isalnum() or word.text[0] in "(“\"'‘") or word.style.mono:
        return ""
    bold, italic = word.style.bold and not body.plain_bold, word.style.italic and not body.plain_italic
    return "***" if bold and italic else "**" if bold else "*" if italic else ""


def _table(table: Table, body: Body) -> Iterator[str]:
    for number, row in enumerate(table.cells):
        cells = [
            _marked([(word, "" if place == 0 else " ") for place, word in enumerate(_in_order(cell))], body).replace(
                "|", "\\|"
            )
            for cell in row
        ]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield "|" + " --- |" * len(row)


def _in_order(cell: Sequence[Word]) -> list[Word]:
    return [word for line in lines_of(cell) for word in line]


def table_lines(table: Table) -> list[Line]:
    """Row by row: a line each where all cells have one line, else cell by cell."""
    found = []
    for row in table.cells:
        cells = [lines_of(cell) for cell in row if cell]
        if all(len(lines) == 1 for lines in cells):
            found.append(Line([word for lines in cells for word in lines[0]]))
        else:
            found += [Line(line) for lines in cells for line in lines]
    return found


def code_rows(lines: Sequence[Line]) -> list[str]:
    """Lines of a font whose letters are equally wide, with their spaces."""
    left = min(line.box[0] for line in lines)
    widths = sorted(
        (word.box[2] - word.box[0]) / (len(word.text) - _BEARING)
        for line in lines
        for word in line.words
        if len(word.text) > 3
    )
    width = widths[len(widths) // 2] if widths else lines[0].size * 0.55
    rows, base = [], lines[0].base
    for line in lines:
        row = " " * round((line.box[0] - left) / width)
        for number, word in enumerate(line.words):
            if number and not touch(line.words[number - 1], word):
                row += " " * max(round((word.box[0] - line.words[number - 1].box[2]) / width - 2 * _BEARING), 1)
            row += word.text
        if rows and line.base - base > 1.9 * 1.2 * line.size:
            rows.append("")
        rows.append(row)
        base = line.base
    return rows


def lines_in(blocks: Sequence[Block]) -> list[Line]:
    """The printed lines of the page."""
    return [line for block in blocks for line in (table_lines(block.table) if block.table else block.lines)]
