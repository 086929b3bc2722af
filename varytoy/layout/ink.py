"""Ink and letters of a page, without a model: binarisation, text size and skew.

Ink is what differs from the local paper, darker or lighter. Its connected components are linked into segments of text
lines. Every text size is the x-height in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter

from varytoy.layout.components import expand, joined, label_components, middle_of, neighbours, typical_height
from varytoy.layout.rules import crumbs, dotted, frame_sides, rules

WORK_PIXELS = 4_200_000  # larger pages are downscaled to this
CAPITAL = 0.72  # height of x / height of capitals and digits, mean over common fonts
SMALLEST = 2.5  # a smaller x-height (pixels) is unreadable
# Bounds of the work, far above any page of text; only textures (dither, halftone, noise) exceed them.
MAX_SEGMENTS = 6_000  # the longest are kept
MAX_PICTURES = 200  # the largest are kept
STEEP = 1.3  # how much sharper rows of more than two degrees must be than flatter ones
DOTS, GROWN = 0.5, 1.5  # heights of ink to those of letters where letters may be dots; how much blur makes those grow
MARK = 2.4  # heights of a letter: farther away, a point, quotation mark or sign of equality belongs to no letter
NONE, RULE = -1, -2  # owners of ink that belongs to no segment, and of that which is no text


@dataclass
class Segment:
    """A run of letters on one line, deskewed: x range, baseline and x-height in working pixels."""

    x0: float
    x1: float
    base: float
    size: float
    letters: int  # 0: a picture
    box: np.ndarray  # xyxy in the working image before deskewing
    level: float = 0.0  # the letters' height where all have the same, capitals or not; else 0
    number: int = -1  # of its ink in ``Analysis.owners``

    @property
    def top(self) -> float:
        return self.base - self.size

    @property
    def middle(self) -> float:
        return self.base - self.size / 2

    @property
    def picture(self) -> bool:
        return self.letters == 0


@dataclass
class Analysis:
    scale: float  # working pixels per page pixel
    skew: float  # tangent
    segments: list[Segment]
    pictures: np.ndarray  # [n, 4]
    owners: np.ndarray  # [H, W]: of the ink at each working pixel the ``number`` of its segment, or ``RULE``; else NONE

    def foreign(self, box: tuple[int, int, int, int], own: frozenset[int]) -> np.ndarray:
        """Bool [h, w] at the working size: ink in a box of the page that is of rules, or of segments of other rows.
        ``own``: numbers of the segments that the box was drawn around."""
        x0, y0, x1, y1 = (side * self.scale for side in box)
        part = self.owners[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
        margin = (y1 - y0) / 5
        beside = [s.number for s in self.segments if y0 + margin < (s.box[1] + s.box[3]) / 2 < y1 - margin]
        return (part != NONE) & ~np.isin(part, [*own, *beside])


# ---- ink ------------------------------------------------------------------------------------------------------------


def _tiles(values: np.ndarray, side: int) -> np.ndarray:
    """[H, W] -> [rows, columns, side * side], edges repeated."""
    rows, columns = -(-values.shape[0] // side), -(-values.shape[1] // side)
    pad = ((0, rows * side - values.shape[0]), (0, columns * side - values.shape[1]))
    padded = np.pad(values, pad, mode="edge").reshape(rows, side, columns, side)
    return padded.swapaxes(1, 2).reshape(rows, columns, side * side)


def _spread(grid: np.ndarray, side: int, shape: tuple[int, int]) -> np.ndarray:
    """A value per tile -> a smooth value per pixel."""
    size = (grid.shape[1] * side, grid.shape[0] * side)
    return np.asarray(Image.fromarray(grid.astype(np.float32)).resize(size, Image.BILINEAR))[: shape[0], : shape[1]]


def _ink(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[H, W] uint8 -> bool, twice: pixels that differ from the local paper by 0.4 of the local contrast and by the
    noise; and those that differ by the noise alone, as faint rules beside dark letters do."""
    values = grey.astype(np.float32)
    grid = np.median(_tiles(grey[::2, ::2], 48), axis=2)
    paper = _spread(grid, 96, grey.shape)
    nearest = grid.repeat(96, axis=0).repeat(96, axis=1)[: grey.shape[0], : grey.shape[1]]
    paper = np.where(np.abs(paper - nearest) < 24, paper, nearest)  # light changes slowly, a photograph's edge does not
    contrast = np.abs(values - paper)
    steps = np.abs(np.diff(grey[::3].astype(np.int16), axis=1)) if grey.shape[1] > 1 else np.zeros(1)
    noise = float(np.median(steps)) / 0.6745 / 2**0.5
    strongest = _tiles(contrast, 32).max(axis=2)
    around = np.pad(strongest, 1, mode="edge")
    around = np.maximum.reduce([around[i : i + strongest.shape[0]] for i in range(3)])
    strongest = np.maximum.reduce([around[:, i : i + strongest.shape[1]] for i in range(3)])
    faint = contrast > max(26.0, 4.5 * noise)
    return faint & (contrast > 0.4 * _spread(strongest, 32, grey.shape)), faint


