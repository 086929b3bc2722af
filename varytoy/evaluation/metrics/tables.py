"""Metrics of tables and of markdown."""

import re
from collections.abc import Iterator
from typing import Any

from varytoy.evaluation.metric import Mean, Metric, Ratio
from varytoy.tasks import metrics

_TABLE = re.compile(r"(<table\b.*?</table\s*>|<table\b.*\Z)", re.DOTALL | re.IGNORECASE)


def markdown_similarity() -> Metric:
    """Mean over pages of 1 - tree edit distance / size of the larger tree (KOSMOS-2.5's NTED, a similarity), by
    ``tasks.metrics.markdown_tree_similarity``. An empty answer keeps the root: 1 / size of the true tree."""
    return Mean("markdown tree similarity", lambda *pair: 1.0 - _markdown_distance(*pair))


def markdown_distance() -> Metric:
    """1 - ``markdown_similarity``."""
    return Mean("normalised tree edit distance of markdown", _markdown_distance, is_error=True)


def _markdown_distance(prediction, case) -> float:
    return 1.0 - metrics.markdown_tree_similarity(prediction.text, case.truth)


def teds(structure: bool = False) -> Metric:
    """Tree edit distance based similarity (arXiv 1911.10683), mean over cases. Tables are HTML or markdown, in answer
    and truth; their order pairs them. A table without a partner counts 0. Cases in which neither text has a table are
    left out.

    Args:
        structure: TEDS-Struct, which ignores what cells contain.
    """

    def count(prediction, case):
        predicted, true = tables(prediction.text), tables(case.truth)
        most = max(len(predicted), len(true))
        scores = (table_similarity(*pair, structure) for pair in zip(predicted, true, strict=False))
        return (sum(scores) / most, 1.0) if most else (0.0, 0.0)

    return Ratio("TEDS-Struct" if structure else "TEDS", count)


def tables(text: str) -> list[Any]:
    """``elements`` with ``<td>`` for ``<th>``, since PubTabNet's truth has no other cells."""
    found = elements(text)
    for table in found:
        for cell in table.iter("th"):
            cell.tag = "td"
    return found


def elements(text: str, with_markdown: bool = True) -> list[Any]:
    """The tables of a text as elements of lxml, in their order: ``<table>`` of HTML and, with ``with_markdown``, those
    of markdown; not tables in tables."""
    from lxml import html
    from markdown_it import MarkdownIt

    if "|" not in text and "<table" not in text.lower():
        return []
    markdown = MarkdownIt("commonmark")
    if with_markdown:
        markdown.enable("table")
    parts = _TABLE.split(text.replace("\0", ""))
    parts[0::2] = map(markdown.render, parts[0::2])
    root = html.document_fromstring("<p>" + "".join(parts), parser=html.HTMLParser(remove_comments=True))
    return root.xpath("//table[not(ancestor::table)]")


def table_similarity(predicted: Any, true: Any, structure: bool = False) -> float:
    """TEDS of two tables: 1 - tree edit distance / elements of the larger table, below ``<table>`` itself.

    Insertion, deletion and another tag, colspan or rowspan cost 1; another content of a cell its Levenshtein distance
    over the longer length, in characters and tags. As in PubTabNet's program, tags inside cells count as elements of
    the table, though they are no nodes of the tree.
    """
    from apted import APTED

    first, second = _Node(predicted, structure), _Node(true, structure)
    most = max(len(predicted.xpath(".//*")), len(true.xpath(".//*")))
    if not most:
        return 1.0
    return 1.0 - APTED(first, second, _Costs()).compute_edit_distance() / most


class _Node:
    """An element of a table; a cell is a leaf with its spans and its content."""

    def __init__(self, element: Any, structure: bool):
        cell = element.tag == "td"
        self.kind = (element.tag, *(_span(element, name) for name in ("colspan", "rowspan") if cell))
        self.content = list(_tokens(element)) if cell and not structure else []
        self.children = [] if cell else [_Node(child, structure) for child in element]


def _span(cell: Any, name: str) -> int:
    value = cell.get(name, "1").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 6 else 1


def _tokens(element: Any) -> Iterator[str]:
    """Characters and tags of what an element contains."""
    yield from element.text or ""
    for child in element:
        yield f"<{child.tag}>"
        yield from _tokens(child)
        yield f"</{child.tag}>"
        yield from child.tail or ""


class _Costs:
    """With apted's configuration interface."""

    valuecls = float

    def __init__(self):
        from rapidfuzz.distance import Levenshtein

        self.distance = Levenshtein.distance

    def delete(self, node: _Node) -> float:
        return 1.0

    insert = delete

    def rename(self, first: _Node, second: _Node) -> float:
        if first.kind != second.kind:
            return 1.0
        if first.content == second.content:
            return 0.0
        return self.distance(first.content, second.content) / max(len(first.content), len(second.content))

    def children(self, node: _Node) -> list[_Node]:
        return node.children
