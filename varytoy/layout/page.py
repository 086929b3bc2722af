"""PageLayout: the layout properties of one page image, each computed once, on first use."""

import threading
from functools import cached_property

import numpy as np
from PIL import Image

from varytoy.layout.blocks import Block, cut
from varytoy.layout.crop import LARGEST
from varytoy.layout.ink import Analysis, Ink, analyse, segments_size
from varytoy.layout.orientation import Rotation, is_sideways, upside_down

MAX_LINES = 8
STRAIGHT = 1.0
"""Degrees of skew above which a page is straightened as a whole; below, its cells are."""
Box = tuple[int, int, int, int]


class PageLayout:
    """The layout of an image, from its ink alone.

    Args:
        image: RGB or grey.
        cancel: set it from another thread to end the cut into columns early; the rest is then read row by row.
    """

    def __init__(self, image: Image.Image, cancel: threading.Event | None = None):
        self.image, self.cancel = image, cancel

    @cached_property
    def ink(self) -> Ink:
        return Ink(self.image)

    @cached_property
    def analysis(self) -> Analysis | None:
        """None where there is no text."""
        return analyse(self.ink)

    @cached_property
    def text_size(self) -> float | None:
        """x-height in pixels, the median over the letters; None where there is no text."""
        if self.analysis is None or not self.analysis.segments:
            return None
        return segments_size(self.analysis.segments) / self.analysis.scale

    @cached_property
    def skew(self) -> float:
        """Degrees, within +-10, by which the lines slope down to the right: ``image.rotate(skew)`` is straight."""
        return 0.0 if self.analysis is None else float(np.degrees(np.arctan(self.analysis.skew)))

    @cached_property
    def sideways(self) -> bool:
        """Whether its lines are vertical."""
        return is_sideways(self.ink.components[2])

    @cached_property
    def upside_down(self) -> tuple[bool, bool]:
        """Whether it is upside down if its lines are horizontal and straight, and whether that is certain."""
        return upside_down(self.ink, self.analysis)

    def upright(self) -> tuple["PageLayout", Rotation, bool]:
        """The page rotated to stand upright (itself if it does), how, and whether it is certain that it is not upside
        down; where the evidence is weak it is left as it is."""
        page, turn, skew = self, 0, 0.0
        if page.sideways:
            turn = 90
            page = self.rotated(Rotation(self.image.size, turn))
        if abs(page.skew) > STRAIGHT:
            skew = page.skew
            page = self.rotated(Rotation(self.image.size, turn, skew))
        down, certain = page.upside_down
        if down:
            turn += 180
            page = self.rotated(Rotation(self.image.size, turn, skew))
        return page, Rotation(self.image.size, turn, skew), certain

    def rotated(self, rotation: Rotation) -> "PageLayout":
        return PageLayout(rotation.apply(self.image), self.cancel)

    @cached_property
    def blocks(self) -> list[Block]:
        """In reading order; none where there is no text and no picture."""
        return [] if self.analysis is None else cut(self.image, self.analysis, self.cancel)

    def scale_to(self, text_size: float) -> float:
        """Factor that resizes the image to an x-height of ``text_size`` pixels; 1.0 where no text is found or its size
        is close."""
        scale = min(text_size / self.text_size, LARGEST) if self.text_size else 1.0
        return 1.0 if abs(scale - 1) < 0.08 else scale

    def one_pass(self, text_size: float, max_pixels: int) -> Box | None:
        """xyxy, in pixels of the image, of the text without wide margins, if it can be read at once at that text size;
        None for a page with more than ``MAX_LINES`` lines, a cell beside another, a picture, or over ``max_pixels``.
        """
        if any(block.kind != "text" or len(block.cells) > block.lines for block in self.blocks):
            return None
        if sum(block.lines for block in self.blocks) > MAX_LINES:
            return None
        scale = self.scale_to(text_size)
        box = (0, 0, *self.image.size)
        if self.blocks:
            margin = 2 * text_size / scale
            left, top, right, bottom = zip(*(block.box for block in self.blocks), strict=True)
            box = (
                max(round(min(left) - margin), 0),
                max(round(min(top) - margin), 0),
                min(round(max(right) + margin), self.image.width),
                min(round(max(bottom) + margin), self.image.height),
            )
        return box if (box[2] - box[0]) * (box[3] - box[1]) * scale**2 <= max_pixels else None


def cut_blocks(image: Image.Image, cancel: threading.Event | None = None) -> list[Block]:
    """The page's blocks in reading order. No text and no picture: no blocks."""
    return PageLayout(image, cancel).blocks
