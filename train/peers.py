"""``python -m train peers DATA``: nano beside other readers on blocks, pages, scans and receipts.

DATA has a folder for each suite: ``print/blocks``, ``print/pages``, ``scans``, ``receipts``.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from train.published import RESULTS, save
from varytoy.cli import main as varytoy
from varytoy.evaluation.provenance import provenance
from varytoy.evaluation.table import Value

SUITES = {"blocks": "print/blocks", "pages": "print/pages", "scans": "scans", "receipts": "receipts"}
"""Suite -> its folder in DATA."""
ENGINES = ("varytoy", "tesseract", "rapidocr", "rapidocr-v4")
WHAT = "normalised edit distance of nano and other readers, with 95 % intervals and seconds a page"


def measure(
    data: Path,
    out: Path,
    model: str = "nano",
    engines: Sequence[str] = ENGINES,
    limit: int | None = None,
    words: Sequence[str] = (),
) -> int:
    """Run each suite with each engine, one page at a time; finished ones are kept in ``out``. ``limit``: cases of a
    suite. ``words``: of the command line, to publish the figures beside those of other engines. Returns the exit
    code."""
    values: dict[str, dict[str, dict]] = {}
    for suite, folder in SUITES.items():
        for engine in engines:
            run = out / f"{suite}-{engine}"
            more = ["--together", "1", *(["--limit", str(limit)] if limit else [])]
            code = evaluate(suite, data / folder, engine, model, run, more)
            if code:
                return code
            values.setdefault(suite, {})[engine] = figures(run)
    print(table(values, engines))
    if words:
        there = RESULTS / "peers.json"
        known = json.loads(there.read_text(encoding="utf-8"))["values"] if there.is_file() else {}
        values = {suite: {**known.get(suite, {}), **row} for suite, row in values.items()}
        print(f"written to {save('peers', values, WHAT, 0, provenance('python -m train', words))}")
    return 0


def evaluate(suite: str, folder: Path, engine: str, model: str, run: Path, more: Sequence[str] = ()) -> int:
    """Run a suite with an engine. Returns the exit code."""
    of_model = ["--model", model] if engine == "varytoy" else []
    return varytoy(["evaluate", suite, str(folder), "--engine", engine, "--out", str(run), *of_model, *more])


def figures(run: Path, metric: str = "") -> dict:
    """Value, interval, cases, failures and seconds of a finished run; by default of the suite's first metric."""
    whole = json.loads((run / "table.json").read_text(encoding="utf-8"))["rows"][0]
    value = whole["values"][metric] if metric else next(iter(whole["values"].values()))
    said = {key: value[key] for key in ("value", "low", "high")}
    return said | {key: whole[key] for key in ("cases", "failures", "seconds")}


def interval(row: dict) -> str:
    """The value of ``figures`` with its interval."""
    return str(Value(*(row[key] for key in ("value", "low", "high"))))


def table(values: dict[str, dict[str, dict]], engines: Sequence[str]) -> str:
    lines = [["", "cases", *engines], ["---"] * (2 + len(engines))]
    for suite, row in values.items():
        cells = [interval(row[name]) for name in engines]
        lines.append([suite, str(row[engines[0]]["cases"]), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
