"""Program: one command of ``python -m data_tools``."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from data_tools.output import Output
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
    """``--out``, ``--shards``, ``--overwrite`` or ``--resume``."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for samples.jsonl and images/, or shards"
    )
    parser.add_argument("--shards", type=positive, metavar="N", help="write .tar shards of about N samples each")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--overwrite", action="store_true", help="replace existing samples")
    way.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")


def workers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=positive, help="processes (default: all cores)")


def licence_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--licence", metavar="TEXT", help="of the source, for manifest.json")


def span(text: str, kind=int) -> tuple:
    """``3`` or ``1-8`` as a pair."""
    low, _, high = text.partition("-")
    try:
        pair = (kind(low), kind(high or low))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number or a range such as 1-8") from None
    if not 0 < pair[0] <= pair[1] < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}': give a number above 0, or a range from a lower to a higher one")
    return pair


def span_of_floats(text: str) -> tuple:
    return span(text, float)


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share from 0 to 1")
    return number


def output_of(options: argparse.Namespace, sources: Mapping[str, str] | None = None) -> Output:
    """The output of a program with ``output_options``; ``sources`` as for ``Output``. Raises as ``Output``."""
    left_out = {"out", "shards", "overwrite", "resume", "workers", "run", "ray"}
    settings = {name: _plain(value) for name, value in sorted(vars(options).items()) if name not in left_out}
    return Output(options.out, settings, options.shards or 0, options.resume, options.overwrite, sources)


def _plain(value: object) -> object:
    """An option as JSON."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