def _working(image: Image.Image, most: int | None) -> tuple[np.ndarray, float]:
    """Grey [H, W] at the working size, and that size over the page's: tiny letters need more pixels to separate."""
    grey = image.convert("L")
    pixels = grey.width * grey.height
    scale = 2.0 if pixels < 800_000 and most is None else min(1.0, ((most or WORK_PIXELS) / pixels) ** 0.5)
    if scale != 1.0:
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        grey = grey.resize(size, Image.BICUBIC if scale > 1 else Image.BOX)
    return np.asarray(grey), scale


def text_mask(image: Image.Image) -> np.ndarray:
    """Bool [H, W], true where there is ink; all false on blank paper, even noisy or unevenly lit."""
    return _ink(np.asarray(image.convert("L")))[0]


# ---- skew and text size --------------------------------------------------------------------------------------------


def tilt(boxes: np.ndarray, size: float) -> float:
    """Tangent of the skew: the slope at which the letters' bottoms fall into the fewest rows."""
    if len(boxes) < 12:
        return 0.0
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3].astype(float)
    cell = max(1.0, size / 5)

    def sharpness(slope: float) -> float:
        position = (y - x * slope) / cell
        position -= position.min()
        low = position.astype(int)
        part = position - low
        rows = np.bincount(low, 1 - part, low.max() + 2) + np.bincount(low + 1, part, low.max() + 2)
        return float((rows**2).sum())

    def best_of(slopes: np.ndarray) -> float:
        return float(slopes[int(np.argmax([sharpness(slope) for slope in slopes]))])

    level = sharpness(0.0)
    best = best_of(np.arange(-35, 36) * 0.001)
    if len(boxes) >= 40 and sharpness(best) < 4 * level:  # perhaps steeper
        steep = best_of(np.arange(-180, 181) * 0.001)
        best = steep if sharpness(steep) > STEEP * max(level, sharpness(best)) else best
    best = best_of(best + np.arange(-8, 9) * 0.000125)
    flat = abs(best) < 0.0015 or sharpness(best) < 1.1 * level
    return 0.0 if flat else best


def _band(profile: np.ndarray) -> tuple[float, float, bool]:
    """Ink per row of one line -> top and bottom of the x-height band, and whether nothing extends beyond it."""
    level = 0.42 * np.median(profile[profile > 0.25 * profile.max()])
    middle = int(np.argmax(np.convolve(profile, np.ones(3), "same") * (profile >= level)))
    low = np.pad(profile < level, 1, constant_values=True)
    first = middle - int(np.argmax(low[middle + 1 :: -1])) + 1
    last = middle + int(np.argmax(low[middle + 1 :])) - 1
    padded = np.pad(profile, 1)
    above, upper, lower, below = padded[first], padded[first + 1], padded[last + 1], padded[last + 2]
    top = first - 0.5 + (level - above) / max(upper - above, 1e-6)
    bottom = last + 0.5 + (lower - level) / max(lower - below, 1e-6)
    outside = profile[:first].sum() + profile[last + 1 :].sum()
    return float(top), float(bottom), bool(outside < 0.03 * profile.sum())


