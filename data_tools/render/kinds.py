"""The kinds of ``python -m data_tools render``, which register themselves (kind.py)."""

from data_tools.render import (
    blocks,
    charts,
    code,
    forms,
    formulas,
    geometry,
    molecules,
    music,
    numbers,
    pages,
    scene_text,
    scenes,
    tables,
    text_pictures,
    word_pairs,
)
from data_tools.render.kind import KINDS

__all__ = [
    "KINDS",
    "blocks",
    "charts",
    "code",
    "forms",
    "formulas",
    "geometry",
    "molecules",
    "music",
    "numbers",
    "pages",
    "scene_text",
    "scenes",
    "tables",
    "text_pictures",
    "word_pairs",
]
