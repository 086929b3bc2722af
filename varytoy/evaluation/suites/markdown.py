"""Folders of markdown, a file a page, for the benchmarks' own scorers."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from varytoy.evaluation.case import Case, Prediction


def task_option(parser: argparse.ArgumentParser) -> None:
    help = "what pages are read as (default: markdown); ocr for readers of plain text"
    parser.add_argument("--task", choices=("markdown", "ocr"), default="markdown", help=help)


def write_markdown(
    folder: Path, name_of: Callable[[Case], str], cases: Sequence[Case], predictions: Sequence[Prediction]
) -> None:
    """Write each answer into the folder; an empty file for a case without one. Raises OSError.

    Args:
        name_of: the path of a case's file in the folder.
    """
    for case, prediction in zip(cases, predictions, strict=True):
        file = folder / name_of(case)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(prediction.text.strip() + "\n" if prediction.text.strip() else "", encoding="utf-8")
