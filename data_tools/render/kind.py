"""Kind: what ``python -m data_tools render KIND`` makes. A new kind is one file of this folder with a class that
registers itself, imported in data_tools/render/kinds.py."""

import argparse
from typing import ClassVar

from data_tools.writer import Renderer

KINDS: dict[str, "Kind"] = {}
"""Name on the command line -> kind."""


class Kind:
    """Base of the kinds.

    Attributes:
        name: on the command line.
        help: one line for ``--help``.
        image_format: of the images, unless ``--format`` says another.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    image_format: ClassVar[str] = "png"

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the kind's own options to those of all: ``source``, ``seed``, ``split`` (train or test)."""

    def renderer(self, options: argparse.Namespace) -> Renderer:
        """Raises SourceError if the source folder lacks something."""
        raise NotImplementedError

    def sources(self, options: argparse.Namespace) -> dict[str, str]:
        """What the images are made of -> its licence."""
        raise NotImplementedError


def register(kind: type[Kind]) -> type[Kind]:
    KINDS[kind.name] = kind()
    return kind
