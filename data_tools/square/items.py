"""Pages, and the questions about them."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Page:
    """A picture that questions are asked about.

    Attributes:
        image: its name in the output folder.
        source: where it comes from: a file, a page of a PDF, a sample.
        text: as a reader read it; empty for none.
        truth: of a rendered page, as ``data_tools.render.truth.Truth.to_json`` gives it.
    """

    id: str
    image: str
    sha256: str
    source: str
    text: str = ""
    truth: dict[str, Any] | None = None


@dataclass
class Item:
    """A question about a page, and what became of it.

    Attributes:
        answers: right ones, known from the page itself; empty where a model answers.
        kind: of the template that asked; empty for a model's question.
        reason: for the answer.
        verdicts: filter -> whether the item passed it; without an entry for filters it did not come to.
        compared: consistency check -> the other answers, each with the verdict and what it rests on.
        in_text: whether the answer stands in the page's text; None where there is no text. It decides nothing.
        dropped: why it is not kept; empty if it is.
    """

    id: str
    page: str
    question: str
    answer: str = ""
    answers: list[str] = field(default_factory=list)
    kind: str = ""
    reason: str = ""
    verdicts: dict[str, bool] = field(default_factory=dict)
    compared: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    in_text: bool | None = None
    dropped: str = ""

    def fail(self, reason: str) -> None:
        """Drop it; the first reason stays."""
        self.dropped = self.dropped or reason

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value not in ("", [], {}, None)}
