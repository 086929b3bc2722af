"""Strips: the blocks of a document as pieces of a column's width, which data_tools.render.layout stacks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from data_tools.render.document import (
    Block,
    Code,
    Figure,
    Formula,
    Heading,
    Items,
    Paragraph,
    Run,
    Table,
    Word,
    words_of,
)
from data_tools.render.glyphs import Style, face
from data_tools.render.sheet import Placed, Sheet
from data_tools.render.themes import Theme

_HEADINGS = {1: 1.7, 2: 1.36, 3: 1.14}
SMALL = 0.85
"""Size of captions, foot notes, headers and footers, of the body's."""

_LEAST_FORMULA = 13
"""Size of a formula below which Matplotlib's letters cannot be read, pixels."""


class DoesNotFit(ValueError):
    """A block that is wider than the column."""


@dataclass
class Strip:
    """A piece of a column that is not divided. Places are pixels from its left upper corner.

    Attributes:
        taken: words or lines of the block up to the end of the strip, as ``document.cut`` counts them.
        gap: room above it, unless a column begins with it.
        stays: whether what follows must stand below it in the same column.
    """

    height: float
    lines: list[tuple[list[Placed], str]] = field(default_factory=list)
    shapes: list[tuple[str, tuple[float, float, float, float], tuple, int]] = field(default_factory=list)
    pictures: list[tuple[Image.Image, float, float]] = field(default_factory=list)
    taken: int = 0
    gap: float = 0.0
    stays: bool = False
    width: float = 0.0
    """Of a table; other strips are as wide as their column."""

    def put(self, sheet: Sheet, x: float, y: float) -> None:
        """Print it with its corner at a point."""
        left, top = round(x), round(y)
        for kind, (x1, y1, x2, y2), colour, width in self.shapes:
            if kind == "fill":
                sheet.box(left + x1, top + y1, left + x2, top + y2, colour)
            else:
                sheet.rule(left + x1, top + y1, left + x2, top + y2, colour, width)
        for picture, dx, dy in self.pictures:
            sheet.paste(picture, left + dx, top + dy)
        for words, joint in self.lines:
            sheet.line([(text, left + dx, top + dy, style, space) for text, dx, dy, style, space in words], joint)


def strips_of(block: Block, theme: Theme, width: float) -> list[Strip]:
    """The strips of a block in a column. Raises DoesNotFit."""
    if isinstance(block, Heading):
        return [_heading(block, theme, width)]
    if isinstance(block, Paragraph):
        return _paragraph(block, theme, width)
    if isinstance(block, Items):
        return _items(block, theme, width)
    if isinstance(block, Code):
        return _code(block, theme, width)
    if isinstance(block, Table):
        from data_tools.render.table_strip import table_strip

        return [table_strip(block, theme, width)]
    if isinstance(block, Formula):
        return [_formula(block, theme, width)]
    return [_figure(block, theme, width)]


def base_line(pitch: float, size: float) -> int:
    """Where letters of a size stand in a line."""
    return round(0.5 * pitch + 0.36 * size)


def set_lines(
    words: Sequence[tuple[Word, Style]],
    width: float,
    first: float = 0.0,
    justified: bool = False,
    centred: bool = False,
) -> list[list[tuple[str, int, Style, str]]]:
    """Break words into lines: (text, x, style, white space before it) of each word.

    Args:
        first: indentation of the first line.

    Raises:
        DoesNotFit: a word is wider than the line.
    """
    widths, spaces = _measured(words)
    if words and max(widths) > width - first:
        raise DoesNotFit("a word is wider than the column")
    breaks, x = [0], first
    for index, wide in enumerate(widths):
        gap = spaces[index] if index > breaks[-1] else 0.0
        if index > breaks[-1] and x + gap + wide > width:
            breaks.append(index)
            x, gap = 0.0, 0.0
        x += gap + wide
    lines = []
    for start, end in zip(breaks, [*breaks[1:], len(words)], strict=True):
        x = first if start == 0 else 0.0
        free = width - x - sum(widths[start:end]) - sum(spaces[start + 1 : end])
        stretch = 0.0
        if centred:
            x += free / 2
        elif justified and end < len(words) and free < 0.2 * width:
            open_gaps = sum(1 for space in spaces[start + 1 : end] if space > 0)
            stretch = free / open_gaps if open_gaps > 2 else 0.0
        line = []
        for index in range(start, end):
            word, style = words[index]
            space = spaces[index] if index > start else 0.0
            x += space + (stretch if space else 0.0)
            line.append((word.text, round(x), style, " " if word.spaced and index > start else ""))
            x += widths[index]
        lines.append(line)
    return lines


def _measured(words: Sequence[tuple[Word, Style]]) -> tuple[list[float], list[float]]:
    """The width of each word and of the space before it, pixels."""
    by_style: dict[Style, list[int]] = {}
    for index, (_, style) in enumerate(words):
        by_style.setdefault(style, []).append(index)
    widths, spaces = [0.0] * len(words), [0.0] * len(words)
    for style, indices in by_style.items():
        known = face(style.path, style.number)
        blank = max(known.width(" ") if known.covers(" ") else 0.25, 0.2) * style.size
        texts = [words[index][0].text for index in indices]
        for index, wide in zip(indices, known.widths(texts), strict=True):
            widths[index] = wide * style.size
            spaces[index] = blank if words[index][0].spaced else 0.0
    return widths, spaces


def styled(runs: Sequence[Run], theme: Theme, scale: float = 1.0) -> list[tuple[Word, Style]]:
    styles: dict[tuple[bool, bool, bool], Style] = {}
    found = []
    for word in words_of(runs):
        key = (word.bold, word.italic, word.code)
        if key not in styles:
            styles[key] = theme.style(*key, scale * (0.92 if word.code else 1))
        found.append((word, styles[key]))
    return found


