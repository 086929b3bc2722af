"""Multi-crop: an image as several tiles of the model's size, as InternVL 1.5 (arXiv 2404.16821) and GOT-OCR2 cut it."""

from typing import NamedTuple


class Tiling(NamedTuple):
    """``columns`` x ``rows`` tiles in reading order; with ``thumbnail`` the whole image follows as one more. ``side``:
    pixels of a tile, 0 for the model's own."""

    columns: int = 1
    rows: int = 1
    thumbnail: bool = False
    side: int = 0


WHOLE = Tiling()


def upon_tiles(prompt: str) -> str:
    """GOT-OCR2's prompts about an image in tiles: "OCR with format upon the patch reference: ". Others stay."""
    return _with(prompt, "upon the patch reference")


def across_pages(prompt: str) -> str:
    """GOT-OCR2's prompts about several pages: "OCR with format across multi pages: ". Others stay."""
    return _with(prompt, "across multi pages")


def _with(prompt: str, words: str) -> str:
    start = prompt.rstrip()
    if not start.lstrip().startswith("OCR") or start[-1] != ":":
        return prompt
    return f"{start[:-1]} {words}: "


def choose_tiling(size: tuple[int, int], side: int, most: int) -> Tiling:
    """The grid of at most ``most`` tiles, the thumbnail not counted, with the aspect ratio nearest to the image's. Of
    grids equally near the larger is taken if the image fills more than half of it.

    Args:
        size: (width, height) of the image.
        side: of a tile, in pixels.
    """
    width, height = size
    grids = sorted(
        ((columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)),
        key=lambda grid: grid[0] * grid[1],
    )
    best, nearest = (1, 1), float("inf")
    for columns, rows in grids:
        off = abs(width / height - columns / rows)
        if off < nearest or (off == nearest and width * height > 0.5 * side * side * columns * rows):
            best, nearest = (columns, rows), off
    return Tiling(*best, best != (1, 1))
