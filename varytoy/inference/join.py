"""Join the answers to blocks and pages."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from varytoy.data.answer import Answer


def join_pages(answers: Sequence[Answer], between: str = "\n\n") -> Answer:
    """Join the answers to the pages of a document into one."""
    texts = [answer.text for answer in answers]
    scored = [(each.confidence, max(len(each.text), 1)) for each in answers if each.confidence is not None]
    total = sum(confidence * length for confidence, length in scored)
    return Answer(
        between.join(texts),
        markup=between.join(texts) if any(answer.markup is not None for answer in answers) else None,
        confidence=total / sum(length for _, length in scored) if scored else None,
        **totals(answers),
        error=next((answer.error for answer in answers if answer.error), ""),
        skipped=sum(answer.skipped for answer in answers),
        number_gap=max((answer.number_gap for answer in answers if answer.number_gap is not None), default=None),
        context=between.join(answer.context for answer in answers if answer.context),
        dropped=dict(sum((Counter(answer.dropped) for answer in answers), Counter())),
        pages=list(answers),
    )


def totals(answers: Sequence[Answer]) -> dict[str, Any]:
    """Fields of an answer that is made of several: their sums, and the stop reason of the first that did not end by
    itself; else ``end``."""
    names = ("tokens", "prompt_tokens", "loops")
    sums: dict[str, Any] = {name: sum(getattr(answer, name) for answer in answers) for name in names}
    reason = next((answer.stop_reason for answer in answers if answer.stop_reason != "end"), "end")
    return sums | {"stop_reason": reason}


def mean_confidence(rows: Sequence[Answer]) -> float | None:
    """Mean of several answers' confidences, weighted by their tokens; None if none has one."""
    scored = [(row.confidence, row.tokens) for row in rows if row.confidence is not None]
    if not scored:
        return None
    return sum(confidence * tokens for confidence, tokens in scored) / max(sum(tokens for _, tokens in scored), 1)
