"""Page layout analysis without a model: ink, rows and cells, blocks in reading order, and page orientation."""

from varytoy.layout.blocks import Block, Cell
from varytoy.layout.crop import CellView
from varytoy.layout.ink import SMALLEST, text_mask
from varytoy.layout.kind import is_text
from varytoy.layout.page import PageLayout, cut_blocks

__all__ = ["SMALLEST", "Block", "Cell", "CellView", "PageLayout", "cut_blocks", "is_text", "text_mask"]
