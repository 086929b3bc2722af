"""What a model's replies say; a model may wrap what it was asked for in other words."""

import json
import re

from varytoy.data.spots import UNANSWERABLE

LONGEST_QUESTION, LONGEST_ANSWER = 300, 120
"""Characters."""
_LIST = re.compile(r"\[.*\]", re.DOTALL)
_MARK = re.compile(r"^\s*(?:[-*\u2022]+|\(?\d{1,3}[.):]|Q\d*\s*[:.])\s*")
_LINE = re.compile(r"^\W*(?:final )?answer\W*?\s*[:=]\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_PAIR = re.compile(
    r"^\s*(?:Q|Question)\s*\d*\s*[:.]\s*(.+?)\s*\n\s*(?:A|Answer)\s*\d*\s*[:.]\s*(.+?)\s*$", re.MULTILINE | re.I
)
_NOTHING = re.compile(
    r"unanswerable|not answerable|n/?a|none|unknown|not (?:shown|given|stated|mentioned|visible|available|specified)"
    r"|(?:the|this) (?:image|picture|document|text) (?:does not|doesn't) .*",
    re.IGNORECASE,
)


def questions(reply: str) -> list[str]:
    """The questions of a JSON list, or of lines with a mark or a question mark."""
    tree = _json_list(reply)
    if tree is not None:
        texts = [each.get("question", "") if isinstance(each, dict) else each for each in tree]
        return [" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip()]
    lines = [line for line in reply.splitlines() if line.strip()]
    marked = [_MARK.sub("", line) for line in lines if _MARK.match(line) or line.rstrip().endswith("?")]
    return [" ".join(line.strip("\"' ").split()) for line in marked if line.strip()]


def pairs(reply: str) -> list[tuple[str, str]]:
    """The questions with their answers of a JSON list, or of lines ``Q:`` and ``A:``."""
    tree = _json_list(reply)
    if tree is None:
        return _PAIR.findall(reply)
    found = [(each.get("question"), each.get("answer")) for each in tree if isinstance(each, dict)]
    return [(" ".join(str(question).split()), answer(str(said))) for question, said in found if question and said]


def answer(reply: str) -> str:
    """A short answer: the last line after "Answer:", or else the first line, without quotes and a final stop; one of
    the ways to say that there is none becomes ``UNANSWERABLE``."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    found = _LINE.findall(reply)
    said = found[-1] if found else lines[0] if lines else ""
    said = said.strip("*_` ").strip()
    if len(said) > 1 and said[0] in "\"'\u201c" and said[-1] in "\"'\u201d":
        said = said[1:-1]
    if said.endswith(".") and not said[:-1].endswith("."):
        said = said[:-1]
    return UNANSWERABLE if _NOTHING.fullmatch(said.strip()) else said.strip()


def verdicts(reply: str, names: tuple[str, ...]) -> dict[str, bool] | None:
    """true or false for each name, of a JSON object or of lines ``name: yes``; None if one is missing."""
    found: dict[str, bool] = {}
    for name in names:
        said = re.search(rf"{name}\W{{1,6}}(true|false|yes|no)\b", reply, re.IGNORECASE)
        if said is None:
            return None
        found[name] = said[1].lower() in ("true", "yes")
    return found


def yes(reply: str) -> bool | None:
    """Whether a reply says yes; None if it says neither yes nor no."""
    said = re.search(r"\b(yes|no|not)\b", reply, re.IGNORECASE)
    return None if said is None else said[1].lower() == "yes"


def _json_list(reply: str) -> list | None:
    found = _LIST.search(reply)
    try:
        tree = json.loads(found[0]) if found else None
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, list) else None
