"""Charts from their tables: a title and a pipe table, as ``python -m data_tools render charts`` writes them."""

import io
import re
from dataclasses import dataclass
from typing import Any

from varytoy.extras import require
from varytoy.formats.problem import NotationError, check_length

_MOST = 200
"""Rows, and columns, of a chart that can be looked at."""
_NUMBER = re.compile(r"[-+]?(?:\d+(?:,\d{3})+|\d+)?(?:\.\d+)?")
_SIZE = (7.0, 4.5)
"""Inches."""


@dataclass
class Chart:
    """``values``: of each series, one for each category."""

    title: str
    across: str
    categories: list[str]
    series: list[str]
    values: list[list[float]]

    @property
    def form(self) -> str:
        """What the table tells of how it was drawn: pie, scatter, line or bar."""
        if self.series == ["Share"] and min(self.values[0]) >= 0 and sum(self.values[0]) > 0:
            return "pie"
        if self.across == "x" and all(_is_number(each) for each in self.categories):
            return "scatter"
        return "line" if self.across in ("Month", "Year") else "bar"


def read(markdown: str) -> Chart:
    """The chart of a markdown answer.

    Raises:
        NotationError: no table, or a cell that is no number; the place is a line, from 1.
    """
    check_length(markdown, "the chart")
    title = ""
    rows: list[list[str]] = []
    where: list[int] = []
    tokens = _tokens(markdown)
    for before, token in zip(tokens, tokens[1:], strict=False):
        if before.type == "heading_open" and not title:
            title = "".join(child.content for child in token.children or ())
        elif before.type == "table_close":
            break
        elif before.type == "tr_open":
            rows.append([])
            where.append(before.map[0] + 1 if before.map else 0)
        if before.type in ("th_open", "td_open") and rows:
            rows[-1].append("".join(child.content for child in token.children or ()).strip())
    if len(rows) < 2 or len(rows[0]) < 2:
        raise NotationError("the chart has no table with a row of names and rows of numbers")
    if max(len(rows), len(rows[0])) > _MOST:
        raise NotationError(f"the chart's table is {len(rows)} x {len(rows[0])}; at most {_MOST} x {_MOST} are drawn")
    values = []
    for column, name in enumerate(rows[0][1:], 1):
        values.append([_value(row[column], line, name) for row, line in zip(rows[1:], where[1:], strict=True)])
    return Chart(title, rows[0][0], [row[0] for row in rows[1:]], rows[0][1:], values)


def values(markdown: str) -> list[float]:
    """The numbers of an answer that is a chart's, row by row; empty for others: a chart's is a title, and under it a
    table with numbers in all columns but the first."""
    if "|" not in markdown:
        return []
    try:
        chart = read(markdown)
    except NotationError:
        return []
    blocks = [token.type for token in _tokens(markdown) if token.level == 0 and token.nesting >= 0]
    if blocks != ["heading_open", "table_open"]:
        return []
    return [value for row in zip(*chart.values, strict=True) for value in row]


def _tokens(markdown: str) -> list[Any]:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").parse(markdown)


def svg(markdown: str) -> str:
    """A picture of the chart, its letters as paths. Raises as ``read``."""
    chart = read(markdown)
    require("render", "matplotlib", by="a chart")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "varytoy", "text.parse_math": False}):
        figure = Figure(_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(chart.title)
        _draw(axes, chart)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _draw(axes: Any, chart: Chart) -> None:
    places = list(range(len(chart.categories)))
    if chart.form == "pie":
        axes.pie(chart.values[0], labels=chart.categories, autopct="%.0f%%", startangle=90)
        return
    axes.set_xlabel(chart.across)
    axes.grid(True, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    wide = 0.8 / len(chart.series)
    for number, (name, values) in enumerate(zip(chart.series, chart.values, strict=True)):
        if chart.form == "scatter":
            axes.scatter([_float(each) for each in chart.categories], values, label=name)
        elif chart.form == "line":
            axes.plot(places, values, marker="o", label=name)
        else:
            offset = (number - (len(chart.series) - 1) / 2) * wide
            axes.bar([place + offset for place in places], values, wide, label=name)
    if chart.form != "scatter":
        axes.set_xticks(places, chart.categories, rotation=90 if len(places) > 12 else 0)
    if len(chart.series) > 1:
        axes.legend()
    else:
        axes.set_ylabel(chart.series[0])


def _bare(text: str) -> str:
    return text.strip().strip("%$€£ ").replace("\u2212", "-")


def _is_number(text: str) -> bool:
    text = _bare(text)
    return any(letter.isdigit() for letter in text) and text.isascii() and _NUMBER.fullmatch(text) is not None


def _float(text: str) -> float:
    return float(_bare(text).replace(",", ""))


def _value(text: str, line: int, name: str) -> float:
    if not _is_number(text):
        raise NotationError(f"line {line} of the chart: '{text[:40]}' under '{name[:40]}' is no number")
    return _float(text)
