"""Program: one command of ``python -m data_tools``."""

import argparse
from pathlib import Path
from typing import ClassVar

from varytoy.options import positive

PROGRAMS: dict[str, "Program"] = {}
"""Name on the command line -> program."""


class Program:
    """Base of the programs.

    Attributes:
        name: on the command line.
        help: one line for ``--help``.
    """

    name: ClassVar[str]
    help: ClassVar[str]

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the program's options."""

    def run(self, options: argparse.Namespace) -> int | None:
        """Returns the exit code, None for 0. OSError and ValueError are printed as one sentence."""
        raise NotImplementedError


def register(program: type[Program]) -> type[Program]:
    PROGRAMS[program.name] = program()
    return program


def generation_options(parser: argparse.ArgumentParser, count_help: str) -> None:
    """``output_options``, ``--count`` and ``--seed``."""
    output_options(parser)
    parser.add_argument("--count", type=positive, default=1000, help=count_help)
    parser.add_argument("--seed", type=int, default=0)


def output_options(parser: argparse.ArgumentParser) -> None:
    """Add ``out`` and ``--overwrite``."""
    parser.add_argument("out", type=Path, help="folder for samples.jsonl and images/")
    parser.add_argument("--overwrite", action="store_true", help="replace existing samples")
