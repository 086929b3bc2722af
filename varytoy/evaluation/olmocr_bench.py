"""olmOCR-bench's assertions about the markdown of a page (arXiv 2502.18443), of the types in its published files.

They follow the definitions of olmOCR's ``bench`` with these differences: formulas are compared as normalised LaTeX, not
as KaTeX draws them, so that two ways to write one formula may fail; ``order`` takes the best of overlapping matches by
Levenshtein distance. For the official score write the answers with ``--markdown`` and run
olmOCR's own program on them.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from varytoy.evaluation.grids import grids
from varytoy.evaluation.latex import normalise_latex

TYPES = ("present", "absent", "order", "table", "math", "baseline")
SIDES = ("up", "down", "left", "right", "top_heading", "left_heading")
_PLAIN = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "‚": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "＿": "_",
        "–": "-",
        "—": "-",
        "‑": "-",
        "‒": "-",
        "−": "-",
    }
    | {"\u00b5": "\u03bc"}
)
_MARKS = (
    re.compile(r"<br ?/?>"),
    re.compile(r"</?[bi]>"),
    re.compile(r"(\*\*|__)(.*?)\1"),
    re.compile(r"(\*|_)(.*?)\1"),
)
_FOREIGN = re.compile("[\u4e00-\u9fff\u3040-\u30ff\U0001f600-\U0001f64f\U0001f300-\U0001f6ff\U0001f1e0-\U0001f1ff]")
_IMAGE = re.compile(r"!\[.*?\]\(.*?\)")
_MATH = tuple(re.compile(form, re.DOTALL) for form in (r"\\\((.+?)\\\)", r"\\\[(.+?)\\\]"))
_DOLLARS = tuple(re.compile(form, re.DOTALL) for form in (r"\$\$(.+?)\$\$", r"\$(.+?)\$"))
_LONGEST_GRAM = 5


@dataclass(frozen=True)
class Assertion:
    """One test of the bench.

    Attributes:
        kind: of ``TYPES``.
        fields: as in its file, checked by ``parse``; texts are normalised.
    """

    id: str
    kind: str
    fields: dict[str, Any] = field(default_factory=dict)

    def holds(self, markdown: str) -> bool:
        """Whether it is true of the markdown of its page."""
        return _CHECKS[self.kind](markdown, self.fields)


def parse(row: dict[str, Any]) -> Assertion:
    """An assertion of its JSON object. Raises KeyError, TypeError, ValueError naming what is wrong."""
    kind = row["type"]
    if kind not in TYPES:
        raise ValueError(f"the type {kind!r} is not scored here; choose others with --types, or use olmOCR's program")
    texts = {"order": ("before", "after"), "table": ("cell",), "math": ("math",), "baseline": ()}.get(kind, ("text",))
    fields: dict[str, Any] = {"max_diffs": _whole(row, "max_diffs", 0)}
    for name in texts:
        if not isinstance(row[name], str) or not row[name].strip():
            raise TypeError(f"'{name}' must be a text")
        fields[name] = row[name].strip() if kind == "math" else normalise(row[name])
    for name in SIDES:
        fields[name] = normalise(row.get(name) or "")
    for name in ("first_n", "last_n", "max_length", "max_repeats"):
        fields[name] = _whole(row, name, None)
    flags = {"case_sensitive": True, "check_disallowed_characters": True, "max_length_skips_image_alt_tags": False}
    for name, default in (flags | {"ignore_markdown_tables": False, "ignore_dollar_delimited": False}).items():
        fields[name] = default if row.get(name) is None else bool(row[name])
    return Assertion(str(row["id"]), kind, fields)


def _whole(row: dict[str, Any], name: str, default: int | None) -> int | None:
    value = row.get(name)
    if value is None:
        return default
    if type(value) is not int or value < 0:
        raise TypeError(f"'{name}' must be a whole number from 0")
    return value


def normalise(text: str) -> str:
    """Without marks of bold and italics, with single spaces, composed letters, and ASCII quotes and dashes."""
    text = _MARKS[0].sub(" ", text)
    text = _MARKS[1].sub("", text)
    text = _MARKS[2].sub(r"\2", text)
    text = _MARKS[3].sub(r"\2", text)
    text = re.sub(r"\s+", " ", text)
    return unicodedata.normalize("NFC", text).translate(_PLAIN)


def _found(markdown: str, fields: dict[str, Any]) -> bool:
    """Whether the text is in the markdown, or in its first and last characters, with at most ``max_diffs`` differences
    by rapidfuzz's partial ratio, which counts a replaced letter twice."""
    from rapidfuzz import fuzz

    page, text = normalise(markdown), fields["text"]
    if not fields["case_sensitive"]:
        page, text = page.lower(), text.lower()
    first, last = fields["first_n"], fields["last_n"]
    if first or last:
        page = (page[:first] if first else "") + (page[-last:] if last else "")
    if len(page) < len(text) - fields["max_diffs"]:  # the ratio takes the shorter one for the part
        return False
    return fuzz.partial_ratio(text, page) / 100 >= 1 - fields["max_diffs"] / len(text)


