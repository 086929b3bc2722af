"""Documents as markdown: CommonMark with pipe tables; HTML tables where cells are merged; ``$$`` around formulas.

A character that would be read as markup is escaped, and only then, so that rendered markdown gives the printed words.
"""

import html
import re
from collections.abc import Sequence

from data_tools.render.document import (
    Block,
    Code,
    Document,
    Figure,
    Formula,
    Heading,
    Items,
    Paragraph,
    Run,
    Table,
)

_MARKUP = re.compile(
    r"\\(?=[!-/:-@\[-`{-~]|$)"  # a backslash before punctuation
    r"|[*`$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # underscores at the edge of a word
    r"|<(?=\S)|&(?=#?\w+;)|\](?=[(\[:])|~(?=~)|(?<=~)~"
)
_START = re.compile(r"(?=#{1,6}(?:\s|$)|[-+](?:\s|$)|>|=+\s*$|-+\s*$|(?:- *){3,}$|~~~)|(?<=^)(\d{1,9})(?=[.)](?:\s|$))")


def to_markdown(document: Document) -> str:
    """The blocks and foot notes of a document, without header and footer."""
    parts = [block_markdown(block) for block in document.blocks]
    parts += [_paragraph((Run(note.sign), *note.runs)) for note in document.notes]
    return "\n\n".join(part for part in parts if part)


def block_markdown(block: Block) -> str:
    if isinstance(block, Heading):
        return "#" * block.level + " " + re.sub(r"(#+)$", r"\\\1", _inline(block.runs, plain_bold=True))
    if isinstance(block, Paragraph):
        return _paragraph(block.runs)
    if isinstance(block, Items):
        marks = [f"{number}." if block.numbered else "-" for number in range(1, len(block.items) + 1)]
        return "\n".join(f"{mark} {_paragraph(item)}" for mark, item in zip(marks, block.items, strict=True))
    if isinstance(block, Table):
        return html_table(block) if block.merged else _pipe_table(block)
    if isinstance(block, Formula):
        return f"$$\n{block.latex}\n$$"
    if isinstance(block, Figure):
        return "![](figure)" + (f"\n\n{_paragraph(block.caption)}" if block.caption else "")
    return code_markdown(block)


def code_markdown(code: Code) -> str:
    longest = max((len(ticks) for line in code.lines for ticks in re.findall("`{3,}", line)), default=2)
    fence = "`" * (longest + 1)
    return "\n".join([fence + code.language, *code.lines, fence])


def html_table(table: Table) -> str:
    """An HTML table, a line for each row."""
    rows = []
    for cells in table.rows:
        written = []
        for cell in cells:
            spans = f' rowspan="{cell.down}"' * (cell.down > 1) + f' colspan="{cell.across}"' * (cell.across > 1)
            name = "th" if cell.head else "td"
            written.append(f"<{name}{spans}>{html.escape(cell.text, quote=False)}</{name}>")
        rows.append(f"<tr>{''.join(written)}</tr>")
    return "\n".join(["<table>", *rows, "</table>"])


def escape(text: str) -> str:
    """Text with backslashes before what would be markup inside a line."""
    return _MARKUP.sub(r"\\\g<0>", text)


def _paragraph(runs: Sequence[Run]) -> str:
    text = _inline(runs)
    return _START.sub(lambda match: (match[1] or "") + "\\", text, count=1) if _START.match(text) else text


def _inline(runs: Sequence[Run], plain_bold: bool = False) -> str:
    """Runs with their emphasis; ``plain_bold``: of a heading, whose words are bold anyway."""
    return " ".join(_run(run, plain_bold) for run in runs if run.text)


def _run(run: Run, plain_bold: bool) -> str:
    if run.code:
        ticks = "`" * (max((len(each) for each in re.findall("`+", run.text)), default=0) + 1)
        pad = " " if run.text.startswith("`") or run.text.endswith("`") else ""
        return f"{ticks}{pad}{run.text}{pad}{ticks}"
    stars = "*" * (2 * (run.bold and not plain_bold) + run.italic)
    return f"{stars}{escape(run.text)}{stars}"


def _pipe_table(table: Table) -> str:
    rows = ["| " + " | ".join(escape(cell.text).replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    rows.insert(1, "|" + " --- |" * table.width)
    return "\n".join(rows)
