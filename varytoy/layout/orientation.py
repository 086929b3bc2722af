"""Page orientation from ink alone: letters stand on lines, and Latin script has more ascenders than descenders. Upright
where the evidence is weak."""

import numpy as np
from PIL import Image

from varytoy.layout.ink import Analysis, Ink, _band, analyse

LEAST_LETTERS = 20
SIDEWAYS = 1.5
"""Least ratio of vertical to horizontal alignment of a sideways page. Upright pages have 0.15 to 0.4, sideways ones 2.5
to 7."""
_STRIP = 25
_STRETCH = 20
_LEAST_OUTSIDE = 0.06


def turn_of(image: Image.Image, ink: Ink, analysis: Analysis | None) -> tuple[int, bool]:
    """Degrees, counter-clockwise as in ``Image.rotate``, by which an image of text must be rotated to be upright (0,
    90, 180 or 270; 0 where the evidence is weak), and whether it is certain that it is not upside down."""
    across, down = alignment(ink.components[2])
    if not across and not down:
        return 0, True  # too few letters
    if down > SIDEWAYS * across:
        ink = Ink(image.transpose(Image.Transpose.ROTATE_90))
        above, below = reach(ink, analyse(ink))
        return (90 if above >= below else 270), _differ(above, below)
    above, below = reach(ink, analysis)
    sure = _differ(above, below)
    return (180 if sure and below > above else 0), sure


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
    x0, y0, x1, y1 = boxes[letter].T
    return (
        _sharpness(x0, y0, typical) + _sharpness(x0, y1, typical),
        _sharpness(y0, x0, typical) + _sharpness(y0, x1, typical),
    )


def _sharpness(along: np.ndarray, edge: np.ndarray, typical: float) -> float:
    """Mean number of letters with the same edge, within strips narrow enough for skew not to matter."""
    cell = max(1.0, typical / 6)
    strip = (along / (_STRIP * typical)).astype(int)
    position = (edge / cell).astype(int)
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


def turn_back(box: tuple[int, int, int, int], turn: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Map an xyxy box of a rotated image of ``size`` back to the image before the rotation by ``turn`` degrees."""
    x0, y0, x1, y1 = box
    width, height = size
    return {
        0: (x0, y0, x1, y1),
        90: (height - y1, x0, height - y0, x1),
        180: (width - x1, height - y1, width - x0, height - y0),
        270: (y0, width - x1, y1, width - x0),
    }[turn]
