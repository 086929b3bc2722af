"""Page layout without a model: ink, lines, blocks in reading order, and which way up a page stands."""

from varytoy.layout.blocks import Block, crop_block, cut_blocks, estimate_skew, join_blocks
from varytoy.layout.ink import SMALLEST, estimate_text_size, text_mask

__all__ = [
    "SMALLEST",
    "Block",
    "crop_block",
    "cut_blocks",
    "estimate_skew",
    "estimate_text_size",
    "join_blocks",
    "text_mask",
]
