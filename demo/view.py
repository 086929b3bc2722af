"""HTML of the demo. Text from a model or a user goes through ``escape`` or ``render_markdown``."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from demo.line import MAX_TOKENS
from demo.paragraphs import between, continued, flow
from varytoy.data.answer import Region
from varytoy.extras import MissingExtra
from varytoy.formats.draw import NOTATIONS
from varytoy.formats.page import body
from varytoy.formats.problem import NotationError
from varytoy.inference.many import PageAnswer
from varytoy.tasks import TASKS, Answer

BLUE = "#2563eb"
LABELS = {
    "ocr": "Read text",
    "markdown": "Markdown",
    "spot": "Text with boxes",
    "formula": "Formula",
    "music": "Sheet music",
    "geometry": "Geometry",
    "molecule": "Molecule",
    "erase": "Erase text",
    "edit": "Replace text",
    "generate": "Write text",
    "detect": "Find objects",
    "ground": "Find one thing",
    "caption": "Describe",
    "vqa": "Short answer",
    "chat": "Chat",
}
STOPS = {
    "cancelled": "stopped by you",
    "loop": "stopped: it repeated itself",
    "length": f"cut at {MAX_TOKENS} tokens",
}


WHOLE = '<p class="vt-whole">Draw a rectangle on the picture to read only that part; click on it for all of it.</p>'


def render_markdown(text: str) -> str:
    """A model's markdown -> HTML without raw HTML from the model; its formulas are MathML, its tables are tables."""
    return body(text, adjust=_break_lines)


def _break_lines(inline) -> None:
    """Restore the line breaks of a paragraph that are not mere wrapping, which markdown removes."""
    lines = inline.content.split("\n")
    ends = [child for child in inline.children if child.type in ("softbreak", "hardbreak")]
    if len(ends) != len(lines) - 1:  # e.g. a line break within code
        return
    for end, line, flows in zip(ends, lines, continued(lines), strict=False):
        end.type, end.content = ("text", between(line)) if flows else ("hardbreak", "")


def label(task: str) -> str:
    return LABELS.get(task, task.capitalize())


def named(error: str) -> str:
    """An error message with task names replaced by the buttons' labels."""
    names = "|".join(map(re.escape, TASKS))
    return re.sub(rf"(?:the task )?'({names})'", lambda match: f"“{label(match[1])}”", error)


def task_hint(name: str) -> str:
    """Placeholder of the prompt box."""
    if name == "detect":
        return "All, or name some: cat, tree"
    return f"Type {TASKS[name].takes}"


