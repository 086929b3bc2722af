"""Answer questions about an image of text from the text: the page is read, and the checkpoint's part for questions gets
what was read in place of the image."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from varytoy.data.answer import Answer, Region
from varytoy.data.documents import Page
from varytoy.data.spots import UNANSWERABLE, parse_spots, pieces_of, stands_in, text_in_rows
from varytoy.inference.asking import Options
from varytoy.inference.engine import Engine, Request
from varytoy.tasks import get_task

LONGEST, _SHARED = 600, 3
"""Characters of the text that the model gets at once, as in its training, and rows of it that follow each other in two
pieces of a longer one."""
_KEPT = 4


class Readings:
    """The last pages that were read for a question, for more questions about them; for several threads."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[str, Answer], ...] = ()

    def of(self, read: Callable[[Page, Options], Answer], page: Page, options: Options, prompt: str) -> Answer:
        """The lines of a page with their places. ``prompt``: that asks the model for them."""
        image = page.image
        about = f"{image.size} {image.mode} {options.place} {options.drafts}".encode()
        key = hashlib.sha256(about + image.tobytes()).hexdigest()
        found = next((answer for known, answer in self._kept if known == key), None)
        if found is None:
            task = get_task("spot")
            found = read(page, replace(options, task=task, argument="", prompt=prompt, history=(), show=None))
            if not options.cancelled:
                self._kept = (*self._kept[1 - _KEPT :], (key, found))
        return found


def answer_from_text(engine: Engine, reading: Answer, options: Options) -> Answer | None:
    """The answer to the question of ``options``, with the line in which it stands, if it does, as its region; None for
    a page without text. Earlier turns are not looked at. Of a text longer than the model takes, each piece is asked:
    an answer that stands in its piece goes before others, one that there is none goes last, and then the one with the
    highest confidence goes first.

    Args:
        engine: of the part for questions.
        reading: the lines of the page with their places.
    """
    pieces = pieces_of(text_in_rows(parse_spots(reading.text).lines), LONGEST, _SHARED)
    if not pieces and not options.cancelled:
        return None
    question = get_task("vqa").prompt(options.argument)
    messages = [[{"role": "user", "content": f"{piece}\n\n{question}"}] for piece in pieces]
    task = options.task
    requests = [Request.of(task, message, (), options.max_new_tokens) for message in messages]
    live = (lambda texts: options.show(texts[0])) if options.show and len(pieces) == 1 else None
    found = engine.generate(requests, live, options.cancel) if requests and not options.cancelled else []
    if not found:
        return Answer("", stop_reason="cancelled", size=reading.size)
    stands = [stands_in(answer.text, piece) for answer, piece in zip(found, pieces, strict=False)]
    none = [answer.text.strip().casefold() == UNANSWERABLE.casefold() for answer in found]
    best = max(range(len(found)), key=lambda at: (not none[at], stands[at], found[at].confidence or 0))
    answer = replace(found[best], text=found[best].text.strip(), size=reading.size, turned=reading.turned, words=[])
    answer.tokens += reading.tokens
    answer.prompt_tokens += reading.prompt_tokens
    line = next((line for line in reading.lines if stands_in(answer.text, line.text)), None) if stands[best] else None
    answer.context = pieces[best]
    answer.regions = [] if line is None else [Region(line.box, answer.text, "", line.polygon, answer.confidence)]
    if options.show:
        options.show(answer.text)
    return answer
