"""Tables: ruled, striped or without rules, with merged cells; the answer is an HTML table."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from data_tools.program import share, span
from data_tools.render.document import Table, plain_lines
from data_tools.render.glyphs import MissingLetter
from data_tools.render.kind import register
from data_tools.render.looks import Look, ScannedKind, named, scanned, stacked, text_row, vqa_rows
from data_tools.render.markdown import html_table
from data_tools.render.strips import DoesNotFit
from data_tools.render.table_contents import random_table
from data_tools.render.table_strip import table_strip
from data_tools.render.truth import Grid, Truth
from data_tools.writer import generator
from varytoy.options import positive

_TRIES = 30


class TableRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(
        self, look: Look, seed: int, merged: float, rows: tuple, columns: tuple, degrade: float, questions: int = 0
    ):
        self.look, self.seed, self.merged, self.degrade = look, seed, merged, degrade
        self.rows, self.columns, self.questions = rows, columns, questions

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "tables", self.look.split, index)
        for _ in range(_TRIES):
            width = rng.randint(300, 1000)
            theme = self.look.theme(rng, width, (10, 20))
            words = self.look.composer(rng, theme).words
            table = random_table(rng, words, rng.random() < self.merged, self.columns, self.rows)
            try:
                strip = table_strip(table, theme, width)
                break
            except (DoesNotFit, MissingLetter):
                continue
        else:
            raise ValueError("no table fits into 1000 pixels: ask for fewer columns")
        strip.height -= 0.6 * theme.pitch
        image, annotations = scanned(stacked([strip], theme, round(strip.width), rng), rng, self.degrade)
        annotations["plain_text"] = "\n".join(line for line in plain_lines(table) if line)
        row = text_row(
            "markdown",
            html_table(table),
            rng,
            annotations,
            merged=table.merged,
            rules=theme.table,
            rows=len(table.rows),
        )
        if table.merged:
            return image, named([row], "tables", self.look.split, self.seed, index)
        asking = generator(self.seed, "tables-questions", self.look.split, index)
        other = self.look.composer(asking, theme).words
        truth = truth_of(table, [other(1, 2) for _ in range(3)])
        row["metadata"]["truth"] = truth.to_json()
        return image, named(
            [row, *vqa_rows(truth, asking, self.questions)], "tables", self.look.split, self.seed, index
        )


def truth_of(table: Table, others: Sequence[str] = ()) -> Truth:
    """What a table without merged cells says; ``others``: words, which may be names of absent rows."""
    head, *rows = (tuple(cell.text for cell in row) for row in table.rows)
    there = {row[0].lower() for row in rows}
    absent = tuple(dict.fromkeys(name for name in others if name.lower() not in there))
    return Truth("table", grid=Grid(head, tuple(rows), absent=absent))


@register
class Tables(ScannedKind):
    name = "tables"
    help = "tables, some with merged cells (markdown: an HTML table)"

    def own_options(self, parser):
        parser.add_argument("--merged", type=share, default=0.5, help="share with merged cells (default: 0.5)")
        parser.add_argument("--rows", type=span, default=(2, 16), help="without the head (default: 2-16)")
        parser.add_argument("--columns", type=span, default=(2, 7), help="default: 2-7")
        help = "about each table without merged cells (default: 0)"
        parser.add_argument("--questions", type=positive, default=0, metavar="N", help=help)

    def renderer(self, options):
        look = Look(Path(options.source), options.split, options.language)
        shape = (options.merged, options.rows, options.columns, options.degrade, options.questions)
        return TableRenderer(look, options.seed, *shape)