def _only(kept: np.ndarray, boxes: np.ndarray, runs: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, ...]:
    """The components in ``kept``, renumbered."""
    own = kept[owner]
    return boxes[kept], runs[own], (np.cumsum(kept) - 1)[owner[own]]


def _segments(
    boxes: np.ndarray, runs: np.ndarray, owner: np.ndarray, height: float, slope: float
) -> tuple[list[Segment], np.ndarray]:
    """Link neighbouring letters. ``owner``: component of each run; ``height``: a typical letter's. Also the segment of
    each component, NONE for none."""
    width, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    drop = np.round((boxes[:, 0] + boxes[:, 2]) / 2 * slope).astype(int)
    y0, y1 = boxes[:, 1] - drop, boxes[:, 3] - drop
    letter = (tall >= 0.55 * height) | ((tall >= 0.35 * height) & (width >= 0.6 * height))
    letter &= (tall >= 0.8 * height) | (width >= 0.6 * tall)  # else a quotation mark
    reach = boxes[:, 2] + np.clip(1.4 * tall, MARK * height, 8 * height)
    above = np.where(letter, np.maximum(0.6 * tall, 0.15 * height), 0.15 * height)
    pairs = neighbours(boxes[:, 0], reach, y0 - above, y1 + above, 1.5 * height)
    if pairs is None:  # drop the specks first; there cannot be that many letters
        label = np.full(len(boxes), NONE)
        if letter.all():
            return [], label
        segments, label[letter] = _segments(*_only(letter, boxes, runs, owner), height, slope)
        return segments, label
    i, j = pairs  # j is right of i
    # Points, quotes and hyphens belong to the nearest letter: they widen it, but do not define a line.
    gap = boxes[j, 0] - boxes[i, 2]
    near = (letter[i] != letter[j]) & (gap <= MARK * height)
    small, large, away = np.where(letter[i], j, i)[near], np.where(letter[i], i, j)[near], gap[near]
    centre = (y0[small] + y1[small]) / 2
    inside = (centre > y0[large] - 0.6 * tall[large]) & (centre < y1[large] + 0.4 * tall[large])
    small, large, away, centre = small[inside], large[inside], away[inside], centre[inside]
    close = away <= 0.8 * height
    outside = np.maximum(np.maximum(y0[large] - centre, centre - y1[large]), 0)
    away = np.maximum(away, 0) + 2 * outside  # a point is of the letter before it, not of that below
    from_x, to_x = boxes[:, 0].copy(), boxes[:, 2].copy()
    np.minimum.at(from_x, large[close], boxes[small[close], 0])
    np.maximum.at(to_x, large[close], boxes[small[close], 2])

    least = np.minimum(tall[i], tall[j])
    shared = np.minimum(y1[i], y1[j]) - np.maximum(y0[i], y0[j])
    alike = np.maximum(tall[i], tall[j]) < 3.2 * least
    # Wider than a stretched word space, narrower than a gutter; headings have larger spaces.
    space = np.where(least < 1.8 * height, 1.65 * height, 1.3 * least)
    beside = letter[i] & letter[j] & alike & (shared >= 0.45 * least) & (from_x[j] - to_x[i] <= space)
    if not letter.any():
        return [], np.full(len(boxes), NONE)
    level = np.abs(y1[i] - y1[j]) < 0.3 * height
    dots = ~letter[i] & ~letter[j] & level & (gap <= 1.6 * height)
    chain = joined(len(boxes), i[dots], j[dots])
    leader = ~letter & (np.bincount(chain)[chain] >= 4)  # the dots of a table of contents tie its row together
    tied = ((leader[i] & letter[j]) | (letter[i] & leader[j])) & level & (gap <= 2.2 * height)
    edge = beside | tied | (dots & leader[i])
    label = joined(len(boxes), i[edge], j[edge])
    letters = np.bincount(label, letter)
    known = letters > 0
    if known.sum() > MAX_SEGMENTS:
        known[np.argsort(-letters, kind="stable")[MAX_SEGMENTS:]] = False
    label = np.where(known[label], np.cumsum(known)[label] - 1, -1)
    letter = letter & (label >= 0)
    count = int(known.sum())
    closest = np.argsort(-away)
    closest = closest[label[small[closest]] < 0]
    label[small[closest]] = label[large[closest]]
    for _ in range(3):  # the other marks of """ and ...
        for here, there in ((i[dots], j[dots]), (j[dots], i[dots])):
            follows = (label[here] >= 0) & (label[there] < 0)
            label[there[follows]] = label[here[follows]]
    return _measure(boxes, runs, owner, label, letter, drop, count, slope), label


