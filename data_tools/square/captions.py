"""Detailed text captions (as TextHarmony has them): a model describes a picture and transcribes its text; what it
quotes must agree with what a reader finds."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_tools.square.agree import SIMILARITY, similarity, stands_in, words_of
from data_tools.square.export import clean, sample_row
from data_tools.square.items import Page
from data_tools.square.replies import Ask, Replies
from data_tools.writer import generator

STAGE = "7-captions"
PRECISION, RECALL = 0.8, 0.5
"""Share of the quoted pieces that a reader finds too, and of the reader's words that are quoted, at least."""
PROMPTS = (
    "Describe the image and copy its text, with where each text stands and how it looks.",
    "Describe this picture in detail. Quote every text in it, and say where it is and what it looks like.",
    "What does the image show? Write down all of its text, and the place and the look of each piece.",
    "Give a full description of the image, with its text in quotes.",
    "Write a caption that says what is in the image and what each text in it reads.",
)
_QUOTED = re.compile(r"\"([^\"\n]+)\"|\u201c([^\u201d\n]+)\u201d")


@dataclass(frozen=True)
class Caption:
    """``precision``: share of the quoted pieces that stand in the page's text, or nearly; ``recall``: share of the
    text's words that are quoted; ``dropped``: why it is not kept."""

    page: str
    text: str
    precision: float
    recall: float
    dropped: str = ""


def ask(page: Page) -> Ask:
    """The request for a page. The reader's text does not go with it: it is the judge."""
    return Ask(page.id, "caption", page, {}, max_tokens=1024)


def judge(page: Page, reply: str) -> Caption:
    """Compare what a caption quotes with the page's text."""
    caption = " ".join(reply.split())
    quoted = [first or second for first, second in _QUOTED.findall(caption)]
    lines = page.text.splitlines()
    found = [stands_in(piece, page.text) or _nearly(piece, lines) for piece in quoted]
    wanted, there = Counter(words_of(page.text)), Counter(words_of(" ".join(quoted)))
    precision = sum(found) / len(found) if found else 0.0
    recall = (wanted & there).total() / wanted.total() if wanted else 0.0
    fault = ""
    if not caption:
        fault = "no caption"
    elif not quoted:
        fault = "quotes nothing"
    elif precision < PRECISION:
        fault = "quotes what the reader does not find"
    elif recall < RECALL:
        fault = "leaves out much of the text"
    return Caption(page.id, caption, round(precision, 3), round(recall, 3), fault)


def judged(pages: Sequence[Page], replies: Replies) -> list[Caption]:
    return [judge(page, replies.of(page.id, "caption") or "") for page in pages]


def row(page: Page, caption: Caption, seed: int) -> dict:
    """The sample of a caption that is kept."""
    prompt = generator(seed, "caption", page.id).choice(PROMPTS)
    return sample_row(f"{page.id}-caption", "chat", [(prompt, clean(caption.text))], page.image)


def _nearly(piece: str, lines: Sequence[str]) -> bool:
    return any(similarity(piece, line) >= SIMILARITY for line in lines)
