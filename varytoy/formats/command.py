"""``varytoy render FILE``: the command line."""

import argparse
import sys
from pathlib import Path

from varytoy.formats.draw import NOTATIONS, SUFFIXES, draw, notation_of
from varytoy.formats.problem import NotationError


def render(options: argparse.Namespace) -> int:
    """Returns the exit code. Raises ValueError and OSError for what cannot be read, drawn or written."""
    name = options.file if options.file != "-" else "standard input"
    try:
        data = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise NotationError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NotationError(f"{name} is no UTF-8 text: byte {error.start + 1} is wrong") from error
    notation = options.notation or notation_of(name, text)
    target = _target(options, notation)
    try:
        written, problems = draw(text, notation, target.suffix[1:].lower(), Path(name).stem)
    except NotationError as error:
        raise NotationError(f"{name}: {error}") from error
    target.write_bytes(written)
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    print(f"{notation} of {name} in {target}")
    return 0


def _target(options: argparse.Namespace, notation: str) -> Path:
    """Where the picture is written. Raises NotationError for a file of another kind, or one that is there."""
    stem = Path(options.file).stem if options.file != "-" else "answer"
    suffix = "html" if NOTATIONS[notation].svg is None else "png"
    target = options.out or Path(f"{stem}.{suffix}")
    if target.suffix[1:].lower() not in SUFFIXES:
        raise NotationError(f"--out {target}: write {', '.join(f'.{each}' for each in SUFFIXES)}")
    if not options.out and target.exists():
        raise NotationError(f"{target} is there already: name a file with --out")
    return target
