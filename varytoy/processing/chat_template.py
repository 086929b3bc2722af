"""Jinja chat templates as in transformers, with one difference: a template never sees the contents of messages.

It is rendered with a marker in place of each content. The contents are inserted after the text has been split into
special tokens and plain text, so a special token within a content remains plain characters.
"""

import functools
import re
import threading
import weakref
from collections.abc import Iterator, Sequence
from importlib.resources import files

from transformers.utils.chat_template_utils import render_jinja_template

from varytoy.errors import first_line
from varytoy.processing.messages import Message

TEMPLATES = ("chatml", "compact", "vicuna")
"""Names of ours: Qwen's (without a newline after ``<|im_end|>``), the same without the names of roles, for small
vocabularies, and that of the OPT vocabulary stage."""
_MARK = "\ue000{}\ue001"
_MARKED = re.compile("\ue000(\\d+)\ue001")


_LOCK = threading.Lock()
"""Older transformers keep the state of a rendering in the compiled template."""
_KNOWN: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
"""Tokenizer -> its length and its special tokens."""


class Special(str):
    """A special token among pieces of text."""


@functools.cache
def read_template(name: str) -> str:
    """One of ``TEMPLATES``."""
    return (files("varytoy") / "processing" / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def special_tokens(tokenizer) -> tuple[str, ...]:
    """Those of a tokenizer, ChatML's included, the longest first."""
    size = len(tokenizer)  # tokens may be added later
    if _KNOWN.get(tokenizer, (0,))[0] != size:
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        tokens = {*added, *tokenizer.all_special_tokens, "<|im_start|>", "<|im_end|>"}
        _KNOWN[tokenizer] = (size, tuple(sorted(tokens, key=lambda token: (-len(token), token))))
    return _KNOWN[tokenizer][1]


@functools.lru_cache(8)
def _cut(special_tokens: tuple[str, ...]) -> re.Pattern:
    """Finds marks (number in the second group) and special tokens."""
    return re.compile("|".join([f"({_MARKED.pattern})", *map(re.escape, special_tokens)]))


def render(
    template: str,
    messages: Sequence[Message],
    special_tokens: tuple[str, ...],
    opened: bool = False,
    continued: bool = False,
    **variables: str,
) -> list[tuple[str, bool]]:
    """A conversation as pieces (text, whether it is a target) in order; a special token is a ``Special``.

    Args:
        template: Jinja. The training targets are in ``{% generation %}`` blocks.
        messages: an assistant's content may be a list of texts and ``Special`` tokens.
        special_tokens: those of the tokenizer, the longest first.
        opened: open a turn of the assistant at the end (``add_generation_prompt``).
        continued: stop after the last content (``continue_final_message``).
        variables: others of the template, e.g. ``eos_token``.

    Raises:
        ValueError: the template cannot be rendered, or leaves out or repeats a message.
    """
    marked = [{**message, "content": _MARK.format(number)} for number, message in enumerate(messages)]
    try:
        with _LOCK:
            rendered = render_jinja_template(
                [marked],
                chat_template=template,
                return_assistant_tokens_mask=True,
                add_generation_prompt=opened,
                **variables,
            )
    except Exception as error:  # a template may do anything that Jinja's sandbox allows
        raise ValueError(f"the chat template cannot be rendered: {first_line(error)}") from error
    text, spans = rendered[0][0], rendered[1][0]
    numbers = [int(number) for number in _MARKED.findall(text)]
    if numbers != list(range(len(messages))):
        raise ValueError("the chat template must write the content of each message once and in order")
    if continued:
        text = text[: text.rindex(_MARK[-1]) + 1]
    return [pair for pair in _pieces(text, spans, messages, special_tokens) if pair[0]]


def _pieces(
    text: str, spans: Sequence[tuple[int, int]], messages: Sequence[Message], special_tokens: tuple[str, ...]
) -> Iterator[tuple[str, bool]]:
    """Text of the template that stands right before a content, without a line break between, is tokenized with it."""
    edges = sorted({0, len(text), *(min(edge, len(text)) for span in spans for edge in span)})
    for start, end in zip(edges, edges[1:], strict=False):
        target = any(first <= start < last for first, last in spans)
        for match in _cut(special_tokens).finditer(text, start, end):
            before = text[start : match.start()]
            start = match.end()
            if not match[1]:
                yield before, target
                yield Special(match[0]), target
                continue
            first, *rest = content_pieces(messages[int(match[2])]["content"]) or [""]
            if before.endswith("\n") or isinstance(first, Special):
                yield before, target
                yield first, target
            else:
                yield before + first, target
            yield from ((piece, target) for piece in rest)
        yield text[start:end], target


def content_pieces(content: str | Sequence[str]) -> Sequence[str]:
    """The texts and special tokens of a message's content."""
    return [content] if isinstance(content, str) else content
