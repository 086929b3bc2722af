"""A row of tokens as text, with the supervised part marked."""

import re
from collections.abc import Sequence
from itertools import groupby

from varytoy.processing.processor import IGNORED, VaryProcessor

OPEN, CLOSE = "⟦", "⟧"


def marked(ids: Sequence[int], labels: Sequence[int], processor: VaryProcessor) -> str:
    """One row as text, supervised text in ⟦ ⟧, runs of image tokens as ``<imgpad>x256``."""
    pieces = []
    for supervised, run in groupby(zip(ids, labels, strict=True), lambda pair: pair[1] != IGNORED):
        text = processor.tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        pieces.append(f"{OPEN}{text}{CLOSE}" if supervised else text)
    return re.sub(r"(?:<imgpad>\s*)+", lambda match: f"<imgpad>x{match[0].count('<imgpad>')}", "".join(pieces))
