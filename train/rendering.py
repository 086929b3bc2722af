"""Pages that ``data_tools render`` makes for a measurement or an experiment."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.__main__ import main as data_tools
from data_tools.output import MANIFEST


def render(kind: Sequence[str], out: Path, count: int, seed: int, split: str, source: Path) -> int:
    """Render samples, or what is missing of them. Returns the exit code.

    Args:
        kind: words of ``data_tools render``: the kind and its own options.
        source: folder filled by ``data_tools fetch``.
    """
    if (out / MANIFEST).is_file():
        return 0
    words = ["--out", str(out), "--count", str(count), "--seed", str(seed), "--split", split, "--source", str(source)]
    return data_tools(["render", *kind, *words, *(["--resume"] if out.is_dir() else [])])
