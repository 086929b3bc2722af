"""``python -m train square``: how good the filters of ``data_tools square`` are, on rendered pages with a known truth
and with a scripted model that makes a known share of mistakes."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.square import measure as filters
from data_tools.square.asking import Asker, Budget
from data_tools.square.backends.scripted import Scripted
from data_tools.square.items import Item, Page
from data_tools.square.pages import take_in
from data_tools.square.pipeline import Pipeline
from data_tools.square.prompts import Prompts
from data_tools.square.stages import Questions
from train.published import ROOT, save
from train.rendering import render
from varytoy.evaluation.provenance import provenance

WHAT = "filters of question data on rendered pages with a scripted model"
RENDERED = {
    "receipts": ("forms", "--kind-of-form", "receipt"),
    "forms": ("forms", "--kind-of-form", "form"),
    "tables": ("tables", "--merged", "0"),
    "charts": ("charts",),
}
"""Pages whose truth is known: name -> words of ``data_tools render``."""
PICTURE = ROOT / "docs" / "square-filters.png"
_QUESTIONS = 6
"""A page."""


def measure(source: Path, out: Path, count: int, mistakes: str = "", seed: int = 21, words: Sequence[str] = ()) -> int:
    """Render, ask, and print what each filter finds; finished parts in ``out`` are kept.

    Args:
        source: folder filled by ``data_tools fetch``.
        count: pages.
        mistakes: of the scripted model, as ``NAME=SHARE,…``.
        words: of the command line, to publish the figures.

    Returns:
        The exit code.
    """
    backend, items = Scripted.parse(mistakes), []
    for number, (name, kind) in enumerate(RENDERED.items()):
        share = count // len(RENDERED) + (number < count % len(RENDERED))
        samples, folder = out / f"{name}-{share}-{seed}", out / f"{name}-{share}-{seed}-asked"
        if code := render(kind, samples, share, seed, "test", source):
            return code
        pages = take_in(samples, folder, 1280, print)
        own = {page.id: page for page in pages}
        for item in asked(backend, folder, pages, Questions(_QUESTIONS, seed), keep_going=True):
            items.append((item, backend.is_right(own[item.page], seed, item.question, item.answer)))
    table = filters.measure(items)
    print(f"{len(items):,} questions about {count:,} pages; {backend.name}\n\n{filters.tables(*table)}")
    picture = PICTURE if words else out / "filters.png"
    filters.draw(*table, picture)
    print(f"\ndrawn in {picture}")
    if words:
        values = filters.to_json(*table) | {"pages": count, "questions": len(items)}
        print(f"written to {save('square', values, WHAT, seed, provenance('python -m train', words))}")
    return 0


def asked(
    backend: Scripted, folder: Path, pages: Sequence[Page], questions: Questions, keep_going: bool = False
) -> list[Item]:
    """What the scripted model asks about the pages of a folder, with the verdicts of the filters; with ``keep_going``
    also those on dropped questions."""
    replies = folder / backend.name.replace(":", "-")
    replies.mkdir(exist_ok=True)
    asker = Asker(backend, Prompts.read(), Budget(), folder, seed=questions.seed)
    return Pipeline(replies, asker, questions, keep_going).run(pages)[0]
