"""What was asked and replied, one JSON line each, kept as it comes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.square.items import Page


@dataclass(frozen=True)
class Ask:
    """A request to a model.

    Attributes:
        item: id of the page or question that it is about.
        name: of the prompt; with ``item`` it is unique in a stage.
        values: what the prompt is filled with.
        see: whether the picture goes with it.
    """

    item: str
    name: str
    page: Page
    values: Mapping[str, str]
    see: bool = True
    max_tokens: int = 256

    @property
    def prompt_name(self) -> str:
        """Its name in the prompts: a number behind ``#`` tells requests with the same prompt apart."""
        return self.name.partition("#")[0]


@dataclass(frozen=True)
class Reply:
    """``tokens``: of the prompt and of the reply, as far as the backend counts them; ``error``: why it is empty."""

    text: str
    tokens: tuple[int, int] = (0, 0)
    error: str = ""


class Replies:
    """The replies of a stage, in a file that is added to.

    Raises:
        ValueError: a line is damaged; the message names it. One that a kill cut short at the end is dropped.
    """

    def __init__(self, file: Path):
        self.file = file
        self.texts: dict[tuple[str, str], str] = {}
        self.requests = self.tokens = 0
        for number, line in enumerate(whole_lines(file), 1):
            self._take(number, line)

    def _take(self, number: int, line: bytes) -> None:
        try:
            row = json.loads(line)
            self._count(row)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.file} line {number} is damaged ({error!r}): delete the line, and it is asked again"
            ) from None

    def _count(self, row: Mapping[str, Any]) -> None:
        self.texts[row["item"], row["ask"]] = row["reply"]
        if "like" not in row:
            self.requests += 1
            self.tokens += sum(row["tokens"])

    def add(self, ask: Ask, reply: Reply, **more: Any) -> None:
        """``more``: for the file: the prompt's version, the backend and its settings, and for a request that was not
        sent, because it is like that of another item, ``like``: that item."""
        row = {"item": ask.item, "ask": ask.name, **more, "reply": reply.text, "tokens": list(reply.tokens)}
        row |= {"error": reply.error} if reply.error else {}
        with self.file.open("a", encoding="utf-8", errors="replace") as lines:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._count(row)

    def __contains__(self, ask: Ask) -> bool:
        return (ask.item, ask.name) in self.texts

    def of(self, item: str, name: str) -> str | None:
        """The reply to a request; None if it is not there."""
        return self.texts.get((item, name))


def whole_lines(file: Path) -> list[bytes]:
    """The lines of a file that is added to, none if it is not there. One that a kill cut short is taken off its end."""
    if not file.is_file():
        return []
    data = file.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with file.open("r+b") as lines:
            lines.truncate(whole)
    return data[:whole].split(b"\n")[:-1]
