"""``varytoy evaluate``: answer the cases of a suite, score them, and write what came out."""

import argparse
import contextlib
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from varytoy.data.boxes import Box
from varytoy.evaluation import contact_sheet
from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Metric
from varytoy.evaluation.metrics import MODULES
from varytoy.evaluation.provenance import provenance
from varytoy.evaluation.run_folder import RunFolder, check_folder
from varytoy.evaluation.suite import Suite, SuiteError
from varytoy.evaluation.systems import System, choose
from varytoy.evaluation.table import Row, markdown, rows_of
from varytoy.extras import require
from varytoy.folder_lock import locked
from varytoy.tasks.base import draw_regions, object_regions

WORST = 20
"""Cases on the contact sheet."""


def evaluate(options: argparse.Namespace, suite: Suite) -> int:
    """Run the command. Raises ValueError, OSError."""
    require("evaluate", *MODULES, by="varytoy evaluate")
    cases = chosen(suite.cases(options.folder, options), options.limit, options.seed)
    if not cases:
        raise SuiteError(f"{options.folder}: no cases for {suite.name}; it expects {suite.layout}")
    metrics = list(suite.metrics(options))
    if options.markdown:
        suite.write_markdown(options.markdown, [], [])  # raises before anything is answered
    check_folder(options.out)
    system = choose(options, suite.single_block)
    if system.tasks is not None:
        wrong = next((case.task for case in cases if case.task not in system.tasks), None)
        if wrong:
            raise ValueError(f"--engine {options.engine} cannot do '{wrong}', which {suite.name} asks for")
    with contextlib.ExitStack() as stack:
        made = settings(options, suite, system, cases)
        out = options.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        stack.enter_context(locked(out, "name another --out"))
        run = RunFolder(out, made)
        predictions = answered(system, cases, run)
        rows, scores = rows_of(cases, predictions, metrics, options.seed)
        run.finish(cases, scores)
        print(f"{suite.name}, {system.name}\n\n{markdown(rows)}")
        if options.out:
            made = provenance("varytoy", options.words, system.device) | {"settings": made}
            write(options.out, rows, cases, predictions, metrics, scores, made)
    if options.markdown:
        suite.write_markdown(options.markdown, cases, predictions)
        print(f"the answers are in {options.markdown}, for {suite.name}'s own scorer")
    failures = sum(bool(each.error) for each in predictions)
    if failures:
        first = next(each.error for each in predictions if each.error)
        print(f"varytoy: {failures} of {len(cases)} cases have no answer, first: {first}", file=sys.stderr)
    return 1 if failures == len(cases) else 0


def chosen(cases: Sequence[Case], limit: int | None, seed: int) -> list[Case]:
    """All cases, or ``limit`` of them by chance, in order. Raises SuiteError for ids that are there twice."""
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise SuiteError(f"{case.file}: the id '{case.id}' is there twice; ids must differ")
        seen.add(case.id)
    if limit is None or limit >= len(cases):
        return list(cases)
    return [cases[number] for number in sorted(random.Random(seed).sample(range(len(cases)), limit))]


def settings(options: argparse.Namespace, suite: Suite, system: System, cases: Sequence[Case]) -> dict:
    """What the answers depend on: all options but those of where and how fast, the cases, a local model's weights."""
    left_out = ("program", "run", "out", "markdown", "together", "suite", "words")
    own = {name: value for name, value in vars(options).items() if name not in left_out}
    own["folder"] = options.folder.resolve().name
    asked = _digest((case.id, case.prompt, case.references, case.page, _size(case.file)) for case in cases)
    weights = sorted(Path(system.name).glob("*.safetensors")) if Path(system.name).is_dir() else []
    loaded = _digest((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weights)
    named = {"suite": suite.name, "system": system.name, "version": system.version, **_plain(own)}
    return {**named, "cases": asked, "weights": loaded}  # last: an option that differs says more than its digest


def _digest(rows: Iterable[tuple]) -> str:
    return hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()[:16]


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0  # of a shard's member


def _plain(values: dict) -> dict:
    return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(values.items())}


def answered(system: System, cases: Sequence[Case], run: RunFolder) -> list[Prediction]:
    """The answers, those of an earlier run of the folder among them."""
    open_cases = [case for case in cases if case.id not in run.done]
    if len(open_cases) < len(cases):
        print(f"{len(cases) - len(open_cases)} of {len(cases)} cases are answered already", file=sys.stderr)
    answers = system.answers(open_cases)
    try:
        with tqdm(total=len(cases), initial=len(cases) - len(open_cases), unit="case") as bar:
            for case, prediction in zip(open_cases, answers, strict=True):
                run.add(case, prediction)
                bar.update()
    finally:
        system.close()
    return [run.done[case.id] for case in cases]


def write(
    folder: Path,
    rows: Sequence[Row],
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    metrics: Sequence[Metric],
    scores: dict[str, np.ndarray],
    made: dict,
) -> None:
    """Write ``table.md``, ``table.json`` and ``worst.png`` into the run's folder. ``made``: what made them."""
    table = {**made, "rows": [row.to_json() for row in rows]}
    (folder / "table.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    (folder / "table.md").write_text(markdown(rows), encoding="utf-8")
    shown = next((metric for metric in metrics if not np.isnan(scores[metric.name]).all()), None)
    if shown is not None:
        values = scores[shown.name]
        order = np.argsort(values if not shown.is_error else -values, kind="stable")
        worst = [number for number in order if values[number] == values[number]][:WORST]
        contact_sheet.draw((_tile(cases[n], predictions[n], values[n]) for n in worst), folder / "worst.png")


def _tile(case: Case, prediction: Prediction, score: float):
    try:
        image = case.open()
    except ValueError:
        image = contact_sheet.Image.new("RGB", (100, 100), "white")
    right = [Box(f"right {box.label}".strip(), box.xyxy) for box in case.boxes]
    boxes = [*right, *prediction.boxes] if case.boxes else []
    drawn = draw_regions(image, object_regions(boxes, image.size)) if boxes else image
    said = prediction.error or prediction.text or "(empty)"
    truth = [f"right: {case.truth}"] if case.references else []
    return drawn, [f"{score:.2f}  {case.id}  {case.prompt}", said[:200], *truth]
