r"""Geometry in a part of TikZ, drawn by Matplotlib.

Statements end with ``;``, with or without ``\begin{tikzpicture}`` around them:

- ``\coordinate (A) at (1,2);`` names a point. A point is ``(x,y)``, ``(angle:radius)`` or a name.
- ``\draw (A) -- (B) -- cycle;`` and, behind a point, ``rectangle (C)``, ``circle (r)``, ``arc (start:end:r)`` and
  ``node[above] {$A$}``. ``\fill`` fills, ``\filldraw`` does both. A radius in ``pt`` is a dot's.
- ``\node[above left] at (A) {$A$};`` writes.

Options: ``dashed``, ``dotted``, ``thick``, ``thin``, ``fill``, and colours; for texts their side.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from varytoy.extras import require
from varytoy.formats.problem import NotationError, check_length, short

Point = tuple[float, float]

COLOURS = ("black", "red", "blue", "green", "gray", "orange", "purple", "brown", "cyan", "magenta", "white")
SIDES = {"above": (0, 1), "below": (0, -1), "left": (-1, 0), "right": (1, 0)}
_STYLES = ("dashed", "dotted", "thick", "thin", "fill")
_IGNORED = ("line width", "scale", "draw", "circle", "inner sep", "font", "midway", "pos")
"""Options without which the figure says the same."""
_MOST, _FURTHEST, _LONGEST_TEXT = 300, 1e5, 100
_SIZE = 4.5
"""Inches of the longer side."""
_NUMBER = r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+))\s*(?:cm)?\s*"
_POINT = re.compile(rf"\((?:{_NUMBER},{_NUMBER}|{_NUMBER}:{_NUMBER}|\s*([A-Za-z][\w' ]*?)\s*)\)")
_RADIUS = re.compile(rf"(?:\({_NUMBER}(pt)?\s*\)|\[\s*radius\s*={_NUMBER}(pt)?\s*\])")
_ARC = re.compile(rf"\({_NUMBER}:{_NUMBER}:{_NUMBER}\)")
_OPTIONS = re.compile(r"\[([^\]]*)\]")
_COMMAND = re.compile(r"\\([A-Za-z]+)\s*")
_FRAME = re.compile(r"\\(?:begin|end)\s*\{tikzpicture\}\s*(?:\[[^\]]*\])?")
_TEXT = re.compile(r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")


@dataclass(frozen=True)
class Style:
    """``line``: ``-``, ``--`` or ``:``; ``width``: beside that of a plain line."""

    line: str = "-"
    width: float = 1.0
    colour: str = "black"
    stroked: bool = True
    filled: bool = False


@dataclass(frozen=True)
class Line:
    points: tuple[Point, ...]
    closed: bool
    style: Style


@dataclass(frozen=True)
class Circle:
    """``start``, ``end``: degrees of an arc. ``dot``: the radius is in points of print."""

    centre: Point
    radius: float
    style: Style
    start: float = 0.0
    end: float = 360.0
    dot: bool = False


@dataclass(frozen=True)
class Label:
    """``side``: where the text is of its point, each -1, 0 or 1 to the right and up."""

    place: Point
    text: str
    side: tuple[int, int]


@dataclass
class Figure:
    shapes: list[Line | Circle] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def extent(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of all shapes and of the places of all labels."""
        points = [point for shape in self.shapes for point in _points(shape)]
        points += [label.place for label in self.labels]
        xs, ys = zip(*points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


def _points(shape: Line | Circle) -> Sequence[Point]:
    if isinstance(shape, Line):
        return shape.points
    if shape.dot:
        return [shape.centre]
    turns = [shape.start + (shape.end - shape.start) * step / 36 for step in range(37)]
    return [_around(shape.centre, turn, shape.radius) for turn in turns]


def _around(centre: Point, degrees: float, radius: float) -> Point:
    turn = math.radians(degrees)
    return centre[0] + radius * math.cos(turn), centre[1] + radius * math.sin(turn)


def read(text: str) -> Figure:
    """The figure of a text.

    Raises:
        NotationError: a statement that is not of those above; the place is its number, from 1.
    """
    check_length(text, "the figure")
    text = _FRAME.sub(" ", re.sub(r"(?<!\\)%.*", "", text))
    figure, known = Figure(), dict[str, Point]()
    parts = text.split(";")
    for number, statement in enumerate(parts[:-1], 1):
        if statement.strip():
            _Statement(" ".join(statement.split()), number, figure, known).read()
        if len(figure.shapes) + len(figure.labels) > _MOST:
            raise NotationError(f"the figure has more than {_MOST:,} parts")
    if parts[-1].strip():
        raise NotationError(f"the figure's last statement does not end with ';': {short(parts[-1].strip())}")
    if not figure.shapes and not figure.labels:
        raise NotationError("the figure draws nothing")
    if any(abs(side) > _FURTHEST for side in figure.extent()):
        raise NotationError(f"the figure is larger than {_FURTHEST:,.0f} units")
    return figure


class _Statement:
    """Reads one statement from left to right."""

    def __init__(self, text: str, number: int, figure: Figure, known: dict[str, Point]):
        self.text, self.number, self.figure, self.known, self.at = text, number, figure, known, 0

    def wrong(self, what: str) -> NotationError:
        return NotationError(f"statement {self.number} of the figure: {what}")

    def read(self) -> None:
        command = self._take(_COMMAND)
        if command is None:
            raise self.wrong(f"no command at '{short(self.text, 30)}'")
        name = command[1]
        if name == "coordinate":
            self._name_a_point()
        elif name == "node":
            self._node(None)
        elif name in ("draw", "fill", "filldraw"):
            self._path(self._style(self._options(), name))
        else:
            raise self.wrong(f"\\{name} is none of \\coordinate, \\draw, \\fill, \\filldraw, \\node")
        self._space()
        if self.at < len(self.text):
            raise self.wrong(f"'{self._rest()}' is not understood")

    def _rest(self) -> str:
        return short(self.text[self.at :], 30)

    def _space(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def _take(self, pattern: re.Pattern) -> re.Match | None:
        self._space()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def _word(self, word: str) -> bool:
        self._space()
        if not self.text.startswith(word, self.at):
            return False
        self.at += len(word)
        return True

    def _options(self) -> list[str]:
        found = self._take(_OPTIONS)
        return [part.strip() for part in found[1].split(",") if part.strip()] if found else []

    def _style(self, options: Sequence[str], command: str) -> Style:
        line, width, colour = "-", 1.0, "black"
        filled, stroked = command != "draw", command != "fill"
        for option in options:
            name, _, value = (part.strip() for part in option.partition("="))
            if name in ("color", "draw", "fill") and value:
                filled, name = filled or name == "fill", value
            if name in ("dashed", "dotted"):
                line = "--" if name == "dashed" else ":"
            elif name.split()[-1] in ("thick", "thin"):
                width = 1.8 if name.endswith("thick") else 0.6
            elif name == "fill":
                filled = True
            elif name.partition("!")[0] in COLOURS:
                colour = name.partition("!")[0]
            elif not name.startswith(_IGNORED):
                known = ", ".join((*_STYLES, *COLOURS))
                raise self.wrong(f"no option '{short(name, 30)}' of a line; there are {known}")
        return Style(line, width, colour, stroked, filled)

    def _point(self) -> Point:
        found = self._take(_POINT)
        if found is None:
            raise self.wrong(f"no point at '{self._rest()}'")
        x, y, turn, radius, name = found.groups()
        if name is not None:
            if name not in self.known:
                raise self.wrong(f"no point named '{short(name, 30)}'")
            return self.known[name]
        return (float(x), float(y)) if x is not None else _around((0.0, 0.0), float(turn), float(radius))

    def _name_a_point(self) -> None:
        named = re.compile(r"\(\s*([A-Za-z][\w' ]*?)\s*\)")
        self._options()
        name = self._take(named)
        if name is None or not self._word("at"):
            raise self.wrong("write \\coordinate (A) at (1,2)")
        self.known[name[1]] = self._point()

    def _node(self, place: Point | None) -> None:
        options = self._options()
        if place is None:
            if not self._word("at"):
                raise self.wrong("write \\node[above] at (1,2) {$A$}")
            place = self._point()
            options += self._options()
        text = self._take(_TEXT)
        if text is None:
            raise self.wrong(f"no {{text}} of the node at '{self._rest()}'")
        if len(text[1]) > _LONGEST_TEXT:
            raise self.wrong(f"a text of {len(text[1]):,} characters; at most {_LONGEST_TEXT} are drawn")
        words = " ".join(option.partition("=")[0] for option in options).split()
        sides = [side for word, side in SIDES.items() if word in words]
        if text[1].strip():
            side = (sum(across for across, _ in sides), sum(up for _, up in sides))
            self.figure.labels.append(Label(place, text[1].strip(), side))

    def _path(self, style: Style) -> None:
        points, closed = [self._point()], False
        while not closed:
            here = points[-1]
            if self._word("--"):
                if closed := self._word("cycle"):
                    break
                points.append(self._point())
            elif self._word("rectangle"):
                other = self._point()
                corners = (here, (other[0], here[1]), other, (here[0], other[1]))
                self.figure.shapes.append(Line(corners, True, style))
                self._end(points[:-1], False, style)
                points = [other]
            elif self._word("circle"):
                radius = self._take(_RADIUS)
                if radius is None:
                    raise self.wrong(f"no radius of the circle at '{self._rest()}': write circle (2)")
                size, dot = float(radius[1] or radius[3]), bool(radius[2] or radius[4])
                self.figure.shapes.append(Circle(here, size, style, dot=dot))
            elif self._word("arc"):
                points.append(self._arc(here, style))
                self._end(points[:-1], False, style)
                points = points[-1:]
            elif self._word("node"):
                self._node(here)
            else:
                break
        self._end(points, closed, style)

    def _end(self, points: Sequence[Point], closed: bool, style: Style) -> None:
        if len(points) > 1:
            self.figure.shapes.append(Line(tuple(points), closed, style))

    def _arc(self, here: Point, style: Style) -> Point:
        """The arc that begins here; returns its end."""
        found = self._take(_ARC)
        if found is None:
            raise self.wrong(f"no arc at '{self._rest()}': write arc (start:end:radius)")
        start, end, radius = map(float, found.groups())
        centre = _around(here, start + 180, radius)
        self.figure.shapes.append(Circle(centre, radius, style, start, end))
        return _around(centre, end, radius)


def svg(text: str) -> str:
    """A picture of the figure, its letters as paths. Raises as ``read``."""
    return drawn(read(text), "svg").decode()


def drawn(figure: Figure, suffix: str, width: float = 1.2, size: float = 12.0, font: str = "cm") -> bytes:
    """The bytes of a picture, PNG or SVG, cut to the figure.

    Args:
        width: of a plain line, in points.
        size, font: of the texts, in points; Matplotlib's ``mathtext.fontset``.

    Raises:
        NotationError: a text with wrong mathematics.
    """
    require("render", "matplotlib", by="a figure")
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    x1, y1, x2, y2 = figure.extent()
    longer = max(x2 - x1, y2 - y1) or 1.0
    inches = [max(_SIZE * side / longer, 0.3) for side in (x2 - x1, y2 - y1)]
    with rc_context({"svg.hashsalt": "varytoy", "mathtext.fontset": font}):
        canvas = Canvas(inches)
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(x1 - 0.02 * longer, x2 + 0.02 * longer)
        axes.set_ylim(y1 - 0.02 * longer, y2 + 0.02 * longer)
        for shape in figure.shapes:
            _draw(axes, shape, width)
        for label in figure.labels:
            axes.annotate(
                label.text,
                label.place,
                (0.45 * size * label.side[0], 0.45 * size * label.side[1]),
                textcoords="offset points",
                ha=("right", "center", "left")[label.side[0] + 1],
                va=("top", "center", "bottom")[label.side[1] + 1],
                fontsize=size,
                annotation_clip=False,
            )
        written = io.BytesIO()
        try:
            about = {"Date": None} if suffix == "svg" else None
            canvas.savefig(written, format=suffix, bbox_inches="tight", pad_inches=0.08, metadata=about)
        except ValueError as error:
            said = short(str(error).strip().splitlines()[-1])
            raise NotationError(f"a text of the figure is no mathematics: {said}") from error
    return written.getvalue()


def _draw(axes: Any, shape: Line | Circle, width: float) -> None:
    from matplotlib.patches import Arc, Polygon
    from matplotlib.patches import Circle as Disc

    style = shape.style
    common = {"linestyle": style.line, "linewidth": width * style.width if style.stroked else 0, "clip_on": False}
    inside = style.colour if style.filled else "none"
    if isinstance(shape, Line):
        if shape.closed or style.filled:
            alpha = {"facecolor": inside, "edgecolor": style.colour, "closed": shape.closed}
            axes.add_patch(Polygon(shape.points, **common, **alpha))
        else:
            xs, ys = zip(*shape.points, strict=True)
            axes.plot(xs, ys, color=style.colour, **common)
    elif shape.dot:
        axes.plot(*shape.centre, marker="o", markersize=2 * shape.radius, color=style.colour, clip_on=False)
    elif abs(shape.end - shape.start) >= 360:
        axes.add_patch(Disc(shape.centre, shape.radius, facecolor=inside, edgecolor=style.colour, **common))
    else:
        side, turns = 2 * shape.radius, sorted((shape.start, shape.end))
        axes.add_patch(Arc(shape.centre, side, side, theta1=turns[0], theta2=turns[1], color=style.colour, **common))