def _measure(boxes, runs, owner, label, letter, drop, count: int, slope: float) -> list[Segment]:
    """Box, baseline and x-height of each labelled set of components."""
    known = np.flatnonzero(label >= 0)
    extent = np.tile(np.array([2**30, 2**30, 0, 0]), (count, 1))
    for side, pick in ((0, np.minimum), (1, np.minimum), (2, np.maximum), (3, np.maximum)):
        pick.at(extent[:, side], label[known], boxes[known, side])
    letters = np.flatnonzero(letter)
    number = np.bincount(label[letters], minlength=count)
    top, bottom = np.full(count, 2**30), np.full(count, -(2**30))
    np.minimum.at(top, label[letters], boxes[letters, 1] - drop[letters])
    np.maximum.at(bottom, label[letters], boxes[letters, 3] - drop[letters])
    foot = middle_of((boxes[:, 3] - drop)[letters], label[letters], count)
    wide, high = (middle_of((boxes[:, k + 2] - boxes[:, k])[letters], label[letters], count) for k in (0, 1))
    start = np.concatenate([[0], np.cumsum(bottom - top + 1)])
    of_letter = letter[owner]
    row, segment = runs[of_letter, 0] - drop[owner[of_letter]], label[owner[of_letter]]
    ink = np.bincount(start[segment] + row - top[segment], runs[of_letter, 2] - runs[of_letter, 1], start[-1])
    bands = [_band(ink[a:b]) for a, b in zip(start, start[1:], strict=False)]
    upper, lower, level = (np.array(column) for column in zip(*bands, strict=True))
    size, base = lower - upper, top + lower
    stroke = size < 0.4 * high  # one stroke of few glyphs outweighs the rest, as the foot of 2
    stroke |= (size < 0.62 * high) & (number < 4) & (wide < 1.2 * high)
    size, base, level = np.where(stroke, high, size), np.where(stroke, foot, base), level | stroke
    tall = (boxes[:, 3] - boxes[:, 1])[letters]
    odd = np.abs(tall - high[label[letters]]) > 0.12 * high[label[letters]]
    same = np.bincount(label[letters[odd]], minlength=count) <= 0.1 * number
    same &= (size > 0.6 * high) & (wide < 1.3 * high)
    size, base, level = np.where(same, high, size), np.where(same, foot, base), level | same
    # Among many capitals and ascenders the band is theirs; the letters clearly lower than it are the x.
    band, below = size[label[letters]], base[label[letters]] - (boxes[:, 3] - drop)[letters]
    low = (tall < 0.82 * band) & (tall > 0.6 * band) & (np.abs(below) < 0.15 * band + 1)
    enough = np.bincount(label[letters[low]], minlength=count) >= np.maximum(2, 0.2 * number)
    low &= enough[label[letters]]
    if low.any():
        size[enough] = middle_of(tall[low], label[letters[low]], count)[enough]
        level &= ~enough
    # A line of code may be mostly brackets and capitals: letters of the page's x-height tell it from a heading.
    page = _weighted_median(size, number)
    off = np.minimum(np.abs(below), np.abs(foot[label[letters]] - (boxes[:, 3] - drop)[letters]))
    usual = (np.abs(tall - page) < 0.1 * page) & (off < 0.2 * page)
    usual = np.bincount(label[letters[usual]], minlength=count) >= np.maximum(2, 0.05 * number)
    usual &= (size > 1.15 * page) & (size < 2 * page)
    size, level = np.where(usual, page, size), level & ~usual
    capitals = level & ((number > 3) | (wide < 0.77 * size))
    return [
        Segment(
            extent[k, 0] + top[k] * slope, extent[k, 2] + top[k] * slope, float(base[k]),
            float(size[k]) * (CAPITAL if capitals[k] else 1), int(number[k]), extent[k], float(size[k]) * level[k],
            k,
        )
        for k in range(count)
    ]  # fmt: skip


