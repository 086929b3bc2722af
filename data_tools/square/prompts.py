"""Prompts: what the models are asked, from a numbered file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

LATEST = 1
WORDINGS = ("prompt.1", "prompt.2", "prompt.3")
"""Other wordings of ``answer.bare``."""


@dataclass(frozen=True)
class Prompts:
    """A version of the prompts.

    Attributes:
        texts: name -> text with ``{question}`` and the like.
    """

    version: int
    texts: Mapping[str, str]

    @classmethod
    def read(cls, version: int = LATEST) -> "Prompts":
        file = Path(__file__).with_name(f"prompts-{version}.yaml")
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        return cls(tree.pop("version"), tree)

    def fill(self, name: str, values: Mapping[str, str]) -> str:
        """A prompt with its values; after the text of an OCR reader, if ``values`` has one."""
        said = self.texts[name].format(**values)
        return f"{self.texts['text'].format(**values)}\n\n{said}" if values.get("text") else said
