"""Suites: where cases come from, and what they are scored by."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Metric


class SuiteError(ValueError):
    """A suite's files are missing or not of its layout. The message names the file, the line and the cure."""


class Suite:
    """A kind of test data.

    Attributes:
        name: on the command line.
        help: one line, for ``--help``.
        layout: the files that a folder must hold, for the documentation and errors.
        single_block: whether each picture is one block of text, which other readers are told.
    """

    name: str
    help: str
    layout: str = ""
    single_block: bool = False

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the suite's own options."""

    def cases(self, folder: Path, options: argparse.Namespace) -> Sequence[Case]:
        """All cases, in the order of the files. Raises SuiteError; OSError."""
        raise NotImplementedError

    def metrics(self, options: argparse.Namespace) -> Sequence[Metric]:
        """The metrics; the first is the suite's own, by which the worst cases are chosen."""
        raise NotImplementedError

    def write_markdown(self, folder: Path, cases: Sequence[Case], predictions: Sequence[Prediction]) -> None:
        """Write the answers as the suite's own scorer reads them."""
        raise SuiteError(f"--markdown: {self.name} has no scorer that reads a folder of markdown; leave it out")


SUITES: dict[str, Suite] = {}


def register(suite: type[Suite]) -> type[Suite]:
    SUITES[suite.name] = suite()
    return suite
