"""The kinds of ``python -m data_tools render``, which register themselves (kind.py)."""

from data_tools.render import blocks, pages, scenes, text_pictures
from data_tools.render.kind import KINDS

__all__ = ["KINDS", "blocks", "pages", "scenes", "text_pictures"]
