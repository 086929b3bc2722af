"""``python -m train structured``: reading with places and structure, on freshly rendered pages with fonts and texts
that training never showed: lines with boxes, parts of pages, markdown, tables, formulas; with Tesseract beside it where
it can compete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from train.peers import evaluate, figures, interval
from train.published import save
from train.rendering import render
from varytoy.evaluation.provenance import provenance

WHAT = "reading with places and structure on rendered pages: nano and Tesseract, with 95 % intervals"
_PAGES = ("--degrade", "0.3", "--no-formulas")


@dataclass(frozen=True)
class Ability:
    """What is rendered, and the metric of ``varytoy evaluate samples`` that counts.

    Attributes:
        render: kind and options of ``data_tools render``.
        count: pages by default.
        engines: readers that can do it.
    """

    render: Sequence[str]
    count: int
    metric: str
    engines: Sequence[str] = ("varytoy",)


BOTH = ("varytoy", "tesseract")
ABILITIES = {
    "lines with boxes": Ability(("pages", "--task", "spot", *_PAGES), 12, "spot: spotting F1 at IoU 0.5", BOTH),
    "parts of pages": Ability(("pages", "--task", "region", *_PAGES), 60, "ocr: character error rate", BOTH),
    "markdown": Ability(("pages", "--task", "markdown", *_PAGES), 10, "markdown: markdown tree similarity"),
    "tables": Ability(("tables",), 40, "markdown: TEDS"),
    "formulas": Ability(("formulas",), 40, "markdown: normalised edit distance"),
}


def measure(
    source: Path,
    out: Path,
    model: str = "nano",
    seed: int = 20,
    limit: int | None = None,
    words: Sequence[str] = (),
    abilities: Mapping[str, Ability] = ABILITIES,
    name: str = "structured",
    what: str = WHAT,
    program: str = "python -m train",
) -> int:
    """Render and evaluate; what is finished in ``out`` is kept.

    Args:
        source: folder filled by ``data_tools fetch``.
        limit: pages of each ability.
        words: of the command line, to publish the figures.
        name, what, program: of the published file, its description and what made it.

    Returns:
        The exit code.
    """
    values: dict[str, dict[str, dict]] = {}
    for title, ability in abilities.items():
        folder = out / title.replace(" ", "-")
        samples = folder / "samples"
        count = min(ability.count, limit or ability.count)
        if code := render(ability.render, samples, count, seed, "test", source):
            return code
        for engine in ability.engines:
            run = folder / engine
            code = evaluate("samples", samples, engine, model, run)
            if code:
                return code
            values.setdefault(title, {})[engine] = figures(run, ability.metric)
    print(table(values, abilities))
    if words:
        print(f"written to {save(name, values, what, seed, provenance(program, words))}")
    return 0


def table(values: dict[str, dict[str, dict]], abilities: Mapping[str, Ability] = ABILITIES) -> str:
    """In markdown."""
    lines = [["", "metric", "pages", *BOTH], ["---"] * (3 + len(BOTH))]
    for name, row in values.items():
        cells = [interval(row[key]) if key in row else "" for key in BOTH]
        lines.append([name, abilities[name].metric.split(": ")[1], str(row["varytoy"]["cases"]), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