def _settle(segments: list[Segment]) -> list[Segment]:
    """Decide between capitals and lower case, where a segment alone is ambiguous, by its row, else by the page."""
    sure = [s for s in segments if not s.level]
    if sum(s.letters for s in sure) < 8:
        return segments
    page = segments_size(sure)
    bases, sizes = np.array([s.base for s in sure]), np.array([s.size for s in sure])
    for segment in segments:
        if segment.level:
            beside = sizes[np.abs(bases - segment.base) < 0.25 * segment.level]
            usual = np.median(beside) if len(beside) else page
            segment.size = segment.level * (CAPITAL if segment.level > usual * CAPITAL**-0.5 else 1)
    return segments


def _credible(segments: list[Segment]) -> list[Segment]:
    """Drop fragments of photographs: where sizes hardly agree, keep only segments that look like words."""
    if not segments:
        return segments
    sizes, letters = np.array([s.size for s in segments]), np.array([s.letters for s in segments])
    alike = np.abs(np.log(sizes / segments_size(segments))) < 0.4
    if letters[alike].sum() > 0.5 * letters.sum():
        return segments
    return [s for s in segments if s.letters >= 4]


def _look_inside(grey: np.ndarray, mask: np.ndarray, boxes: np.ndarray, areas: np.ndarray, height: float) -> bool:
    """Correct the ink in solid areas, as paper of another colour or photographs; returns whether there are any."""
    width, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    solid = (width > 6 * height) & (tall > 1.3 * height) | (tall > 6 * height) & (width > 4 * height)
    big = (width > 6 * height) & (tall > 6 * height)
    solid &= big | (areas > 0.4 * width * tall)
    page = np.median(grey[::7, ::7])
    for k in np.flatnonzero(solid)[np.argsort(-areas[solid])][:40]:
        x0, y0, x1, y1 = boxes[k]
        part, ink = grey[y0:y1, x0:x1].astype(np.float32), mask[y0:y1, x0:x1]
        if areas[k] < 0.4 * width[k] * tall[k] and (np.abs(part[::2, ::2] - page) > 40).mean() < 0.35:
            continue  # a frame or a drawing, not a photograph
        own = np.median(part[ink]) if ink.any() else page
        paper = own if ink.any() and (np.abs(part[ink] - own) < 14).mean() > 0.6 else page
        away = np.abs(part - paper)
        mask[y0:y1, x0:x1] = away > max(30.0, 0.4 * float(np.quantile(away[::2, ::2], 0.995)))
    return bool(solid.any())