def model_name(name: str) -> str:
    """A hub id, or the name of a folder without the rest of its path, which is private."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def header(model: str, error: str) -> str:
    note = f"<span>{escape(error)}</span>" if error else ""
    return (
        '<header class="vt-head"><div><h1>varytoy</h1><p>small models that read</p></div>'
        f'<p class="vt-model"><b>{escape(model)}</b>{note}</p></header>'
    )


def warning(sentence: str) -> str:
    return f'<p class="vt-warning">{escape(sentence)}</p>' if sentence else ""


def notice(sentence: str) -> str:
    """An error, announced by screen readers; empty for none."""
    return f'<p class="vt-error" role="alert">{escape(sentence)}</p>' if sentence else ""


def working(seconds: float, block: int = 0, blocks: int = 0) -> str:
    where = f" block {block} of {blocks}" if blocks > 1 else ""
    return f'<p class="vt-status"><i class="vt-dot"></i>Reading{where}… {seconds:.0f} s</p>'


def working_on(what: str) -> str:
    """Status while documents are read."""
    return f'<p class="vt-status" role="status"><i class="vt-dot"></i>Read: {escape(what)}</p>'


def stopped() -> str:
    return '<p class="vt-status"><span class="vt-stop" role="status">Stopped by you.</span></p>'


def pages(read: Sequence[PageAnswer]) -> str:
    """A table of pages that were read: file, page, confidence and how the text begins."""
    rows = []
    for page in read:
        answer, name = page.answer, escape(Path(page.item.name).name)
        if answer is None or page.page is None:
            error = page.error.replace(page.item.name, Path(page.item.name).name)
            rows.append(f'<tr><td>{name}</td><td></td><td></td><td class="vt-bad">{escape(error)}</td></tr>')
            continue
        sure = f"{answer.confidence:.0%}" if answer.confidence is not None and answer.text else ""
        begins = " ".join(answer.text.split())[:90] or "(empty)"
        rows.append(f"<tr><td>{name}</td><td>{page.page.number}</td><td>{sure}</td><td>{escape(begins)}</td></tr>")
    return _table(("file", "page", "confidence", "begins"), "".join(rows))


def waiting(place: int) -> str:
    """Status while others are answered."""
    status = f"Waiting: the model answers one visitor at a time, and you are number {place} in the queue."
    return f'<p class="vt-status" role="status"><i class="vt-dot"></i>{status}</p>'


def finished(model: str, answer: Answer, seconds: float, experimental: bool = False) -> str:
    """The line under an answer: stop reason unless it ended by itself, time, model and confidence."""
    parts = [f"{seconds:.1f} s", model]
    if experimental:
        parts.append("experimental")
    elif answer.confidence is not None and answer.text:
        parts.append(f"confidence {answer.confidence:.0%}")
    stop = STOPS.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason != "end" else ""
    reason = f'<span class="vt-stop" role="status">{escape(_sentence(stop))}</span>' if stop else ""
    return f'<p class="vt-status">{reason}{escape(" · ".join(parts))}</p>'


def downloads(files: dict[str, str | bytes]) -> str:
    """Links that save the answer. The contents are in the page, so that the server keeps nothing for them.

    ``files``: name -> contents.
    """
    links = [
        f'<a download="{escape(name)}" href="data:application/octet-stream;base64,'
        f'{base64.b64encode(_bytes(contents)).decode()}">{escape(Path(name).suffix)}</a>'
        for name, contents in files.items()
    ]
    return f'<p class="vt-save">Save as {" ".join(links)}</p>'


def _bytes(contents: str | bytes) -> bytes:
    return contents.encode("utf-8", "replace") if isinstance(contents, str) else contents


def live(text: str) -> str:
    """Text while it streams in."""
    return f'<div class="vt-text vt-live" aria-live="polite">{escape(flow(text.strip()))}</div>'


def answer(result: Answer, task: str = "") -> str:
    """A finished answer: rendered markdown, a notation drawn again, a list of boxes, or plain text."""
    if task in NOTATIONS and task != "markdown" and result.text:
        return _drawn(task, result.text)
    if result.boxes and not (task in TASKS and TASKS[task].asks):
        return _box_list(result)
    if result.markdown is not None and result.markdown:
        return f'<div class="vt-markdown">{render_markdown(result.markdown)}</div>'
    if not result.text and result.stop_reason == "cancelled":
        return placeholder()
    if not result.text:
        return '<p class="vt-empty">The answer is empty.</p>'
    return f'<div class="vt-text">{escape(flow(result.text))}</div>'


def changed(before: bytes, after: bytes) -> str:
    """Two JPEGs of one size above each other, and a slider between them."""
    first, second = (f"data:image/jpeg;base64,{base64.b64encode(each).decode()}" for each in (before, after))
    move = "this.parentNode.style.setProperty('--vt-cut', this.value + '%')"
    return (
        '<div class="vt-changed">'
        f'<img alt="The picture before" src="{first}"><img class="vt-after" alt="The picture after" src="{second}">'
        f'<input type="range" min="0" max="100" value="50" aria-label="Before and after" oninput="{move}">'
        "</div>"
    )


def _drawn(task: str, text: str) -> str:
    """The picture that the answer stands for, or why there is none, and the answer."""
    svg = NOTATIONS[task].svg
    assert svg is not None
    try:
        address = f"data:image/svg+xml;base64,{base64.b64encode(svg(text).encode()).decode()}"
        shown = f'<img class="vt-drawn" alt="The answer, drawn" src="{address}">'
    except (NotationError, MissingExtra) as error:
        shown = f'<p class="vt-status">{escape(_sentence(str(error)))}</p>'
    return f'{shown}<div class="vt-text">{escape(text)}</div>'


def blocks(found: Sequence[Region]) -> str:
    """A list of blocks of text, with the numbers that the picture shows, and how sure each is."""
    if not found:
        return '<p class="vt-empty">The blocks of a page appear here, and on the picture.</p>'
    rows = "".join(
        f"<tr><td>{number}</td><td>{'' if block.score is None else f'{block.score:.0%}'}</td>"
        f'<td class="vt-text">{escape(block.text)}</td></tr>'
        for number, block in enumerate(found, 1)
    )
    return _table(("", "confidence", "text"), rows)


def placeholder() -> str:
    return '<p class="vt-empty">The answer appears here.</p>'


def turns(entries: list[tuple[str, str, str]]) -> str:
    """Earlier turns, newest first; an entry is (task name, question, answer)."""
    if not entries:
        return ""
    rows = [
        f"<details><summary><b>{escape(label(task))}</b> {escape(question)}</summary>"
        f'<div class="vt-text">{escape(reply)}</div></details>'
        for task, question, reply in reversed(entries)
    ]
    names = ("task", "asked", "answer")
    saved = json.dumps([dict(zip(names, entry, strict=True)) for entry in entries], ensure_ascii=False, indent=2)
    save = downloads({"turns.json": saved})
    return f'<section class="vt-turns"><h2>Earlier on this picture</h2>{"".join(rows)}{save}</section>'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _box_list(result: Answer) -> str:
    rows = "".join(
        f"<tr><td>{escape(name or 'object')}</td>{''.join(f'<td>{int(value)}</td>' for value in box)}</tr>"
        for name, box in result.boxes
    )
    note = '<p class="vt-status">in pixels of the picture</p>'
    return _table(("object", "left", "top", "right", "bottom"), rows, note)


def _table(names: Sequence[str], rows: str, note: str = "") -> str:
    """``rows`` and ``note`` are HTML."""
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="vt-markdown"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}</div>'
