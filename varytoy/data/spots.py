"""Spotting: text lines with their boxes, as they are written in samples and in model text.

Two dialects. ``lines``: a text line on each line, after its box, integers 0-1000 of the image's width and height as
everywhere in varytoy: ``[091, 040, 520, 063] Invoice No. 17``. ``tokens``: KOSMOS-2.5's grammar (arXiv 2309.11419,
section 2.2) with location tokens that count bins of the image's width and height instead of pixels:
``<bbox><x_91><y_40><x_520><y_63></bbox>Invoice No. 17``, one after the other.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from varytoy.data.boxes import SCALE, Box, format_box, on_grid

DIALECTS = ("lines", "tokens")
BINS = 1000
_LINE = re.compile(r"\[\s*" + r"\s*,\s*".join([r"(\d{1,5})"] * 4) + r"\s*\]\s*(.*)")
_TOKENS = re.compile(r"<x_(\d{1,5})><y_(\d{1,5})><x_(\d{1,5})><y_(\d{1,5})></bbox>(.*)", re.DOTALL)
OPEN, CLOSE = "<bbox>", "</bbox>"
CELL = " | "
"""Between texts beside each other."""
UNANSWERABLE = "Unanswerable"
"""The answer to a question that a text does not answer."""


@dataclass
class Spots:
    """What was read from a model's text.

    Attributes:
        lines: the text lines in order; a box's label is the text.
        dropped: how many were left out, by reason: ``malformed`` (no box, or no words after it), ``degenerate`` (a box
            without area), ``out_of_range`` (a number beyond the image), ``truncated`` (the last one, cut off).
    """

    lines: list[Box] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)


def format_spots(lines: Iterable[Box], dialect: str = "lines", bins: int = BINS) -> str:
    """The text of lines, whose labels are their texts; lines without text are left out. ``bins``: of the location
    tokens along each side.

    Raises:
        ValueError: an unknown dialect, or a text that cannot be written in it.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"no dialect '{dialect}' of spotting; there are {', '.join(DIALECTS)}")
    written = [line for line in lines if line.label]
    if dialect == "lines":
        return "\n".join(f"{format_box(line.xyxy)} {line.label}" for line in written)
    if any(OPEN in line.label for line in written):
        raise ValueError(f"a text with {OPEN} cannot be written in location tokens: use the dialect 'lines'")
    return "".join(f"{OPEN}{_in_tokens(line, bins)}{CLOSE}{line.label}" for line in written)


def text_in_rows(lines: Iterable[Box]) -> str:
    """Text lines in reading order as a text in which those beside each other share a row, separated by ``CELL``."""
    rows: list[list[Box]] = []
    for line in lines:
        last = rows[-1][-1].xyxy if rows else (0, 0, 0, 0)
        beside = last[1] < (line.xyxy[1] + line.xyxy[3]) / 2 < last[3] and line.xyxy[0] >= last[0]
        if beside:
            rows[-1].append(line)
        else:
            rows.append([line])
    return "\n".join(CELL.join(line.label for line in row) for row in rows)


def locations(bins: int) -> list[int]:
    """The places from 0 to 999 of location tokens for a model that tells so many bins: the middle of each bin, on the
    scale of ``BINS``, as ``data.bins`` writes the sides of boxes."""
    return sorted({min(on_grid([side] * 4, bins)[0], BINS - 1) for side in range(SCALE)})


def stands_in(answer: str, text: str) -> bool:
    """Whether an answer stands in a text in rows, as whole words, without regard to case."""
    words, wanted = text.replace(CELL, " ").casefold().split(), answer.casefold().split()
    starts = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in starts)


def pieces_of(text: str, longest: int, shared: int = 0) -> list[str]:
    """A text in rows in pieces of whole rows, of ``longest`` characters if a row is not longer. ``shared``: rows that
    two pieces have in common."""
    rows, pieces, start = text.split("\n") if text else [], [], 0
    while start < len(rows):
        end, length = start + 1, len(rows[start])
        while end < len(rows) and length + 1 + len(rows[end]) <= longest:
            length += 1 + len(rows[end])
            end += 1
        pieces.append("\n".join(rows[start:end]))
        start = max(end - shared, start + 1) if end < len(rows) else end
    return pieces


def _in_tokens(line: Box, bins: int) -> str:
    places = [min(side * bins // SCALE, bins - 1) for side in line.xyxy]
    return "".join(f"<{axis}_{place}>" for axis, place in zip("xyxy", places, strict=True))


def parse_spots(text: str, bins: int = BINS, pixels: tuple[int, int] | None = None) -> Spots:
    """Read a model's text in either dialect.

    Args:
        bins: of the location tokens along each side.
        pixels: (width, height) of an image whose pixels the location tokens count instead, as KOSMOS-2.5's do.
    """
    if OPEN in text:
        before, *parts = text.split(OPEN)
        found = [_TOKENS.fullmatch(part) for part in parts]
        dropped = Counter(malformed=1) if before.strip() else Counter[str]()
        scales, last = pixels or (bins, bins), pixels or (bins - 1, bins - 1)
    else:
        parts = [part for part in text.splitlines() if part.strip()]
        found = [_LINE.fullmatch(part.strip()) for part in parts]
        dropped, scales, last = Counter[str](), (SCALE, SCALE), (SCALE, SCALE)
    spots = Spots()
    for number, match in enumerate(found, 1):
        words = " ".join(match[5].split()) if match else ""
        sides = [int(side) for side in match.groups()[:4]] if match else []
        if not words:
            cut = number == len(found) and (match is not None or parts[-1].lstrip()[:1] in "[<")
            dropped["truncated" if cut else "malformed"] += 1
        elif any(side > end for side, end in zip(sides, last * 2, strict=True)):
            dropped["out_of_range"] += 1
        elif sides[0] >= sides[2] or sides[1] >= sides[3]:
            dropped["degenerate"] += 1
        else:
            x1, y1, x2, y2 = (round(side * SCALE / scale) for side, scale in zip(sides, scales * 2, strict=True))
            spots.lines.append(Box(words, (x1, y1, x2, y2)))
    spots.dropped = dict(dropped)
    return spots
