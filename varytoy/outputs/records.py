"""The record of a page that was read: a dictionary that JSON can hold."""

from collections.abc import Iterator
from typing import Any

from varytoy.data.answer import Answer, Region
from varytoy.data.boxes import even_rows
from varytoy.data.documents import Page

Record = dict[str, Any]


def record_of(model: str, name: str, page: Page, task: str, answer: Answer) -> Record:
    """The record of a page. Boxes are xyxy in pixels of an image of ``width`` x ``height``."""
    (width, height), gap = answer.size or page.image.size, answer.number_gap
    return {
        "file": name,
        "page": page.number,
        "pages": page.page_count,
        "width": width,
        "height": height,
        "task": task,
        "text": answer.text,
        **({} if answer.markdown is None else {"markdown": answer.markdown}),
        "boxes": [{"label": label, "box": list(xyxy)} for label, xyxy in answer.boxes],
        "blocks": [_block(block) for block in answer.blocks],
        **({"skipped": answer.skipped} if answer.skipped else {}),
        **({"dropped": answer.dropped} if answer.dropped else {}),
        **({} if gap is None else {"number_gap": _rounded(gap), "reliable": answer.reliable}),
        **({"turned": answer.turned} if answer.turned else {}),
        **({"loops": answer.loops} if answer.loops else {}),
        "stop_reason": answer.stop_reason,
        "confidence": _rounded(answer.confidence),
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "seconds": round(answer.seconds, 3),
        "model": model,
    }


def error_record(name: str, sentence: str, page: int | None = None) -> Record:
    """The record of a file or page that could not be read."""
    return {"file": name, **({} if page is None else {"page": page}), "error": sentence}


def lines_of(block: Record) -> Iterator[Record]:
    """The lines of a block, each with its ``words``. A block without lines, of a model or task that has none, is
    divided evenly, and each of its lines is one word."""
    if block.get("lines"):
        yield from block["lines"]
        return
    texts = [text for text in block["text"].splitlines() if text.strip()]
    for text, row in zip(texts, even_rows(block["box"], len(texts)) if texts else [], strict=True):
        word = {"text": text.strip(), "box": list(row), "confidence": block["confidence"]}
        yield {**word, "words": [word]}


def _block(block: Region) -> Record:
    return {**_part(block), **({"lines": [_line(line) for line in block.parts]} if block.parts else {})}


def _line(line: Region) -> Record:
    return {**_part(line), "words": [_part(word) for word in line.parts]}


def _part(region: Region) -> Record:
    return {"text": region.text, "box": list(region.box), "confidence": _rounded(region.score)}


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
