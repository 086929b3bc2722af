"""Read a page cell by cell: lines of text, and parts of lines between wide gaps, in batches."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from varytoy import layout
from varytoy.data.answer import Answer, Region, Word
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.inference.asking import Options
from varytoy.inference.engine import Engine, Request
from varytoy.inference.formula_reading import with_formulas
from varytoy.inference.join import mean_confidence, totals
from varytoy.inference.known_words import lines_in
from varytoy.inference.parts import Parts
from varytoy.layout.blocks import around, by_block, join_rows, lines_of
from varytoy.layout.headings import heading_levels
from varytoy.layout.orientation import Rotation
from varytoy.layout.page import PageLayout
from varytoy.layout.tables import Grid, find_tables
from varytoy.layout.words import word_boxes
from varytoy.processing.messages import Message

_CONFIDENT = 0.85
_BEGINNING = 64
"""Tokens."""
_LETTER, _LEAST_LETTERS = re.compile(r"[^\W\d_]"), 3
"""Of a heading: page numbers may be large."""
_HEADING = re.compile(r"^#{1,6}(?: +|$)", re.MULTILINE)
_MARKS = re.compile(r"^#{2,6}(?: +|$)", re.MULTILINE)
"""Of a line that the model takes for a heading, for its size; whether it is one is seen by the page. One alone may be a
comment of a listing."""
_REPEATED, _LEAST_REPEATED = re.compile(r"(.{1,40}?)\1{4,}"), 10
"""A unit five times or more, and the least characters of them together."""
_FORMULA = re.compile(r"(\$\$\n.+?\n\$\$)", re.DOTALL)
_MANY = 20
"""Times that figures must repeat: zeros and columns of equal numbers do."""


@dataclass(frozen=True)
class _Form:
    """How the texts of a page's cells become its text.

    Attributes:
        levels: in markdown, of the headings, 0 for other blocks.
        tables: in markdown.
    """

    blocks: Sequence[layout.Block]
    levels: Sequence[int] = ()
    tables: Sequence[Grid] = ()

    def cells_of(self, table: Grid) -> range:
        """Numbers of the cells of a table."""
        first = sum(len(block.cells) for block in self.blocks[: table.start])
        return range(first, first + sum(len(block.cells) for block in self.blocks[table.start : table.stop]))

    def join(self, texts: Sequence[str]) -> str:
        """The text of the page, from those of the cells so far."""
        parted = by_block([_MARKS.sub("", text) for text in texts] if self.levels else texts, self.blocks)
        written = [_apart(join_rows(part, block)) for part, block in parted]
        if self.levels:
            written = [
                text if _FORMULA.search(text) else _as_heading(text, level)
                for text, level in zip(written, self.levels, strict=False)
            ]
        for table in self.tables:
            cells = [text for part, _ in parted[table.start : table.stop] for text in part]
            written[table.start : table.stop] = [""] * len(written[table.start : table.stop])
            if cells:
                written[table.start] = table.markdown(cells)
        return "\n\n".join(filter(None, written))


def read_page(engine: Engine, page: PageLayout, options: Options, parts: Parts | None = None) -> Answer:
    """The answer about a page, with a region for each block. An empty page gives an empty text. ``parts``: of the
    checkpoint; that for formulas reads those of a page in markdown."""
    found = [block for block in page.blocks if block.kind == "text"]
    blocks = [block for block in found if block.text_size >= layout.SMALLEST]
    skipped = len(found) - len(blocks)
    if not blocks:
        empty = "" if options.task.name == "markdown" else None
        confidence = None if skipped else 1.0
        return Answer("", markup=empty, confidence=confidence, size=page.image.size, skipped=skipped)
    form = _Form(blocks)
    if options.task.name == "markdown" and page.analysis is not None:
        blocks, tables = find_tables(blocks, page.analysis)
        form = _Form(blocks, heading_levels(blocks, page.text_size or 1.0), tables)
    cells = [cell for block in blocks for cell in block.cells]
    settings = engine.processor.image_processor
    views = [layout.CellView.of(cell, settings.line_size) for cell in cells]
    answers = engine.generate(_requests(views, page, options), _live(options, form), options.cancel)
    read = [_credible(answer, settings.least_confidence) for answer in answers]
    skipped += sum(bool(answer.text.strip()) and not kept.text for answer, kept in zip(answers, read, strict=True))
    asks = parts is not None and options.task.name == "markdown" and len(read) == len(cells)
    formulas = parts.engine("formula") if asks else None
    if formulas is not None:
        numbers = [form.cells_of(table) for table in form.tables]
        written = with_formulas(formulas, page, blocks, numbers, read, options)
        answers += [new for new, old in zip(written, read, strict=True) if new is not old and new.text]
        kept = [all(written[number] is read[number] for number in cells) for cells in numbers]
        form = replace(form, tables=list(itertools.compress(form.tables, kept)))
        read = written
    answer = options.task.parse(form.join([each.text for each in read]), page.image.size)
    step = engine.processor.place_size[1]
    pairs = list(zip(views, read, strict=False))
    regions = [_region(part, block, page, options, step) for part, block in by_block(pairs, blocks)]
    answer.regions = [*(region for region in regions if region.text), *answer.objects]
    said = {"confidence": mean_confidence(read), "size": page.image.size, "skipped": skipped}
    stopped = {"stop_reason": "cancelled"} if len(read) < len(cells) else {}
    return replace(answer, **totals(answers) | stopped, **said)


def surer(
    engine: Engine, page: PageLayout, upright: PageLayout, rotation: Rotation, options: Options
) -> tuple[PageLayout, Rotation]:
    """The ``upright`` page, or that turned upside down: the way up in which the model reads some lines with more
    confidence, or the beginning of a page that it reads whole."""
    asked = replace(options, words=())
    sure = _confidence_in(engine, upright, asked)
    if sure is None or sure > _CONFIDENT or options.cancelled:
        return upright, rotation
    turned = replace(rotation, turn=(rotation.turn + 180) % 360)
    other = page.rotated(turned)
    otherwise = _confidence_in(engine, other, asked)
    return (other, turned) if otherwise is not None and otherwise > sure + 0.1 else (upright, rotation)


def _confidence_in(engine: Engine, page: PageLayout, options: Options, most: int = 6) -> float | None:
    """The mean confidence of the model in some of the page's longest lines; None where there are none, or it gives
    none. Of a model that reads pages whole, in the page's beginning."""
    settings = engine.processor.image_processor
    cells = [cell for block in page.blocks for cell in block.cells if cell.text_size >= layout.SMALLEST]
    cells = sorted(cells, key=lambda cell: (cell.box[0] - cell.box[2]) / cell.text_size)[:most]
    if not cells:
        return None
    if settings.mode == "fit":
        requests = _requests([layout.CellView.of(cell, settings.line_size) for cell in cells], page, options)
    else:
        most_tokens = min(options.max_new_tokens, _BEGINNING)
        requests = iter([Request.of(options.task, _messages(options), [page.image], most_tokens)])
    return mean_confidence(engine.generate(requests, None, options.cancel))