def _in_order(markdown: str, fields: dict[str, Any]) -> bool:
    page = normalise(markdown)
    before, after = (starts(fields[name], page, fields["max_diffs"]) for name in ("before", "after"))
    return bool(before and after) and min(before) < max(after)


def starts(text: str, page: str, most: int) -> list[int]:
    """Where ``text`` begins in ``page`` with at most ``most`` edits: of each run of places, the one with the fewest."""
    import numpy as np

    if most == 0:
        return [match.start() for match in re.finditer(f"(?={re.escape(text)})", page)]
    letters = np.array([ord(letter) for letter in reversed(page)])
    steps = np.arange(len(letters) + 1)
    row = np.zeros(len(letters) + 1, int)  # edits of the text's last letters against what ends at each place
    for letter in reversed(text):
        best = np.minimum(row[:-1] + (letters != ord(letter)), row[1:] + 1)
        best = np.concatenate([row[:1] + 1, best])
        row = np.minimum.accumulate(best - steps) + steps
    edits = row[::-1]  # by where the text would begin
    places = np.flatnonzero(edits <= most)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    return [int(run[np.argmin(edits[run])]) for run in runs]


def _in_table(markdown: str, fields: dict[str, Any]) -> bool:
    wanted = {side: fields[side] for side in SIDES if fields[side]}
    for table in grids(markdown, with_markdown=not fields["ignore_markdown_tables"]):
        for cell in table.cells:
            if _alike(fields["cell"], cell.text, fields["max_diffs"]) and all(
                any(_alike(text, other.text, fields["max_diffs"]) for other in table.beside(cell, side))
                for side, text in wanted.items()
            ):
                return True
    return False


def _alike(text: str, cell: str, most: int) -> bool:
    from rapidfuzz import fuzz

    return fuzz.ratio(text, normalise(cell)) / 100 >= max(0.5, 1 - most / max(len(text), 1))


def _has_formula(markdown: str, fields: dict[str, Any]) -> bool:
    """Whether a formula of the page is, or contains, the one that is asked for."""
    wanted = normalise_latex(fields["math"])
    formulas = _formulas(markdown, dollars=not fields["ignore_dollar_delimited"])
    return any(wanted in normalise_latex(formula) for formula in formulas)


def _formulas(markdown: str, dollars: bool) -> Iterator[str]:
    for form in (*_MATH, *(_DOLLARS if dollars else ())):
        yield from form.findall(markdown)
        markdown = form.sub("", markdown)


def _is_sound(markdown: str, fields: dict[str, Any]) -> bool:
    """Whether the answer has letters, does not end in a loop, and has no Chinese, Japanese or emoji; or is short enough
    for a page that should be blank."""
    if fields["max_length"] is not None:
        text = _IMAGE.sub("", markdown) if fields["max_length_skips_image_alt_tags"] else markdown
        return sum(map(str.isalnum, text)) <= fields["max_length"]
    most = 30 if fields["max_repeats"] is None else fields["max_repeats"]
    if not any(map(str.isalnum, markdown)) or any(
        repeats(markdown, size) > most for size in range(1, _LONGEST_GRAM + 1)
    ):
        return False
    return not (fields["check_disallowed_characters"] and _FOREIGN.search(markdown))


def repeats(text: str, size: int) -> int:
    """How often the last ``size`` letters stand at the end, one after another."""
    last, count = text[-size:], 0
    while last and text.endswith(last, 0, len(text) - count * size):
        count += 1
    return count


_CHECKS: dict[str, Callable[[str, dict[str, Any]], bool]] = {
    "present": _found,
    "absent": lambda markdown, fields: not _found(markdown, fields),
    "order": _in_order,
    "table": _in_table,
    "math": _has_formula,
    "baseline": _is_sound,
}
