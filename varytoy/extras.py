"""Optional packages: each program asks for what it needs before it begins, and names the one pip line that brings it.

What stands in which extra is written in pyproject.toml.
"""

import importlib.util

CONSTRAINTS = "varytoy/constraints.txt"
"""The versions that varytoy is tested with; ``.ci/lock`` writes it."""


class MissingExtra(ValueError):
    """A package of an extra is not installed; the message has the pip line."""


def installed(module: str) -> bool:
    """Whether a top-level module is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


def pip_line(extra: str) -> str:
    return f"pip install -c {CONSTRAINTS} -e '.[{extra}]'"


def require(extra: str, *modules: str, by: str = "this") -> None:
    """Look for ``modules``, which ``extra`` brings; ``by`` is what needs them.

    Raises:
        MissingExtra: not all of them are installed.
    """
    missing = [module for module in modules if not installed(module)]
    if missing:
        raise MissingExtra(f"{by} needs {', '.join(missing)}: {pip_line(extra)}")
