"""``python -m data_tools NAME …``: make samples. ``python -m data_tools --help`` lists the programs."""

import argparse
import sys
from pathlib import Path

import varytoy  # noqa: F401  (first: it repairs mismatched torchvision builds)
from data_tools import importers, programs  # noqa: F401  (they register themselves)
from data_tools.assets.packages import SourceError
from data_tools.output import JOURNAL
from data_tools.program import PROGRAMS


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_tools", description="Make training and test samples.")
    commands = parser.add_subparsers(dest="program", required=True, metavar="NAME")
    for _, program in sorted(PROGRAMS.items()):
        command = commands.add_parser(program.name, help=program.help)
        program.options(command)
        command.set_defaults(run=program.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (SourceError, OSError, ValueError) as error:
        print(f"data_tools: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        unfinished = getattr(options, "out", None) and (Path(options.out) / JOURNAL).is_file()
        left = "; add --resume to go on" if unfinished else ""
        print(f"\ndata_tools: stopped{left}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
