"""Layout: blocks of a document printed in the columns of a page, until it is full."""

from collections.abc import Iterable, Sequence

from data_tools.render.document import Block, Document, Heading, Note, Run, Word, cut
from data_tools.render.glyphs import MissingLetter
from data_tools.render.sheet import Sheet
from data_tools.render.strips import SMALL, DoesNotFit, Strip, joined, line_strips, set_lines, strips_of, styled
from data_tools.render.themes import Theme, font_face

_MISSES, _WIDE = 4, 40
"""Blocks in turn that find no room, after which a page is full; and those that are wider than a column."""


class _Columns:
    """Where the next strip stands."""

    def __init__(self, theme: Theme, size: tuple[int, int], bottom: float):
        left, top, right, _ = theme.margins
        self.theme, self.top, self.bottom = theme, float(top), bottom
        self.width = (size[0] - left - right - theme.gutter * (theme.columns - 1)) / theme.columns
        self.whole_width = size[0] - left - right
        self.left = left
        self.column, self.y = 0, float(top)

    @property
    def x(self) -> float:
        return self.left + self.column * (self.width + self.theme.gutter)

    @property
    def fresh(self) -> bool:
        return self.y <= self.top

    def room(self, height: float) -> bool:
        """Go to the next column if this one has no room; whether there is room."""
        if self.y + height <= self.bottom:
            return True
        if self.column + 1 < self.theme.columns and self.top + height <= self.bottom:
            self.column, self.y = self.column + 1, self.top
            return True
        return False


def lay_out(
    blocks: Iterable[Block],
    theme: Theme,
    size: tuple[int, int],
    header: tuple[str, ...] = (),
    footer: tuple[str, ...] = (),
    notes: Sequence[Note] = (),
) -> tuple[Sheet, Document]:
    """Print blocks until a page is full.

    A block that is wider than its column, or has a letter that its font lacks, is left out. What does not find room on
    the page is left out too: a paragraph, list or listing is cut after its last printed line.

    Args:
        size: width and height in pixels.
        header: one text in the middle, or two at the sides; ``footer`` too.

    Returns:
        The page, and the document that it shows.
    """
    sheet = Sheet(size, theme.paper, theme.darkness)
    bottom = float(size[1] - theme.margins[3])
    header = _running(sheet, theme, header, 0.55 * theme.margins[1])
    noted = [(note, strip) for note in notes if (strip := _note(note, theme, size)) is not None]
    height = sum(strip.height for _, strip in noted) + 0.8 * theme.pitch * bool(noted)
    if height > 0.3 * bottom:
        noted, height = [], 0.0
    columns = _Columns(theme, size, bottom - height)
    printed: list[Block] = []
    misses = wide = 0
    for block in blocks:
        across = not printed and theme.columns > 1 and isinstance(block, Heading) and block.level == 1
        try:
            strips = strips_of(block, theme, columns.whole_width if across else columns.width)
        except (DoesNotFit, MissingLetter):
            wide += 1
            if wide >= _WIDE:
                break
            continue
        shown = _print(block, strips, theme, columns, sheet, across)
        if shown is not None:
            printed.append(shown)
        misses = misses + 1 if shown is None else 0
        if shown not in (block, None) or misses >= _MISSES:
            break
    if noted:
        y, left = bottom - height + 0.5 * theme.pitch, theme.margins[0]
        sheet.rule(left, y, left + 0.25 * columns.whole_width, y, theme.ink)
        y += 0.3 * theme.pitch
        for _, strip in noted:
            strip.put(sheet, left, y)
            y += strip.height
    footer = _running(sheet, theme, footer, size[1] - 0.5 * theme.margins[3])
    return sheet, Document(tuple(printed), header, footer, tuple(note for note, _ in noted))


def _print(
    block: Block, strips: Sequence[Strip], theme: Theme, columns: _Columns, sheet: Sheet, across: bool
) -> Block | None:
    """Print what there is room for, or ``across`` all columns. Returns it; None if it is nothing."""
    taken = 0
    for number, strip in enumerate(strips):
        gap = 0.0 if columns.fresh else strip.gap
        # A heading stays with two lines; no paragraph leaves its first line at the end of a column.
        after = 2 * theme.pitch if strip.stays else theme.pitch if number == 0 and len(strips) > 1 else 0.0
        if not columns.room(gap + strip.height + after):
            return cut(block, taken)
        gap = 0.0 if columns.fresh else strip.gap
        strip.put(sheet, columns.left if across else columns.x, columns.y + gap)
        columns.y += gap + strip.height
        taken = strip.taken
    if across:
        columns.y += 0.6 * theme.pitch
        columns.top = columns.y
    return block


def _note(note: Note, theme: Theme, size: tuple[int, int]) -> Strip | None:
    words = styled((Run(note.sign), *note.runs), theme, SMALL)
    try:
        lines = set_lines(words, size[0] - theme.margins[0] - theme.margins[2])
    except (DoesNotFit, MissingLetter):
        return None
    return joined(line_strips(lines, theme, SMALL))


def _running(sheet: Sheet, theme: Theme, texts: tuple[str, ...], y: float) -> tuple[str, ...]:
    """Print a header or footer. Returns what was printed of it."""
    if not texts:
        return ()
    left, right = theme.margins[0], sheet.size[0] - theme.margins[2]
    style = theme.small(SMALL)
    known = font_face(theme.body[0])
    widths = [known.width(text) * style.size for text in texts]
    if sum(widths) + 2 * style.size > right - left or min(theme.margins[1], theme.margins[3]) < 2 * style.size:
        return ()
    starts = [left, right - widths[-1]] if len(texts) > 1 else [(left + right - widths[0]) / 2]
    for number, (text, x) in enumerate(zip(texts, starts, strict=True)):
        words = [(Word(part), style) for part in text.split()]
        (line,) = set_lines(words, right - left)
        placed = [(part, round(x) + dx, round(y + 0.36 * style.size), *rest) for part, dx, *rest in line]
        sheet.line(placed, "\n" if number == 0 else " ")
    return texts
