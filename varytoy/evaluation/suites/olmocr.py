"""olmOCR-bench: assertions about the markdown of pages of PDFs."""

import os
from pathlib import Path

import numpy as np

from varytoy.data.documents import DocumentError, open_pages
from varytoy.evaluation.case import Case
from varytoy.evaluation.metric import Metric, Ratio, ratio
from varytoy.evaluation.olmocr_bench import TYPES, Assertion, parse
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import checked, parts_option, read_lines
from varytoy.evaluation.suites.markdown import task_option, write_markdown
from varytoy.extras import require

BASELINE = "baseline"
"""The part of the score of assertions that no file has: each PDF without one of type baseline gets one."""
NAMES = {"math": "math as LaTeX, not as drawn"}


@register
class OlmOcrBench(Suite):
    """A case is a page with all of its assertions (``facts["assertions"]``: file and assertion), so that it is read
    once."""

    name = "olmocr-bench"
    help = "olmOCR-bench's assertions about pages (mean of the files' pass rates); groups: its files"
    layout = "*.jsonl, and the PDFs that they name in pdfs/ (olmOCR-bench's folder bench_data)"

    def options(self, parser):
        parts_option(parser, "--types", TYPES, "of the assertions (default: all; others in the files are an error)")

        task_option(parser)

    def cases(self, folder, options):
        require("evaluate", "rapidfuzz", "lxml", by=f"varytoy evaluate {self.name}")
        files = sorted(folder.glob("*.jsonl"))
        if not files or not (folder / "pdfs").is_dir():
            raise SuiteError(f"no *.jsonl and pdfs/ in {folder}: give a folder with {self.layout}")
        pages: dict[tuple[str, int], list[tuple[str, Assertion]]] = {}
        own_baseline: set[str] = set()
        for file in files:
            seen: dict[str, str] = {}
            for where, row in read_lines(file, self.layout):
                with checked(where, self.layout):
                    if options.types and row["type"] not in options.types:
                        continue
                    assertion, pdf, page = parse(row), row["pdf"], row["page"]
                    if type(page) is not int or page < 1 or not isinstance(pdf, str):
                        raise TypeError("'pdf' must be a file name and 'page' a number from 1")
                    if Path(pdf).is_absolute() or ".." in Path(pdf).parts or not Path(pdf).name:
                        raise ValueError(f"the file name {pdf[:80]!r} leaves pdfs/")
                if assertion.id in seen:
                    raise SuiteError(f"{where}: the id '{assertion.id}' is also that of {seen[assertion.id]}")
                seen[assertion.id] = where
                pages.setdefault((pdf, page), []).append((file.stem, assertion))
                if assertion.kind == "baseline":
                    own_baseline.add(pdf)
        if not options.types or "baseline" in options.types:
            for pdf in sorted({pdf for pdf, _ in pages} - own_baseline):
                added = parse({"type": "baseline", "id": f"{pdf}_baseline"})
                pages.setdefault((pdf, 1), []).append((BASELINE, added))
        _check(folder / "pdfs", pages)
        return [_case(options.task, folder / "pdfs", pdf, page, own) for (pdf, page), own in pages.items()]

    def metrics(self, options):
        return [PassRate(), *(_rate_of(kind) for kind in TYPES if not options.types or kind in options.types)]

    def write_markdown(self, folder, cases, predictions):
        """As one candidate: ``PDF_pg1_repeat1.md``."""
        write_markdown(folder, file_name, cases, predictions)


def _check(folder: Path, pages: dict[tuple[str, int], list]) -> None:
    """Raises SuiteError for PDFs and pages that are not there."""
    names = sorted({pdf for pdf, _ in pages})
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise SuiteError(f"{len(missing)} of {len(names)} PDFs are missing, first {folder / missing[0]}: unpack all")
    for pdf, page in pages:
        if page > 1:
            try:
                next(iter(open_pages(folder / pdf, [page])))
            except DocumentError as error:
                raise SuiteError(f"{folder / pdf}: {error}") from error


def _case(task: str, folder: Path, pdf: str, page: int, own: list[tuple[str, Assertion]]) -> Case:
    group = ", ".join(dict.fromkeys(name for name, _ in own if name != BASELINE)) or BASELINE
    return Case(f"{pdf}-{page}", task, folder / pdf, page, group=group, facts={"assertions": own, "pdf": pdf})


def file_name(case: Case) -> str:
    return f"{Path(case.facts['pdf']).with_suffix('').as_posix()}_pg{case.page}_repeat1.md"


class PassRate(Metric):
    """The mean of the pass rates of the files, ``baseline`` among them as a file of its own; of a group of cases, which
    is about one file, that file's. Rows: passed and counted of each file by name, then of ``baseline``."""

    name = "pass rate, mean of files"

    def rows(self, predictions, cases):
        files = sorted({name for case in cases for name, _ in case.facts["assertions"]} - {BASELINE})
        rows = np.zeros((len(cases), len(files) + 1, 2))
        for number, (prediction, case) in enumerate(zip(predictions, cases, strict=True)):
            for name, assertion in case.facts["assertions"]:
                place = files.index(name) if name != BASELINE else -1
                rows[number, place] += (assertion.holds(prediction.text), 1)
        return rows.reshape(len(cases), -1)

    def value(self, sums):
        parts = np.asarray(sums).reshape(*np.shape(sums)[:-1], -1, 2)
        rates, there = ratio(parts[..., 0], parts[..., 1]), parts[..., 1] > 0
        files = there[..., :-1].sum(-1)
        several = parts.shape[-2] > 2  # then a single file is one of the groups
        there[..., -1] &= ~((files == 1) & several)
        return ratio(np.where(there, rates, 0).sum(-1), there.sum(-1))


def _rate_of(kind: str) -> Metric:
    def count(prediction, case):
        own = [assertion for _, assertion in case.facts["assertions"] if assertion.kind == kind]
        return sum(assertion.holds(prediction.text) for assertion in own), len(own)

    return Ratio(NAMES.get(kind, kind), count)