def _not_text(boxes: np.ndarray, areas: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Components [C] to leave out (rules, bars, frames, contents of pictures) and the picture boxes [n, 4]."""
    width, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    short, long = np.minimum(width, tall), np.maximum(width, tall)
    fill = areas / (width * tall)
    rule = (long > 3.2 * height) & ((short < 0.5 * height) | ((fill > 0.75) & (long > 8 * short)))
    rule |= (tall > 3 * height) & (width < 0.25 * tall)
    big = (tall > 6 * height) & (width > 6 * height)
    pictures = np.flatnonzero(big & (fill >= 0.15))
    pictures = pictures[np.argsort(-(width * tall)[pictures], kind="stable")[:MAX_PICTURES]]
    low, high = boxes[pictures, :2], boxes[pictures, 2:]
    holds = (low[:, None] <= low).all(axis=2) & (high[:, None] >= high).all(axis=2)
    outer = boxes[np.sort(pictures[~np.triu(holds, 1).any(axis=0)])]  # a picture is never inside a smaller one
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    inside = np.zeros(len(boxes), bool)
    for x0, y0, x1, y1 in outer + 0.7 * height * np.array([-1, -1, 1, 1]):
        inside |= (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
    return rule | big | inside | (tall < 2) | dotted(boxes, height), outer


class Ink:
    """The ink mask of an image, computed once for all measurements.

    ``most``: limit for the pixels, for a quick look: less than ``WORK_PIXELS``, and small images are not enlarged.

    Attributes:
        grey: [H, W] bytes at the working size; ``scale``: working size over image size.
        mask: [H, W], true where there is ink.
        faint: [H, W], also where it is faint beside darker ink.
    """

    def __init__(self, image: Image.Image, most: int | None = None):
        self.grey, self.scale = _working(image, most)
        self.mask, self.faint = _ink(self.grey)
        if most is None:
            self._join_dots()

    def _join_dots(self) -> None:
        """Take the ink of the blurred image where letters are made of dots, as a needle printer prints them."""
        _, _, boxes, areas = self.components
        typical = typical_height(boxes, areas)
        if typical is None or np.median(boxes[:, 3] - boxes[:, 1]) > DOTS * typical:
            return
        blurred = np.asarray(Image.fromarray(self.grey).filter(ImageFilter.GaussianBlur(1.5)))
        mask, faint = _ink(blurred)
        components = label_components(mask)
        if (typical_height(*components[2:]) or 0.0) > GROWN * typical:
            self.grey, self.mask, self.faint, self.components = blurred, mask, faint, components

    @cached_property
    def components(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``label_components`` of the mask."""
        return label_components(self.mask)


def analyse(ink: Ink) -> Analysis | None:
    """Segments of text lines and pictures; None where there is no text."""
    grey, scale = ink.grey, ink.scale
    runs, owner, boxes, areas = ink.components
    height = typical_height(boxes, areas)
    if height is None:
        return None
    mask = ink.mask.copy()
    if _look_inside(grey, mask, boxes, areas, height):
        runs, owner, boxes, areas = label_components(mask)
        height = typical_height(boxes, areas) or height
    owners = np.full(mask.shape, NONE, np.int16)
    ruled = rules(mask, height) | rules(ink.faint, height)
    if ruled.any():
        owners[ruled] = RULE
        runs, owner, boxes, areas = label_components(mask & ~ruled)
        height = typical_height(boxes, areas) or height
    drop, pictures = _not_text(boxes, areas, height)
    drop |= frame_sides(boxes, ruled, height) | crumbs(boxes, ruled, height)
    _paint(owners, runs, np.where(drop & (boxes[:, 3] - boxes[:, 1] >= 2), RULE, NONE)[owner])
    boxes, runs, owner = _only(~drop, boxes, runs, owner)
    tall = boxes[:, 3] - boxes[:, 1]
    slope = tilt(boxes[(tall > 0.55 * height) & (tall < 3 * height)], height)
    segments, label = _segments(boxes, runs, owner, height, slope) if len(boxes) else ([], np.zeros(0, int))
    _paint(owners, runs, label[owner])
    segments = _credible([s for s in _settle(segments) if s.size >= SMALLEST])
    return Analysis(scale, slope, segments, pictures, owners)


def _paint(owners: np.ndarray, runs: np.ndarray, values: np.ndarray) -> None:
    """Write the value of each run that is not ``NONE`` into the image of owners."""
    known = values != NONE
    row, start, stop = runs[known].T
    item, column = expand(start, stop)
    owners[row[item], column] = values[known][item]


def _weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    order = np.argsort(values)
    share = np.cumsum(np.asarray(weights, float)[order])
    return float(np.asarray(values)[order][np.searchsorted(share, share[-1] / 2)])


def segments_size(segments: Sequence[Segment]) -> float:
    return _weighted_median([s.size for s in segments], [s.letters for s in segments])
