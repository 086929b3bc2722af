"""Headings, by the size of their type."""

from collections.abc import Sequence

from varytoy.layout.blocks import Block

LEVELS = (1.6, 1.3, 1.12)
"""Least x-height of headings of level 1, 2 and 3, in those of the page's text. Titles, sections and subsections have
1.7, 1.4 and 1.2 in LaTeX, 2, 1.5 and 1.17 in HTML."""
ALIKE = 1.1
"""Sizes that differ by less are of the same level."""
MOST_ROWS = 3


def heading_levels(blocks: Sequence[Block], text_size: float) -> list[int]:
    """The level of each block, from 1 to 6; 0 for what is no heading. ``text_size``: x-height of the page's text.
    Larger type is of a higher level, on a page with many sizes too."""
    large = [block.text_size >= LEVELS[-1] * text_size and _is_short(block) for block in blocks]
    sizes = sorted({block.text_size for block, is_large in zip(blocks, large, strict=True) if is_large}, reverse=True)
    levels: dict[float, int] = {}
    first, level = 0.0, 0
    for size in sizes:
        if size * ALIKE <= first or not levels:
            usual = next(number for number, least in enumerate(LEVELS, 1) if size >= least * text_size)
            first, level = size, min(max(usual, level + 1), 6)
        levels[size] = level
    return [levels[block.text_size] if is_large else 0 for block, is_large in zip(blocks, large, strict=True)]


def _is_short(block: Block) -> bool:
    """Whether it has a heading's few lines, with at most a number apart from the words."""
    return 1 <= block.lines <= MOST_ROWS and all(len(row) <= 2 for row in block.rows)
