"""Read the displayed formulas of a page in LaTeX, with the checkpoint's part for them."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from varytoy.data.answer import Answer
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.inference.asking import Options
from varytoy.inference.engine import Engine, Request
from varytoy.inference.join import mean_confidence
from varytoy.layout.blocks import Block
from varytoy.layout.formulas import Place, find_formulas, view_of
from varytoy.layout.page import PageLayout
from varytoy.tasks import get_task

_SIGNS = re.compile(r"[=<>≤≥≈≠±×÷∑∫√∞∂^_\\|{}]")
_SURE = 0.95
"""Confidence in a text from which it is none that could be a formula, if it has no signs of one."""
_LEAST = 0.75
"""Confidence in a formula."""
_UNSURE, _LESS = 0.8, 0.6
"""Confidence in the text of lines that reach into each other below which this confidence in a formula is enough."""
_MOST_ROWS = 4
"""Of formulas below each other that look like a table."""


def with_formulas(
    engine: Engine,
    page: PageLayout,
    blocks: Sequence[Block],
    tables: Sequence[Collection[int]],
    read: Sequence[Answer],
    options: Options,
) -> list[Answer]:
    """The answers to a page's cells, with formulas as ``$$`` LaTeX ``$$`` in the place of their first cell's text, and
    none in their other cells'.

    Args:
        engine: reads formulas, and answers nothing about other text.
        blocks: of the page.
        tables: numbers of the cells of each table. What was taken for a table may be formulas alone.
        read: the texts of the blocks' cells.
    """
    found = find_formulas(page, blocks)
    tabular = set().union(*tables)
    places = [place for place in found if tabular.isdisjoint(place.cells) and _may_be_one(place, read)]
    for table in tables:
        inside = [place for place in found if place.stacked and set(table).issuperset(place.cells)]
        if len(inside) <= _MOST_ROWS and {number for place in inside for number in place.cells} == set(table):
            places += inside
    task = get_task("formula")
    messages = [{"role": "user", "content": f"{IMAGE_PLACEHOLDER}\n{task.prompt()}"}]
    requests = (Request.of(task, messages, [view_of(place.cell, page)], options.max_new_tokens) for place in places)
    answers = engine.generate(requests, None, options.cancel) if places else []
    written = list(read)
    for place, answer in zip(places, answers, strict=False):  # fewer if cancelled
        if not _is_one(place, answer, read):
            continue
        first, *others = place.cells
        written[first] = replace(answer, text=f"$$\n{answer.text.strip()}\n$$", words=[])
        for number in others:
            written[number] = replace(read[number], text="", words=[])
    return written


def _may_be_one(place: Place, read: Sequence[Answer]) -> bool:
    """Whether to ask: its lines reach into each other, or their text has signs of a formula or is unsure."""
    answers = [read[number] for number in place.cells]
    confidence = mean_confidence(answers)
    signs = any(_SIGNS.search(answer.text) for answer in answers)
    return place.stacked or signs or confidence is None or confidence < _SURE


def _is_one(place: Place, answer: Answer, read: Sequence[Answer]) -> bool:
    answers = [read[number] for number in place.cells]
    confidence = mean_confidence(answers) if any(each.text for each in answers) else 0.0
    doubtful = place.stacked and confidence is not None and confidence < _UNSURE
    sure = answer.confidence is None or answer.confidence >= (_LESS if doubtful else _LEAST)
    return bool(answer.text.strip()) and answer.stop_reason == "end" and sure