def line_strips(lines: Sequence, theme: Theme, scale: float = 1.0, dx: int = 0) -> list[Strip]:
    """A strip for each line."""
    pitch, taken, strips = theme.pitch * scale, 0, []
    base = base_line(pitch, theme.size * scale)
    for line in lines:
        taken += len(line)
        strips.append(Strip(pitch, [([(text, x + dx, base, *rest) for text, x, *rest in line], "\n")], taken=taken))
    return strips


def joined(strips: Sequence[Strip]) -> Strip:
    """Strips as one that is not divided."""
    whole = Strip(0.0)
    for strip in strips:
        y = round(whole.height)
        for words, joint in strip.lines:
            whole.lines.append(([(text, x, dy + y, *rest) for text, x, dy, *rest in words], joint))
        whole.shapes += [(kind, (x1, y1 + y, x2, y2 + y), *rest) for kind, (x1, y1, x2, y2), *rest in strip.shapes]
        whole.pictures += [(picture, x, dy + y) for picture, x, dy in strip.pictures]
        whole.height += strip.height
    return whole


def _heading(block: Heading, theme: Theme, width: float) -> Strip:
    scale = _HEADINGS[block.level]
    style = theme.heading_style(scale)
    words = [(word, style) for word in words_of(block.runs)]
    lines = set_lines(words, width, centred=theme.centred and block.level == 1)
    strip = joined(line_strips(lines, theme, scale))
    strip.gap, strip.stays = theme.pitch * (1.0 if block.level == 1 else 0.7), True
    strip.height += 0.2 * theme.pitch
    return strip


def _paragraph(block: Paragraph, theme: Theme, width: float) -> list[Strip]:
    first = 1.4 * theme.size if theme.indented else 0.0
    strips = line_strips(set_lines(styled(block.runs, theme), width, first, theme.justified), theme)
    if strips and not theme.indented:
        strips[0].gap = 0.5 * theme.pitch
    return strips


def _items(block: Items, theme: Theme, width: float) -> list[Strip]:
    strips: list[Strip] = []
    indent = round((2.2 if block.numbered and len(block.items) > 9 else 1.8) * theme.size)
    style, taken = theme.style(), 0
    for number, item in enumerate(block.items):
        mark = block.mark(number)
        edge = max(indent - 0.45 * theme.size - face(style.path, style.number).width(mark) * style.size, 0)
        own = line_strips(set_lines(styled(item, theme), width - indent), theme, dx=indent)
        for strip in own:
            strip.taken += taken
        words, joint = own[0].lines[0]
        words[0] = (*words[0][:4], " ")
        own[0].lines[0] = ([(mark, round(edge), words[0][2], style, ""), *words], joint)
        own[0].gap = theme.pitch * (0.5 if number == 0 else 0.0)
        taken = own[-1].taken
        strips += own
    return strips


def _code(block: Code, theme: Theme, width: float) -> list[Strip]:
    scale, pad = 0.9, round(0.5 * theme.size)
    known = face(*_file(theme.style(code=True)))
    longest = max(known.width(line) for line in block.lines)
    scale = min(scale, (width - 2 * pad) / max(longest * theme.size, 1))
    style = theme.style(code=True, scale=scale)
    if scale < 0.6 or longest * style.size > width:
        raise DoesNotFit("a line of code is wider than the column")
    pitch = min(theme.pitch, 1.35 * style.size)
    strips = []
    for number, line in enumerate(block.lines):
        words: list[Placed] = []
        end = 0
        for text in line.split():
            at = line.index(text, end)
            x = pad + round(known.width(line[:at]) * style.size)
            words.append((text, x, base_line(pitch, style.size), style, line[end:at]))
            end = at + len(text)
        shape = [("fill", (0, 0, width, pitch + 1), _shade(theme), 0)] if theme.table in ("striped", "ruled") else []
        strips.append(Strip(pitch, [(words, "\n")], shape, taken=number + 1, gap=0.5 * theme.pitch * (number == 0)))
    return strips


def _file(style: Style) -> tuple[str, int]:
    return style.path, style.number


def _shade(theme: Theme) -> tuple[int, int, int]:
    """A tone between paper and ink, near the paper."""
    return tuple(round(paper + 0.08 * (ink - paper)) for paper, ink in zip(theme.paper, theme.ink, strict=True))


shade = _shade


def _formula(block: Formula, theme: Theme, width: float) -> Strip:
    from data_tools.render.mathematics import formula_picture

    picture = formula_picture(block.latex, max(theme.size * 1.15, _LEAST_FORMULA), theme.ink)
    if picture.width > width:
        raise DoesNotFit("a formula is wider than the column")
    height = picture.height + 0.9 * theme.pitch
    return Strip(height, pictures=[(picture, (width - picture.width) / 2, 0.45 * theme.pitch)], gap=0.2 * theme.pitch)


def _figure(block: Figure, theme: Theme, width: float) -> Strip:
    from data_tools.render.figures import figure_picture

    picture = figure_picture(block.seed, round(width), theme.pitch)
    strip = Strip(picture.height + 0.4 * theme.pitch, pictures=[(picture, (width - picture.width) / 2, 0)])
    lines = set_lines(styled(block.caption, theme, SMALL), width, centred=theme.centred)
    whole = joined([strip, *line_strips(lines, theme, SMALL)])
    whole.height += 0.3 * theme.pitch
    whole.gap = 0.6 * theme.pitch
    return whole
