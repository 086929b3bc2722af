"""Page segmentation without a model: a recursive cut at white space groups line segments into columns, paragraphs and
blocks of a few lines, in reading order.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from varytoy.layout.ink import Analysis, Segment, segments_size, text_mask

WIDEST_LINE, PIECE = 125, 65
"""In x-heights: longer lines are cut at word spaces into pieces of about ``PIECE``. Models that read blocks lose track
in long lines; lines of ordinary pages have up to 110."""
MARGIN = 6
"""Pixels of paper around the crop of a block."""
MAX_VISITS = 400_000  # most segments x gutters tried; the densest pages have 130,000


@dataclass(frozen=True)
class Block:
    """A block of text lines, or a picture.

    ``box``: xyxy in pixels of the page. ``text_size``: x-height in the same pixels, 0 for a picture. ``skew``: degrees
    by which the lines slope down to the right. ``paragraph_start``: false if the block continues a paragraph that was
    split for its length. ``line_start``: false if it continues a line that was split for its length. ``rows``: boxes of
    the lines from top to bottom, xyxy.
    """

    box: tuple[int, int, int, int]
    text_size: float
    lines: int
    paragraph_start: bool = True
    kind: str = "text"
    skew: float = 0.0
    line_start: bool = True
    rows: tuple[tuple[int, int, int, int], ...] = ()

    def scale_to(self, text_size: float) -> float:
        """Factor that resizes it to the x-height ``text_size``; at most 4."""
        return min(4.0, text_size / self.text_size) if self.text_size else 1.0

    def page_x(self, x: float, text_size: float) -> float:
        """From x in its crop (``crop_block``) to x on the page."""
        return max(0, self.box[0] - self._padding) + (x - MARGIN) / self.scale_to(text_size)

    def crop_point(self, x: float, y: float, text_size: float) -> tuple[float, float]:
        """From a point on the page to one in its crop; of a block that is not skewed."""
        left, top = (max(0, side - self._padding) for side in self.box[:2])
        scale = self.scale_to(text_size)
        return (x - left) * scale + MARGIN, (y - top) * scale + MARGIN

    @property
    def _padding(self) -> int:
        return 1 if self.text_size < 8 else 2


Line = list[Segment]


def _same_row(lead: Segment, other: Segment) -> bool:
    """Whether a segment belongs to the line of a longer one."""
    if lead.picture or other.picture:
        return False
    reach = 1.0 if other.x1 - other.x0 < 4 * lead.size else 0.3  # short ones may be superscripts
    return lead.top - reach * lead.size < other.middle < lead.base + 0.3 * lead.size


def _lines(segments: Sequence[Segment]) -> list[Line]:
    """Segments that share a row, from top to bottom; within a line from left to right."""
    lines: list[Line] = []
    leads: list[Segment] = []  # the longest segment of each line
    step = max(sum(s.size for s in segments) / max(len(segments), 1), 1.0)
    candidates: dict[int, list[int]] = {}  # lines that a segment may belong to, by vertical position
    # Long ones first: a quotation mark or a superscript says little about the position of its line.
    for segment in sorted(segments, key=lambda s: s.x0 - s.x1):
        middle, nearest, smallest = segment.middle, -1, np.inf
        for k in candidates.get(int(middle // step), ()):
            distance = abs(leads[k].middle - middle)
            if distance < smallest and _same_row(leads[k], segment):
                nearest, smallest = k, distance
        if nearest >= 0:
            lines[nearest].append(segment)
            continue
        if not segment.picture:
            low, high = segment.top - segment.size, segment.base + 0.3 * segment.size
            for row in range(int(low // step), int(high // step) + 1):
                candidates.setdefault(row, []).append(len(lines))
        lines.append([segment])
        leads.append(segment)
    order = sorted(range(len(lines)), key=lambda k: leads[k].middle)
    return [sorted(lines[k], key=lambda s: s.x0) for k in order]


def _span(line: Line) -> tuple[float, float]:
    return min(s.x0 for s in line), max(s.x1 for s in line)


def _are_columns(left: list[Segment], right: list[Segment], unit: float) -> bool:
    """Whether the two sides of a gutter are columns, and not cells that are read row by row (table, contents)."""
    if any(s.picture and s.base - s.top > 6 * unit for s in left + right):
        return True
    if max(len(left), len(right)) < 3:
        return False
    sides = [_lines(side) for side in (left, right)]
    few, many = sorted(len(side) for side in sides)
    gutter = min(s.x0 for s in right) - max(s.x1 for s in left)
    if many < 3:
        return False
    fills, widths = [], []
    for side in sides:
        spans = np.array([_span(line) for line in side])
        extent = spans[:, 1].max() - spans[:, 0].min()
        width = float(np.quantile([sum(s.x1 - s.x0 for s in line) for line in side], 0.65))
        fills.append(width / extent)
        widths.append(width)
    bases = [np.array([max(line, key=lambda s: s.letters).base for line in side]) for side in sides]
    if any(len(b) > 1 and np.median(np.diff(b)) > 7 * unit for b in bases):
        return False
    low, high = max(b.min() for b in bases) - unit, min(b.max() for b in bases) + unit
    shorter, longer = sorted((b[(b >= low) & (b <= high)] for b in bases), key=len)
    aligned = float((np.abs(shorter[:, None] - longer).min(axis=1) < 0.4 * unit).mean()) if len(shorter) else 0.0
    if aligned < 0.5 and len(shorter) >= 2:
        return min(widths) > 4 * unit
    enough = few >= 4 or (few >= 2 and many >= 6 and gutter > 2.2 * unit)
    return enough and min(widths) > 13 * unit and min(fills) > 0.55 and len(shorter) > 0.55 * len(longer)


def _stretches(segments: list[Segment], x: float) -> list[tuple[list, list, list]]:
    """From top to bottom: the (left, right) segments of a gutter at ``x`` and the rows across it that end them.

    ``segments``: by their middles.
    """
    parts: list[tuple[list, list, list]] = [([], [], [])]
    over = [s for s in segments if s.x0 < x < s.x1]
    rows = sorted((s.middle - 0.6 * s.size, s.middle + 0.6 * s.size) for s in over)
    row, end = 0, -np.inf  # the lowest point of the rows across that start above the segment
    for segment in segments:
        middle = segment.middle
        while row < len(rows) and rows[row][0] <= middle:
            end = max(end, rows[row][1])
            row += 1
        across = segment.x0 < x < segment.x1 or (middle <= end and not segment.picture)
        if parts[-1][2]:
            if not across:
                last = parts[-1][2][-1]  # the short last line of a paragraph that goes across
                across = segment.base - last.base < 3.4 * last.size and abs(segment.x0 - last.x0) < last.size
                across = across and 0.85 < segment.size / last.size < 1.18
            if not across:
                parts.append(([], [], []))
        parts[-1][2 if across else int(segment.x0 >= x)].append(segment)
    return parts


def _gutters(segments: list[Segment], unit: float) -> list[float]:
    """Middles of the x ranges that few segments cross."""
    x0, x1 = np.sort([s.x0 for s in segments]), np.sort([s.x1 for s in segments])
    positions = np.arange(x0[0] + 2 * unit, x1[-1] - 2 * unit, 0.25 * unit)
    if len(positions) < 3:
        return []
    crossed = np.searchsorted(x0, positions, "left") - np.searchsorted(x1, positions, "right")
    valley = (crossed[1:-1] <= crossed[:-2]) & (crossed[1:-1] <= crossed[2:]) & (crossed[1:-1] <= 0.4 * crossed.max())
    padded = np.pad(valley, 2)
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [float(positions[(a + b) // 2]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


class _Cutter:
    """The recursive cut into columns. ``cancel``: when set, the rest is read row by row.

    Textures have arbitrarily many gutters, so the work is bounded; beyond the bound, segments are read row by row.
    """

    def __init__(self, unit: float, cancel: threading.Event | None = None):
        self.unit, self.cancel, self.left = unit, cancel, MAX_VISITS

    def columns(self, segments: list[Segment]) -> list[list[Segment]]:
        """Groups in reading order; each group is one column of rows."""
        best_score, parts = 0, []
        ordered = sorted(segments, key=lambda s: s.middle)
        for x in _gutters(segments, self.unit):
            self.left -= len(segments)
            if self.left < 0 or (self.cancel is not None and self.cancel.is_set()):
                break
            stretches = _stretches(ordered, x)
            sides = [(a, b) for a, b, _ in stretches if a and b]
            score = sum(len(a) + len(b) for a, b in sides)
            for a, b in sides:
                if score > best_score and not _are_columns(a, b, self.unit):
                    score -= len(a) + len(b)
            if score > best_score:
                best_score, parts = score, stretches
        if not best_score:
            return [segments]
        groups: list[list[Segment]] = []
        rest: list[Segment] = []
        for left, right, across in parts:
            if left and right and _are_columns(left, right, self.unit):
                if rest:
                    groups += self.columns(rest)
                groups += self.columns(left) + self.columns(right)
                rest = list(across)
            else:
                rest += left + right + across
        return groups + (self.columns(rest) if rest else [])


def _size_of(line: Line) -> float:
    return segments_size(line) if sum(s.letters for s in line) else 0.0


def _paragraphs(group: list[Segment], pitch: float, unit: float) -> list[list[Line]]:
    """Lines of one column, split at wider gaps, changes of text size, indents and pictures."""
    lines = _lines(group)
    spans = np.array([_span(line) for line in lines])
    sizes = np.array([_size_of(line) for line in lines])
    bases = np.array([max(line, key=lambda s: s.letters).base for line in lines])
    steps = np.diff(bases)
    regular = steps[(steps > 1.9 * unit) & (steps < 7 * sizes[1:]) & (np.abs(np.diff(sizes)) < 0.15 * sizes[1:])]
    pitch = float(np.quantile(regular, 0.15)) if len(regular) >= 3 else pitch
    edge, width = spans[:, 0].min(), spans[:, 1].max() - spans[:, 0].min()
    paragraphs = [[lines[0]]]
    for i in range(1, len(lines)):
        a, b = sizes[i - 1], sizes[i]
        letters = [sum(s.letters for s in line) for line in (lines[i - 1], lines[i])]
        resized = max(a, b) > 1.25 * min(a, b) and min(letters) >= 3
        gap = steps[i - 1] > 1.25 * pitch * max(1.0, min(a, b) / unit)
        disjoint = min(spans[i, 1], spans[i - 1, 1]) + 6 * unit < max(spans[i, 0], spans[i - 1, 0])
        offset = spans[i, 0] - edge
        indent = 0.8 * unit < offset < 5 * unit and spans[i, 1] - edge > 0.85 * width
        indent &= spans[i - 1, 0] - edge < 0.5 * unit and i + 1 < len(lines) and spans[i + 1, 0] - edge < 0.5 * unit
        if resized or gap or disjoint or indent or min(letters) == 0:
            paragraphs.append([])
        paragraphs[-1].append(lines[i])
    return paragraphs


def _pitch(lines: list[Line], unit: float) -> float:
    """The typical baseline distance on the page."""
    steps = []
    for above, below in zip(lines, lines[1:], strict=False):
        step = below[0].base - above[0].base
        if 1.4 * unit < step < 4.5 * unit:
            steps.append(step)
    return float(np.median(steps)) if len(steps) >= 2 else 2.6 * unit


def _block(lines: list[Line], analysis: Analysis, start: bool, size: tuple[int, int]) -> Block:
    parts = [segment for line in lines for segment in line]
    box = _extent(parts, analysis.scale, size)
    if parts[0].picture:
        return Block(box, 0.0, 0, True, "picture")
    skew = float(np.degrees(np.arctan(analysis.skew)))
    rows = tuple(_extent(line, analysis.scale, size) for line in lines)
    return Block(box, segments_size(parts) / analysis.scale, len(lines), start, "text", skew, rows=rows)


def _extent(segments: Sequence[Segment], scale: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """xyxy in pixels of the page of ``size``."""
    boxes = np.stack([segment.box for segment in segments])
    x0, y0 = (max(0, int(v)) for v in boxes[:, :2].min(axis=0) / scale)
    x1, y1 = (min(limit, int(np.ceil(v))) for v, limit in zip(boxes[:, 2:].max(axis=0) / scale, size, strict=True))
    return x0, y0, x1, y1


def cut(image: Image.Image, analysis: Analysis, max_lines: int, cancel: threading.Event | None = None) -> list[Block]:
    """The blocks of an analysed page in reading order; each holds at most ``max_lines`` lines."""
    segments = list(analysis.segments)
    unit = segments_size(segments) if segments else 10.0
    for box in analysis.pictures:
        drop = (box[0] + box[2]) / 2 * analysis.skew
        segments.append(Segment(box[0], box[2], box[3] - drop, box[3] - box[1], 0, box))
    blocks = []
    groups = _Cutter(unit, cancel).columns(segments) if segments else []
    pitch = _pitch([line for group in groups for line in _lines(group)], unit)
    for group in groups:
        for paragraph in _paragraphs(group, pitch, unit):
            count = -(-len(paragraph) // max_lines)
            cuts = [round(k * len(paragraph) / count) for k in range(count + 1)]
            for a, b in zip(cuts, cuts[1:], strict=False):
                block = _block(paragraph[a:b], analysis, a == 0, image.size)
                if block.box[2] - block.box[0] <= WIDEST_LINE * block.text_size or block.kind != "text":
                    blocks.append(block)
                    continue
                for number, line in enumerate(paragraph[a:b]):
                    start = block.paragraph_start and number == 0
                    blocks += _pieces(image, _block([line], analysis, start, image.size))
    return blocks


def _pieces(image: Image.Image, line: Block) -> list[Block]:
    """Cut a line at the word spaces nearest to equal parts."""
    x0, y0, x1, y1 = line.box
    count = -(-(x1 - x0) // max(round(PIECE * line.text_size), 1))
    ink = text_mask(image.crop(line.box)).any(axis=0)
    edges = np.flatnonzero(np.diff(np.pad(~ink, 1).astype(int)))
    gaps = np.array([(a + b) / 2 for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 0.4 * line.text_size])
    cuts = [x0, x1]
    if len(gaps):
        targets = np.arange(1, count) * (x1 - x0) / count
        cuts = sorted({x0, x1, *(x0 + int(gaps[np.abs(gaps - target).argmin()]) for target in targets)})
    pairs = list(zip(cuts, cuts[1:], strict=False))
    return [
        replace(
            line,
            box=(a, y0, b, y1),
            paragraph_start=line.paragraph_start and a == x0,
            line_start=a == x0,
            rows=((a, y0, b, y1),),
        )
        for a, b in pairs
    ]


# ---- cropping and joining -------------------------------------------------------------------------------------------


def crop_block(image: Image.Image, block: Block, text_size: float = 8.0, margin: int = MARGIN) -> Image.Image:
    """The block, deskewed and scaled to the x-height ``text_size``, with a margin of ``margin`` pixels of paper.

    It is enlarged at most 4 times; a picture keeps its size.
    """
    scale = block.scale_to(text_size)
    x0, y0, x1, y1 = block.box
    padding = block._padding
    box = (max(0, x0 - padding), max(0, y0 - padding), min(image.width, x1 + padding), min(image.height, y1 + padding))
    crop = image.crop(box).convert("RGB")
    pixels = np.asarray(crop)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper = tuple(int(v) for v in np.median(border, axis=0))
    if abs(block.skew) > 0.15:
        crop = _straight(crop, block.skew, paper)
    size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    framed = Image.new("RGB", (size[0] + 2 * margin, size[1] + 2 * margin), paper)
    framed.paste(crop.resize(size, Image.LANCZOS), (margin, margin))
    return framed


def _straight(crop: Image.Image, skew: float, paper: tuple[int, int, int]) -> Image.Image:
    """Deskewed; the triangles above and below, where neighbouring lines show, are cut off."""
    drop = abs(np.tan(np.radians(skew))) * crop.width
    rotated = crop.rotate(skew, Image.BICUBIC, fillcolor=paper)
    cut = min(int(drop / 2), crop.height // 3)
    return rotated.crop((0, cut, crop.width, crop.height - cut))


def join_blocks(texts: Sequence[str], blocks: Sequence[Block]) -> str:
    """Join texts: a blank line before each paragraph, a newline where a paragraph continues, a space where a line does;
    empty texts are left out."""
    joined = ""
    for text, block in zip(texts, blocks, strict=True):
        if text.strip():
            separator = "\n\n" if block.paragraph_start else "\n" if block.line_start else " "
            joined += separator * bool(joined) + text.strip("\n")
    return joined
