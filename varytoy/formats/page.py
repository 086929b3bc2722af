"""Markdown as HTML that cannot do harm: formulas as MathML, tables in HTML as tables, all other HTML as the text it is.

Links keep their words alone and pictures their description: a model's address is a guess, and could lead anywhere.
"""

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING

from varytoy.formats import formula
from varytoy.formats.problem import NotationError, check_length

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_MOST = 1000
"""Rows or columns that a cell may span."""
_TABLE = re.compile(r"<(/?)table\b[^<>]*>", re.IGNORECASE)
_BRACKETS = {"(": ("\\)", False), "[": ("\\]", True)}
"""After a backslash: what ends the formula, and whether it is displayed."""
_STYLE = (
    "body{max-width:48rem;margin:2rem auto;padding:0 1rem;font:1rem/1.5 sans-serif;background:white;color:black}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid;padding:.2rem .5rem;text-align:left}"
    "pre{overflow-x:auto}img{max-width:100%}.bad{color:#93180f}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def body(text: str, problems: list[str] | None = None, adjust: Callable[["Token"], None] | None = None) -> str:
    """HTML of a markdown answer, well-formed as XML, without the page around it.

    Args:
        problems: gets a sentence for each formula that is broken; it is shown as its source.
        adjust: changes the inline tokens of a paragraph, a heading or a cell before they are written.
    """
    problems = [] if problems is None else problems
    parser = _parser()
    tokens = parser.parse(text)
    for token in tokens:
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_table":
            token.type, token.content = "html_block", _table(token.content, line, problems)
        elif token.type.startswith("math"):
            token.content = _formula(token.content, True, line, problems)
            token.type = "html_block"
        elif token.children is not None:
            _write_inline(token, line, problems)
            if adjust:
                adjust(token)
    return parser.renderer.render(tokens, parser.options, {})


def document(inside: str, title: str) -> str:
    """A page of HTML around ``body`` or a picture; its policy forbids scripts and whatever must be loaded."""
    return (
        f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{_POLICY}"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n'
        f"<body><article>\n{inside}</article></body></html>\n"
    )


def page(text: str, title: str, problems: list[str] | None = None) -> str:
    """A markdown answer as a page of HTML. Raises NotationError for an empty or endless one."""
    check_length(text, "the answer")
    return document(body(text, problems), title)


def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True}).enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    parser.inline.ruler.before("escape", "math_brackets", _bracket_rule)
    parser.block.ruler.before(
        "paragraph", "html_table", _table_rule, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    return parser


def _bracket_rule(state, silent: bool) -> bool:
    r"""``\( … \)`` and ``\[ … \]``, as other models write formulas."""
    text, start = state.src, state.pos
    if text[start] != "\\" or start + 1 >= len(text) or text[start + 1] not in _BRACKETS:
        return False
    sign, display = _BRACKETS[text[start + 1]]
    end = text.find(sign, start + 2)
    if end < 0:
        return False
    if not silent:
        token = state.push("math_display" if display else "math_inline", "", 0)
        token.content = text[start + 2 : end]
    state.pos = end + 2
    return True


def _table_rule(state, first: int, last: int, silent: bool) -> bool:
    """Lines from one that begins with ``<table`` to the one with the end of it, or to the last one."""
    start = state.bMarks[first] + state.tShift[first]
    opening = _TABLE.match(state.src, start)
    if not opening or opening[1] or state.is_code_block(first):
        return False
    if silent:
        return True
    depth, line, texts = 0, first, []
    while line < last:
        text = state.src[state.bMarks[line] + (state.tShift[line] if line == first else 0) : state.eMarks[line]]
        line += 1
        for match in _TABLE.finditer(text):
            depth += -1 if match[1] else 1
            if depth <= 0:
                texts.append(text[: match.end()])
                rest = text[match.end() :]
                break
        else:
            texts.append(text)
            continue
        break
    else:
        rest = ""
    state.line = line
    token = state.push("html_table", "", 0)
    token.content, token.map = "\n".join(texts), [first, line]
    if rest.strip():  # what follows the table in its last line
        state.push("paragraph_open", "p", 1)
        token = state.push("inline", "", 0)
        token.content, token.map, token.children = rest.strip(), [line - 1, line], []
        state.push("paragraph_close", "p", -1)
    return True


def _write_inline(token: "Token", line: int, problems: list[str]) -> None:
    """Take the links from a paragraph's tokens, and write its formulas and pictures as HTML."""
    kept = [child for child in token.children or () if child.type not in ("link_open", "link_close")]
    for child in kept:
        if child.type.startswith("math"):
            display = child.type in ("math_display", "math_inline_double")
            child.type, child.content = "html_inline", _formula(child.content, display, line, problems)
        elif child.type == "image":
            child.type, child.content = "text", f"[{child.content or 'figure'}]"
            child.children = None
    token.children = kept


def _formula(latex: str, display: bool, line: int, problems: list[str]) -> str:
    try:
        return formula.markup(latex.strip(), display) + "\n" * display
    except NotationError as error:
        problems.append(f"line {line}: {error}")
        return f'<code class="bad">{escape(latex.strip())}</code>'


class _Table(HTMLParser):
    """Rows of cells: [name, columns and rows that it spans, its lines]. Tags that are none of a table's are text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[tuple[str, dict[str, int], list[str]]]] = []
        self.outside: list[str] = [""]
        self._open = False

    @property
    def _lines(self) -> list[str]:
        return self.rows[-1][-1][2] if self._open else self.outside

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
            self._open = False
        elif tag in ("td", "th"):
            if not self.rows:
                self.rows.append([])
            spans = {name: int(value or "") for name, value in attrs if name.endswith("span") and _number(value)}
            known = {name: spans[name] for name in ("colspan", "rowspan") if 1 < spans.get(name, 0) <= _MOST}
            self.rows[-1].append((tag, known, [""]))
            self._open = True
        elif tag == "br":
            self._lines.append("")
        elif tag not in ("table", "thead", "tbody", "tfoot", "colgroup", "col", "caption"):
            self._lines[-1] += self.get_starttag_text() or ""

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr"):
            self._open = False
        elif tag not in ("table", "thead", "tbody", "tfoot", "colgroup", "col", "caption", "br"):
            self._lines[-1] += f"</{tag}>"

    def handle_data(self, data: str) -> None:
        self._lines[-1] += data


def _number(value: str | None) -> bool:
    return bool(value) and value.isascii() and value.isdigit() and len(value) < 9


def _table(source: str, line: int, problems: list[str]) -> str:
    found = _Table()
    found.feed(source)
    found.close()
    outside = [_cell([text], line, problems) for text in found.outside if text.strip()]
    rows = []
    for cells in found.rows:
        written = ""
        for name, spans, lines in cells:
            attributes = "".join(f' {key}="{value}"' for key, value in spans.items())
            written += f"<{name}{attributes}>{_cell(lines, line, problems)}</{name}>"
        rows.append(f"<tr>{written}</tr>")
    before = "".join(f"<p>{text}</p>\n" for text in outside)
    return f"{before}<table>\n" + "\n".join(rows) + "\n</table>\n"


def _cell(lines: list[str], line: int, problems: list[str]) -> str:
    parser = _parser()
    written = []
    for text in lines:
        (token,) = parser.parseInline(text.strip())
        _write_inline(token, line, problems)
        written.append(parser.renderer.render([token], parser.options, {}))
    return "<br />".join(written)
