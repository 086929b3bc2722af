"""The view of a cell that a model gets: straight, at the text size that it reads, without the ink of its neighbours."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from varytoy.layout.blocks import Cell
from varytoy.layout.ink import Analysis

MARGIN = 6
"""Pixels of paper around the view."""
LARGEST = 4.0
"""Most that letters are enlarged."""


@dataclass(frozen=True)
class CellView:
    """Where a cell's view lies on the page: of cells that are not skewed, exactly; else within a few pixels.

    Attributes:
        cell: the cell.
        scale: pixels of the view in one of the page.
    """

    cell: Cell
    scale: float

    @classmethod
    def of(cls, cell: Cell, text_size: float) -> "CellView":
        """The view in which the x-height is ``text_size``."""
        return cls(cell, min(LARGEST, text_size / cell.text_size))

    @property
    def padding(self) -> int:
        """Pixels of the page around the cell's box that are in the view."""
        return 1 if self.cell.text_size < 8 else 2

    def page_x(self, x: float) -> float:
        """From x in the view to x on the page."""
        return max(0, self.cell.box[0] - self.padding) + (x - MARGIN) / self.scale

    def point(self, x: float, y: float) -> tuple[float, float]:
        """From a point on the page to one in the view."""
        left, top = (max(0, side - self.padding) for side in self.cell.box[:2])
        return (x - left) * self.scale + MARGIN, (y - top) * self.scale + MARGIN

    def image(self, page: Image.Image, analysis: Analysis | None) -> Image.Image:
        """The view, RGB. ``analysis``: of the page; needed for a cell with segments."""
        x0, y0, x1, y1 = self.cell.box
        gap = self.padding
        box = (max(0, x0 - gap), max(0, y0 - gap), min(page.width, x1 + gap), min(page.height, y1 + gap))
        crop = page.crop(box).convert("RGB")
        mask = Image.new("L", crop.size)
        foreign = np.zeros(1, bool)
        if self.cell.segments is not None and analysis is not None:
            foreign = analysis.foreign(box, self.cell.segments)
        if foreign.any():
            mask = Image.fromarray(foreign.astype(np.uint8) * 255).resize(crop.size, Image.Resampling.BILINEAR)
            mask = mask.point(lambda v: 255 * (v > 60)).filter(ImageFilter.MaxFilter(3))
        paper = _paper(np.asarray(crop), np.asarray(mask) > 0)
        crop.paste(paper, (0, 0), mask)
        if abs(self.cell.skew) > 0.15:
            crop = _straight(crop, self.cell.skew, paper)
        size = (max(1, round(crop.width * self.scale)), max(1, round(crop.height * self.scale)))
        framed = Image.new("RGB", (size[0] + 2 * MARGIN, size[1] + 2 * MARGIN), paper)
        framed.paste(crop.resize(size, Image.Resampling.LANCZOS), (MARGIN, MARGIN))
        return framed


def _paper(pixels: np.ndarray, foreign: np.ndarray) -> tuple[int, ...]:
    """The colour of the paper at the border of a crop [H, W, 3], without ``foreign`` ink, such as a frame around it."""
    edge = np.ones(foreign.shape, bool)
    edge[1:-1, 1:-1] = False
    own = edge & ~foreign
    return tuple(int(value) for value in np.median(pixels[own if own.any() else edge], axis=0))


def _straight(crop: Image.Image, skew: float, paper: tuple[int, ...]) -> Image.Image:
    """Deskewed; the triangles above and below, where neighbouring lines show, are cut off."""
    drop = abs(np.tan(np.radians(skew))) * crop.width
    rotated = crop.rotate(skew, Image.Resampling.BICUBIC, fillcolor=paper)
    cut = min(int(drop / 2), crop.height // 3)
    return rotated.crop((0, cut, crop.width, crop.height - cut))