def _requests(views: Sequence[layout.CellView], page: PageLayout, options: Options) -> Iterator[Request]:
    for view in views:
        known = lines_in(options.words, view.cell.box, view.point, view.cell.text_size, [view.cell.box])
        image = view.image(page.image, page.analysis)
        yield Request.of(options.task, _messages(options), [image], options.max_new_tokens, known)


def _messages(options: Options) -> list[Message]:
    return [{"role": "user", "content": f"{IMAGE_PLACEHOLDER}\n{options.prompt}"}]


def _apart(text: str) -> str:
    """The text of a block, with each formula as a paragraph of its own."""
    return "\n\n".join(filter(None, map(str.strip, _FORMULA.split(text)))) if _FORMULA.search(text) else text


def _as_heading(text: str, level: int) -> str:
    """Markdown as a heading of that level if it has words. With 0 as none: the model takes lone lines for headings, so
    a single mark is taken out; several are comments of a listing."""
    words = " ".join(text.split()).strip("#* ")
    if level and len(_LETTER.findall(words)) >= _LEAST_LETTERS:
        return f"{'#' * level} {words}"
    return _HEADING.sub("", text) if len(_HEADING.findall(text)) == 1 else text


def _live(options: Options, form: _Form) -> Callable[[list[str]], None] | None:
    """What is called with the texts of the cells so far."""
    if not options.show and not options.progress:
        return None

    def live(texts: list[str]) -> None:
        if options.progress:
            options.progress(max(len(by_block(texts, form.blocks)), 1), len(form.blocks))
        if options.show:
            options.show(form.join([without_repeats(text) for text in texts]))

    return live


