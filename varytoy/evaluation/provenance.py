"""How figures were made: command, commit, machine, versions, date."""

import datetime
import importlib.metadata
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from varytoy.devices.machine import machine

PACKAGES = ("torch", "transformers", "numpy", "pillow")


def provenance(program: str, words: Sequence[str], device: torch.device | None = None) -> dict:
    """What is written beside figures. ``program``: as it is started, ``varytoy`` or ``python -m train``; ``words``: its
    arguments; ``device``: that of the model."""
    return {
        "command": f"{program} {shlex.join(words)}".strip(),
        "commit": commit(),
        "machine": machine(device),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "date": datetime.date.today().isoformat(),
    }


def commit() -> str:
    """The commit of the checkout that this code runs from, ``+`` behind it for changes; empty outside of one."""
    root = Path(__file__).resolve().parents[2]
    try:
        told = [
            subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20)
            for words in (
                ("rev-parse", "--show-toplevel"),
                ("rev-parse", "--short=10", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    if Path(told[0].stdout.strip()).resolve() != root:  # installed inside of another project
        return ""
    return told[1].stdout.strip() + ("+" if told[2].stdout.strip() else "")
