"""Optional packages: each program checks at its start what it needs, and names the pip command that installs it.

The extras are defined in pyproject.toml.
"""

import importlib.util

CONSTRAINTS = "varytoy/constraints.txt"
"""The versions that varytoy is tested with; ``.ci/lock`` writes it."""


class MissingExtra(ValueError):
    """A package of an extra is not installed; the message has the pip command."""


def installed(module: str) -> bool:
    """Whether a top-level module is installed; it is not imported."""
    return importlib.util.find_spec(module) is not None


def pip_line(extra: str) -> str:
    return f"pip install -c {CONSTRAINTS} -e '.[{extra}]'"


def require(extra: str, *modules: str, by: str = "this") -> None:
    """Check that ``modules``, which ``extra`` installs, are there; ``by`` names what needs them.

    Raises:
        MissingExtra: not all of them are installed.
    """
    missing = [module for module in modules if not installed(module)]
    if missing:
        raise MissingExtra(f"{by} needs {', '.join(missing)}: {pip_line(extra)}")