def without_repeats(text: str) -> str:
    """The text with one of each unit that comes five times or more in a row."""
    return _REPEATED.sub(lambda match: match[1] if _is_repeat(match) else match[0], text)


def _is_repeat(match: re.Match[str]) -> bool:
    """Whether it is no number or row of numbers, leader of a table of contents, rule of hyphens or the like."""
    if not any(map(str.isalpha, match[1])):
        return any(map(str.isdigit, match[1])) and len(match[0]) >= _MANY * len(match[1])
    return len(match[0]) >= _LEAST_REPEATED


def _credible(answer: Answer, least: float) -> Answer:
    """The answer to a cell without repetitions; without text where its confidence is less than ``least``: what is read
    with little are mostly rules, stamps, barcodes and other things."""
    if answer.confidence is not None and answer.confidence < least:
        return replace(answer, text="", words=[], tokens=0)
    text = without_repeats(answer.text)
    return answer if text == answer.text else replace(answer, text=text, words=_kept(answer.words))


def _kept(words: Sequence[Word]) -> list[Word]:
    """The words without repetitions."""
    text, starts = "", []
    for word in words:
        starts.append(len(text))
        text += f"{word.text} "
    gone = [(match.end(1), match.end()) for match in _REPEATED.finditer(text) if _is_repeat(match)]
    kept = []
    for word, start in zip(words, starts, strict=True):
        places = range(start, start + len(word.text))
        left = "".join(text[at] for at in places if not any(first <= at < last for first, last in gone))
        if left:
            kept.append(replace(word, text=left))
    return kept


def _region(
    part: Sequence[tuple[layout.CellView, Answer]], block: layout.Block, page: PageLayout, options: Options, step: int
) -> Region:
    """A block that was read, with its lines and their words. For a task that gives lines a place, cells of a row that
    stand apart are lines of their own."""
    score = mean_confidence([answer for _, answer in part])
    region = Region(block.box, text=join_rows([answer.text for _, answer in part], block), score=score)
    if not options.task.literal:
        return region
    lines, start = [], 0
    rows = [line for each in block.rows for line in lines_of(each)] if options.task.reads else block.rows
    for row in rows:
        cells = [(view, answer) for view, answer in part[start : start + len(row)] if answer.text.strip()]
        start += len(row)
        if cells:
            words = tuple(word for view, answer in cells for word in _words(view, answer, page, step))
            text = " ".join(answer.text.strip() for _, answer in cells)
            score = mean_confidence([answer for _, answer in cells])
            lines.append(Region(around([cell.box for cell in row]), text=text, score=score, parts=words))
    return replace(region, parts=tuple(lines))


def _words(view: layout.CellView, answer: Answer, page: PageLayout, step: int) -> list[Region]:
    """The words of a cell. ``step``: pixels of the view between two places that the model can tell."""
    words = answer.words
    if not words:  # of an engine that gives none
        return [Region(view.cell.box, text=answer.text.strip(), score=answer.confidence)]
    starts = [None if word.x is None else view.page_x(word.x) for word in words]
    boxes = word_boxes(page.ink, view.cell.box, [word.text for word in words], starts, step / view.scale / 2)
    return [Region(box, text=word.text, score=word.score) for word, box in zip(words, boxes, strict=True)]
