"""``python -m train results``: the tables of the documentation, written from the figures in ``train/results``.

Each JSON file there holds ``values`` and how they were made: ``command``, ``seed``, ``commit`` and ``machine``.
Documents have tables between ``<!-- results: NAME -->`` and ``<!-- end of results -->``, made of ``tables.yaml``.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "train" / "results"
DOCUMENTS = (
    "README.md",
    "varytoy/nano/README.md",
    "docs/architecture.md",
    "docs/evaluation.md",
    "docs/formatted-reading.md",
    "docs/square.md",
    "train/README.md",
)
MADE = ("what", "command", "seed", "commit", "machine", "date")
"""What each file tells beside its values."""
_TABLE = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
_FIGURE = re.compile(r"\{([^{}]+)\}")


class ResultsError(ValueError):
    """A figure or table is missing. The message names the file and the key."""


def save(name: str, values: Mapping[str, Any], what: str, seed: int | None, made: Mapping[str, Any]) -> Path:
    """Write the file of some figures. ``made``: as ``varytoy.evaluation.provenance``."""
    path = RESULTS / f"{name}.json"
    path.write_text(text_of(values, what, seed, made), encoding="utf-8")
    return path


def text_of(values: Mapping[str, Any], what: str, seed: int | None, made: Mapping[str, Any]) -> str:
    """The text of such a file."""
    return json.dumps({"what": what, **made, "seed": seed, "values": values}, indent=2, ensure_ascii=False) + "\n"


def figure(text: str) -> str:
    """``FILE|KEY|…|FORMAT`` -> the formatted figure; empty where it is null. Raises ResultsError."""
    name, *keys, form = text.split("|")
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise ResultsError(f"{path.relative_to(ROOT)} is missing, for the cell '{text}'")
    tree = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in MADE if key not in tree]
    if missing:
        raise ResultsError(f"{path.relative_to(ROOT)} does not tell its {', '.join(missing)}")
    value = tree["values"]
    for key in keys:
        if key not in value:
            raise ResultsError(f"{path.relative_to(ROOT)} has no '{key}', for the cell '{text}'")
        value = value[key]
    return "" if value is None else format(value, form)


def table(name: str) -> str:
    """A table in markdown, each line with its end. Raises ResultsError."""
    tables = yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))
    if name not in tables:
        raise ResultsError(f"tables.yaml has no table '{name}'; it has {', '.join(tables)}")
    rows = [tables[name]["head"], ["---"] * len(tables[name]["head"]), *tables[name]["rows"]]
    cells = [[_FIGURE.sub(lambda match: figure(match[1]), str(cell)) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def written(text: str) -> str:
    """A document with its tables as the results give them."""
    return _TABLE.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def update(write: bool) -> list[str]:
    """The documents whose tables differ from the results; with ``write`` they are brought up to date."""
    differing = []
    for name in DOCUMENTS:
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        fresh = written(text)
        if fresh != text:
            differing.append(name)
            if write:
                path.write_text(fresh, encoding="utf-8")
    return differing
