"""Page orientation from ink alone: letters stand on lines, and Latin script has more ascenders than descenders. Upright
where the evidence is weak."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from varytoy.layout.ink import Analysis, Ink, _band, tilt

LEAST_LETTERS = 20
SIDEWAYS = 1.5
"""Least ratio of vertical to horizontal alignment of a sideways page. Upright pages have 0.15 to 0.4, sideways ones 2.5
to 7."""
_STRIP = 25
_STRETCH = 20
_LEAST_OUTSIDE = 0.06


def is_sideways(boxes: np.ndarray) -> bool:
    """Whether the letters [C, 4] xyxy of a page stand in columns rather than in rows."""
    across, down = alignment(boxes)
    return down > SIDEWAYS * across


def upside_down(ink: Ink, analysis: Analysis | None) -> tuple[bool, bool]:
    """Whether a page with horizontal lines is upside down, and whether that is certain."""
    above, below = reach(ink, analysis)
    sure = _differ(above, below)
    return sure and below > above, sure


def _differ(above: int, below: int) -> bool:
    """Whether the difference exceeds two standard deviations of a fair vote."""
    return abs(above - below) > 2 * (above + below) ** 0.5


def alignment(boxes: np.ndarray) -> tuple[float, float]:
    """How well the edges of letters [C, 4] xyxy align in rows, and in columns; zeros for too few letters."""
    size = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    letter = size >= 4
    if letter.sum() < LEAST_LETTERS:
        return 0.0, 0.0
    typical = float(np.median(size[letter]))
    letter = (size > 0.5 * typical) & (size < 3 * typical)
    if letter.sum() < LEAST_LETTERS:
        return 0.0, 0.0
    letters = boxes[letter]
    return _in_rows(letters, typical), _in_rows(letters[:, [1, 0, 3, 2]], typical)


def _in_rows(letters: np.ndarray, typical: float) -> float:
    x0, y0, x1, y1 = letters.T
    drop = (x0 + x1) / 2 * tilt(letters, typical)
    return _sharpness(x0, y0 - drop, typical) + _sharpness(x0, y1 - drop, typical)


def _sharpness(along: np.ndarray, edge: np.ndarray, typical: float) -> float:
    """Mean number of letters with the same edge, within strips narrow enough for skew not to matter."""
    cell = max(1.0, typical / 6)
    strip = (along / (_STRIP * typical)).astype(int)
    position = ((edge - edge.min()) / cell).astype(int)
    _, counts = np.unique(strip * (position.max() + 1) + position, return_counts=True)
    return float((counts**2).sum() / counts.sum())


def reach(ink: Ink, analysis: Analysis | None) -> tuple[int, int]:
    """For an image with horizontal lines: the number of stretches of text with more ink above the x-height band than
    below, and with more below. Stretches of capitals and digits have little of both and do not count."""
    if analysis is None or sum(s.letters for s in analysis.segments) < LEAST_LETTERS:
        return 0, 0
    mask = ink.mask
    above = below = 0
    for segment in analysis.segments:
        if segment.letters < 6:
            continue
        x0, y0, x1, y1 = (int(side) for side in segment.box)
        step = max(int(_STRETCH * segment.size), 1)
        for start in range(x0, x1, step):
            profile = mask[y0:y1, start : min(start + step, x1)].sum(axis=1).astype(float)
            if profile.max(initial=0) <= 0:
                continue
            top, bottom, _ = _band(profile)
            over = profile[: max(int(round(top)), 0)].sum()
            under = profile[int(round(bottom)) + 1 :].sum()
            if over + under > _LEAST_OUTSIDE * profile.sum():
                above += over > under
                below += under > over
    return above, below


@dataclass(frozen=True)
class Rotation:
    """How an image was rotated to stand upright: by ``turn``, a multiple of 90, and then by ``skew``; both in degrees,
    counter-clockwise as in ``Image.rotate``. ``size``: of the image before."""

    size: tuple[int, int]
    turn: int = 0
    skew: float = 0.0

    def apply(self, image: Image.Image) -> Image.Image:
        """The image, upright, with paper in the corners."""
        turned = image.rotate(self.turn, expand=True) if self.turn else image
        if not self.skew:
            return turned
        pixels = np.asarray(turned)[::5, ::5]
        paper = np.median(pixels.reshape(-1, *pixels.shape[2:]), axis=0)
        fill = tuple(int(v) for v in np.atleast_1d(paper))
        return turned.rotate(
            self.skew, Image.Resampling.BICUBIC, expand=True, fillcolor=fill if len(fill) > 1 else fill[0]
        )

    def back(self, point: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
        """From a point in the upright image of ``size`` to one in the image before."""
        x, y = point
        turned = self.size[::-1] if self.turn % 180 else self.size
        if self.skew:
            cos, sin = math.cos(math.radians(self.skew)), math.sin(math.radians(self.skew))
            x, y = x - size[0] / 2, y - size[1] / 2
            x, y = cos * x - sin * y + turned[0] / 2, sin * x + cos * y + turned[1] / 2
        width, height = turned
        return {0: (x, y), 90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}[self.turn]
