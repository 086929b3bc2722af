"""Folders of markdown, a file a page, for the benchmarks' own scorers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from varytoy.evaluation.case import Case, Prediction


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
