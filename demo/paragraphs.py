"""Join the lines of a page to paragraphs where they were only wrapped, and keep other line breaks."""

import re

NARROWEST = 24
"""Minimum characters of a paragraph's longest line; narrower text is a list, an address or a table column."""
_BLANK = re.compile(r"(\n(?:[ \t]*\n)+)")
_ITEM = re.compile(r"([-*+•–—▪◦·]|\(?(\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)])\s|[>#]")
_ROW = re.compile(r"\t|\S {3,}\S|\||\.{4,}|(\. ){3,}")
_ENDS = tuple('.!?:;,"”’»)…')


def flow(text: str) -> str:
    """``text`` with the wrapped lines of each paragraph joined; blank lines stay."""
    parts = _BLANK.split(text)
    return "".join(part if number % 2 else _joined(part.split("\n")) for number, part in enumerate(parts))


def _joined(lines: list[str]) -> str:
    joined = lines[0]
    for flows, after in zip(continued(lines), lines[1:], strict=True):
        joined += (between(joined) if flows else "\n") + after
    return joined


def between(line: str) -> str:
    """The separator of a line and its continuation: empty after a hyphen, which stays."""
    return "" if re.search(r"\w-$", line) else " "


def continued(lines: list[str]) -> list[bool]:
    """For each line of a paragraph but the last: whether the next line continues it.

    It does if the next line's first word would not have fitted, within a tenth, because letters differ in width. A
    paragraph is unchanged if it is narrow, has table rows, or has no line that continues in lower case (an address,
    verses, a title page).
    """
    longest = max(map(len, lines))
    small = [line[:1].islower() for line in lines]
    prose = any(small[1:]) and (not all(small) or lines[-1].rstrip().endswith(_ENDS))
    rows = all(line.rstrip()[-1:].isdigit() for line in lines) or any(_ROW.search(line.strip()) for line in lines)
    if longest < NARROWEST or not prose or rows:
        return [False] * (len(lines) - 1)
    return [_continues(line, after, longest) for line, after in zip(lines, lines[1:], strict=False)]


def _continues(line: str, after: str, longest: int) -> bool:
    if not line or not after or after[0].isspace() or _ITEM.match(after):
        return False
    return len(line) + 1 + len(after.split()[0]) > 0.9 * longest
