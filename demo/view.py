"""What the demo shows, as HTML. What a model or a user wrote goes through ``escape`` or ``render_markdown``."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path

from huggingface_hub import hf_hub_download
from markdown_it import MarkdownIt

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
# A page is read in blocks; this holds for each of them.
MAX_TOKENS = 1024
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
    return parser.renderer.render(tokens, parser.options, {})


def task_choices() -> list[tuple[str, str]]:
    """(label, name) of every task of the library."""
    return [(LABELS.get(name, name.capitalize()), name) for name in TASKS]


def task_hint(name: str) -> str:
    """What the prompt box says while it is empty."""
    if name == "detect":
        return "All, or name some: cat, tree"
    takes = TASKS[name].takes
    return f"Type {takes}" if takes else "Or type a prompt of your own"


def model_name(name: str) -> str:
    """A folder by its own name; the rest of its path is nobody's business."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def header(model: str, error: str) -> str:
    return (
        '<header class="vt-head"><div><h1>varytoy</h1><p>small models that read</p></div>'
        f'<p class="vt-model"><b>{escape(model)}</b><span title="{escape(error)}">{escape(error)}</span></p></header>'
    )


def notice(sentence: str) -> str:
    """An error, said once and read aloud by screen readers; empty for none."""
    return f'<p class="vt-error" role="alert">{escape(sentence)}</p>' if sentence else ""


def working(seconds: float) -> str:
    return f'<p class="vt-status"><i class="vt-dot"></i>Reading… {seconds:.0f} s</p>'


def finished(model: str, answer: Answer, seconds: float) -> str:
    """The line under an answer: why it ended, if not by itself, the time, the model and how sure it was."""
    parts = [f"{seconds:.1f} s", model]
    if answer.confidence is not None and answer.text:
        parts.append(f"confidence {answer.confidence:.0%}")
    stop = STOPS.get(answer.stop_reason, answer.stop_reason) if answer.stop_reason != "end" else ""
    said = f'<span class="vt-stop" role="status">{escape(_sentence(stop))}</span>' if stop else ""
    return f'<p class="vt-status">{said}{escape(" · ".join(parts))}</p>'


def live(text: str) -> str:
    """Text while it streams in."""
    return f'<div class="vt-text vt-live" aria-live="polite">{escape(text.strip())}</div>'


def answer(found: Answer) -> str:
    """A finished answer: rendered markdown, a list of boxes, or plain text."""
    if found.boxes:
        return _box_list(found)
    if found.markdown is not None and found.markdown:
        return f'<div class="vt-markdown">{render_markdown(found.markdown)}</div>'
    if not found.text:
        return '<p class="vt-empty">The answer is empty.</p>'
    return f'<div class="vt-text">{escape(found.text)}</div>'


def placeholder() -> str:
    return '<p class="vt-empty">The answer appears here.</p>'


def turns(entries: list[tuple[str, str, str]]) -> str:
    """Earlier turns, newest first; an entry is (task name, what was asked, what was answered)."""
    if not entries:
        return ""
    rows = [
        f"<details><summary><b>{escape(LABELS.get(task, task))}</b> {escape(asked)}</summary>"
        f'<div class="vt-text">{escape(said)}</div></details>'
        for task, asked, said in reversed(entries)
    ]
    return f'<section class="vt-turns"><h2>Earlier on this picture</h2>{"".join(rows)}</section>'


def known_error(name: str) -> str:
    """One line from ``evaluation.json`` (metric -> number) in the model's folder, or "not measured"."""
    try:
        found = json.loads(_evaluation(name).read_text(encoding="utf-8"))
        numbers = {key: value for key, value in found.items() if isinstance(value, (int, float))}
    except (OSError, ValueError, AttributeError):
        numbers = {}
    if not numbers:
        return "known error: not measured"
    return "known error: " + ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())


def _evaluation(name: str) -> Path:
    """``evaluation.json`` of the embedded model, a folder or a hub id. Raises OSError or ValueError without one."""
    folder = Path(str(files("varytoy") / "nano")) if name == "nano" else Path(name)
    if name == "nano" or folder.exists():
        return folder / "evaluation.json"
    return Path(hf_hub_download(name, "evaluation.json"))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _box_list(found: Answer) -> str:
    rows = "".join(
        f"<tr><td>{escape(label or 'object')}</td>{''.join(f'<td>{int(value)}</td>' for value in box)}</tr>"
        for label, box in found.boxes
    )
    note = '<p class="vt-status">in pixels of the picture</p>'
    head = "<tr><th>object</th><th>left</th><th>top</th><th>right</th><th>bottom</th></tr>"
    return f'<div class="vt-markdown"><table><thead>{head}</thead><tbody>{rows}</tbody></table>{note}</div>'
