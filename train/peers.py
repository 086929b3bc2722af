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
            asked = ["evaluate", suite, str(data / folder), "--engine", engine, "--together", "1", "--out", str(run)]
            of_model = ["--model", model] if engine == "varytoy" else []
            code = varytoy([*asked, *of_model, *(["--limit", str(limit)] if limit else [])])
            if code:
                return code
            whole = json.loads((run / "table.json").read_text(encoding="utf-8"))["rows"][0]
            value = next(iter(whole["values"].values()))  # the suite's own metric, its edit distance
            values.setdefault(suite, {})[engine] = {
                **{key: value[key] for key in ("value", "low", "high")},
                "cases": whole["cases"],
                "failures": whole["failures"],
                "seconds": whole["seconds"],
            }
    print(table(values, engines))
    if words:
        there = RESULTS / "peers.json"
        known = json.loads(there.read_text(encoding="utf-8"))["values"] if there.is_file() else {}
        values = {suite: {**known.get(suite, {}), **row} for suite, row in values.items()}
        print(f"written to {save('peers', values, WHAT, 0, provenance('python -m train', words))}")
    return 0


def table(values: dict[str, dict[str, dict]], engines: Sequence[str]) -> str:
    lines = [["", "cases", *engines], ["---"] * (2 + len(engines))]
    for suite, row in values.items():
        cells = [str(Value(*(row[name][key] for key in ("value", "low", "high")))) for name in engines]
        lines.append([suite, str(row[engines[0]]["cases"]), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
