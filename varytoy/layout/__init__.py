"""Page layout analysis without a model: ink, lines, blocks in reading order, and page orientation."""

from varytoy.layout.blocks import Block, crop_block, join_blocks
from varytoy.layout.ink import SMALLEST, text_mask
from varytoy.layout.kind import is_text
from varytoy.layout.page import PageLayout, cut_blocks

__all__ = ["SMALLEST", "Block", "PageLayout", "crop_block", "cut_blocks", "is_text", "join_blocks", "text_mask"]
