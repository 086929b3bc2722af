"""What the demo shows, as HTML. What a model or a user wrote goes through ``escape`` or ``render_markdown``."""

import base64
import re
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from demo.line import MAX_TOKENS
from demo.paragraphs import between, continued, flow
from varytoy.tasks import TASKS, Answer

LABELS = {
    "ocr": "Read text",
    "markdown": "Markdown",
    "detect": "Find objects",
    "ground": "Find one thing",
    "caption": "Describe",
    "vqa": "Short answer",
    "chat": "Chat",
}
STOPS = {
    "stopped": "stopped by you",
    "loop": "stopped: it repeated itself",
    "length": f"cut at {MAX_TOKENS} tokens",
}


def markdown_parser() -> MarkdownIt:
    """CommonMark with tables. Raw HTML stays text, and pictures too: their addresses would be fetched."""
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")


def render_markdown(text: str) -> str:
    """A model's markdown -> HTML that holds no element which the model wrote itself.

    Links keep their words only: a model's address is a guess, and one click away from anywhere.
    """
    parser = markdown_parser()
    tokens = parser.parse(text)
    for token in tokens:
        if token.children:
            token.children = [child for child in token.children if child.type not in ("link_open", "link_close")]
            _break_lines(token)
    return parser.renderer.render(tokens, parser.options, {})


def _break_lines(inline) -> None:
    """Give the lines of a paragraph that do not flow their ends back, which markdown takes from them."""
    lines = inline.content.split("\n")
    ends = [child for child in inline.children if child.type in ("softbreak", "hardbreak")]
    if len(ends) != len(lines) - 1:  # an end stands within code, say
        return
    for end, line, flows in zip(ends, lines, continued(lines), strict=False):
        end.type, end.content = ("text", between(line)) if flows else ("hardbreak", "")


def label(task: str) -> str:
    return LABELS.get(task, task.capitalize())


def named(error: str) -> str:
    """What the library says of a task, with the name on its button."""
    names = "|".join(map(re.escape, TASKS))
    return re.sub(rf"(?:the task )?'({names})'", lambda found: f"“{label(found[1])}”", error)


def task_hint(name: str) -> str:
    """What the prompt box says while it is empty."""
    if name == "detect":
        return "All, or name some: cat, tree"
    return f"Type {TASKS[name].takes}"


def model_name(name: str) -> str:
    """A folder by its own name; the rest of its path is nobody's business."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def header(model: str, error: str) -> str:
    said = f"<span>{escape(error)}</span>" if error else ""
    return (
        '<header class="vt-head"><div><h1>varytoy</h1><p>small models that read</p></div>'
        f'<p class="vt-model"><b>{escape(model)}</b>{said}</p></header>'
    )


def warning(sentence: str) -> str:
    return f'<p class="vt-warning">{escape(sentence)}</p>' if sentence else ""


def notice(sentence: str) -> str:
    """An error, said once and read aloud by screen readers; empty for none."""
    return f'<p class="vt-error" role="alert">{escape(sentence)}</p>' if sentence else ""


def working(seconds: float) -> str:
    return f'<p class="vt-status"><i class="vt-dot"></i>Reading… {seconds:.0f} s</p>'


def waiting(place: int) -> str:
    """Said while others are answered."""
    said = f"Waiting: the model answers one visitor at a time, and you are number {place} in the queue."
    return f'<p class="vt-status" role="status"><i class="vt-dot"></i>{said}</p>'


def finished(model: str, answer: Answer, seconds: float, experimental: bool = False) -> str:
    """The line under an answer: why it ended, if not by itself, the time, the model and how sure it was."""
    parts = [f"{seconds:.1f} s", model]
    if experimental:
        parts.append("experimental")
    elif answer.confidence is not None and answer.text:
        parts.append(f"confidence {answer.confidence:.0%}")
    stop = STOPS.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason != "end" else ""
    said = f'<span class="vt-stop" role="status">{escape(_sentence(stop))}</span>' if stop else ""
    return f'<p class="vt-status">{said}{escape(" · ".join(parts))}</p>'


def downloads(files: dict[str, str]) -> str:
    """Links that save the answer. Their contents stand in the page, so that nothing is kept for them on the server.

    ``files``: name -> text.
    """
    links = [
        f'<a download="{escape(name)}" href="data:application/octet-stream;base64,'
        f'{base64.b64encode(text.encode("utf-8", "replace")).decode()}">{escape(Path(name).suffix)}</a>'
        for name, text in files.items()
    ]
    return f'<p class="vt-save">Save as {" ".join(links)}</p>'


def live(text: str) -> str:
    """Text while it streams in."""
    return f'<div class="vt-text vt-live" aria-live="polite">{escape(flow(text.strip()))}</div>'


def answer(found: Answer) -> str:
    """A finished answer: rendered markdown, a list of boxes, or plain text."""
    if found.boxes:
        return _box_list(found)
    if found.markdown is not None and found.markdown:
        return f'<div class="vt-markdown">{render_markdown(found.markdown)}</div>'
    if not found.text and found.stop_reason == "stopped":
        return placeholder()
    if not found.text:
        return '<p class="vt-empty">The answer is empty.</p>'
    return f'<div class="vt-text">{escape(flow(found.text))}</div>'


def placeholder() -> str:
    return '<p class="vt-empty">The answer appears here.</p>'


def turns(entries: list[tuple[str, str, str]]) -> str:
    """Earlier turns, newest first; an entry is (task name, what was asked, what was answered)."""
    if not entries:
        return ""
    rows = [
        f"<details><summary><b>{escape(label(task))}</b> {escape(asked)}</summary>"
        f'<div class="vt-text">{escape(said)}</div></details>'
        for task, asked, said in reversed(entries)
    ]
    return f'<section class="vt-turns"><h2>Earlier on this picture</h2>{"".join(rows)}</section>'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _box_list(found: Answer) -> str:
    rows = "".join(
        f"<tr><td>{escape(name or 'object')}</td>{''.join(f'<td>{int(value)}</td>' for value in box)}</tr>"
        for name, box in found.boxes
    )
    note = '<p class="vt-status">in pixels of the picture</p>'
    head = "<tr><th>object</th><th>left</th><th>top</th><th>right</th><th>bottom</th></tr>"
    return f'<div class="vt-markdown"><table><thead>{head}</thead><tbody>{rows}</tbody></table>{note}</div>'
