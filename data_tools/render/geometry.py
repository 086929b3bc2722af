r"""Figures of geometry: triangles, quadrangles, polygons, circles and angles; the answer is their TikZ.

A figure is written first, its longer side 10 units and its lower left corner at the origin, and drawn from what is
written (``varytoy.formats.geometry``), so that picture and answer agree. Statements come in the order: lines, circles
and arcs, dots, texts by the alphabet.
"""

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from data_tools.program import share
from data_tools.render.degrade import degrade
from data_tools.render.kind import Kind, register
from data_tools.render.looks import named, on_paper, text_row
from data_tools.writer import generator, of_split
from varytoy.extras import require
from varytoy.formats.geometry import drawn, read

FONTS = {"train": ("cm", "stix", "stixsans", "dejavusans"), "test": ("dejavuserif",)}
Point = complex
"""x and y of a place; turns and lengths are those of complex numbers."""
_LONGER = 10.0
_NAMES = "ABCDEFGHKLMNPQRSTXYZ"
_ANGLES = (r"\alpha", r"\beta", r"\gamma", r"\theta", "1", "2", r"60^\circ", r"45^\circ", r"30^\circ")


@dataclass
class _Sketch:
    """``lines``: points, whether closed, options; ``circles``: centre, radius; ``arcs``: centre, radius, and where it
    begins and ends, in degrees; ``dots``: places; ``texts``: text, place, direction in which it stands."""

    lines: list[tuple[list[Point], bool, str]] = field(default_factory=list)
    circles: list[tuple[Point, float]] = field(default_factory=list)
    arcs: list[tuple[Point, float, float, float]] = field(default_factory=list)
    dots: list[Point] = field(default_factory=list)
    texts: list[tuple[str, Point, complex]] = field(default_factory=list)

    def line(self, *points: Point, closed: bool = False, options: str = "") -> None:
        self.lines.append((list(points), closed, options))

    def name(self, names: Sequence[str], points: Sequence[Point], middle: Point) -> None:
        """Texts at points, on the side away from ``middle``."""
        self.texts += [(f"${name}$", point, point - middle) for name, point in zip(names, points, strict=True)]

    def right_angle(self, corner: Point, first: Point, second: Point) -> None:
        """The mark of a right angle between two points."""
        size = 0.09 * min(abs(first - corner), abs(second - corner)) + 0.1
        one, other = (size * _direction(corner, point) for point in (first, second))
        self.line(corner + one, corner + one + other, corner + other)

    def angle(self, corner: Point, first: Point, second: Point, text: str = "") -> None:
        """An arc from one point to another, against the clock, and its text."""
        start, turn = _degrees(first - corner), _degrees(second - corner)
        end = turn if turn > start else turn + 360
        radius = 0.22 * min(abs(first - corner), abs(second - corner))
        self.arcs.append((corner, radius, start, end))
        if text:
            place = corner + 1.75 * radius * _unit((start + end) / 2)
            self.texts.append((f"${text}$", place, 0j))

    def moved(self, change: Callable[[Point], Point], scale: float, turn: float = 0.0) -> "_Sketch":
        return _Sketch(
            [([change(point) for point in points], closed, options) for points, closed, options in self.lines],
            [(change(centre), radius * scale) for centre, radius in self.circles],
            [(change(centre), radius * scale, start + turn, end + turn) for centre, radius, start, end in self.arcs],
            [change(point) for point in self.dots],
            [(text, change(place), side * _unit(turn)) for text, place, side in self.texts],
        )

    def extent(self) -> tuple[float, float, float, float]:
        points = [point for points, _, _ in self.lines for point in points] + self.dots
        points += [c + r * way for c, r in self.circles for way in (1, -1, 1j, -1j)]
        xs, ys = [point.real for point in points], [point.imag for point in points]
        return min(xs), min(ys), max(xs), max(ys)

    def written(self) -> str:
        x1, y1, x2, y2 = self.extent()
        scale = _LONGER / max(x2 - x1, y2 - y1)
        own = self.moved(lambda point: (point - complex(x1, y1)) * scale, scale)
        rows = []
        for points, closed, options in own.lines:
            path = " -- ".join([_at(point) for point in points] + ["cycle"] * closed)
            rows.append(rf"\draw{f'[{options}]' if options else ''} {path};")
        rows += [rf"\draw {_at(centre)} circle ({radius:.1f});" for centre, radius in own.circles]
        for centre, radius, start, end in own.arcs:
            turns = f"{start % 360:.0f}:{start % 360 + end - start:.0f}"
            rows.append(rf"\draw {_at(centre + radius * _unit(start))} arc ({turns}:{radius:.1f});")
        rows += [rf"\fill {_at(point)} circle (2pt);" for point in own.dots]
        for text, place, side in sorted(own.texts, key=lambda each: each[0]):
            where = _side(side)
            rows.append(rf"\node{f'[{where}]' if where else ''} at {_at(place)} {{{text}}};")
        return "\n".join([r"\begin{tikzpicture}", *rows, r"\end{tikzpicture}"])


def _at(point: Point) -> str:
    x, y = (f"{value:.1f}" for value in (point.real, point.imag))
    return f"({'0.0' if x == '-0.0' else x},{'0.0' if y == '-0.0' else y})"


def _unit(degrees: float) -> complex:
    return complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def _degrees(way: complex) -> float:
    return math.degrees(math.atan2(way.imag, way.real)) % 360


def _direction(start: Point, end: Point) -> complex:
    return (end - start) / abs(end - start)


def _side(way: complex) -> str:
    """``above left`` and so on; empty for no direction."""
    if not way:
        return ""
    way /= abs(way)
    up = "above" if way.imag > 0.38 else "below" if way.imag < -0.38 else ""
    across = "right" if way.real > 0.38 else "left" if way.real < -0.38 else ""
    return f"{up} {across}".strip()


def _foot(point: Point, first: Point, second: Point) -> Point:
    """The point of a line through two that is nearest."""
    way = _direction(first, second)
    return first + way * ((point - first) * way.conjugate()).real


def _triangle(rng: random.Random) -> _Sketch:
    sketch = _Sketch()
    kind = rng.choice(("any", "any", "right", "even"))
    width, height = rng.uniform(4, 8), rng.uniform(3, 7)
    top = {"any": rng.uniform(0.15, 0.85), "right": 0.0, "even": 0.5}[kind] * width
    a, b, c = 0j, complex(width, 0), complex(top, height)
    names = _names(rng, 3)
    sketch.line(a, b, c, closed=True)
    if kind == "right":
        sketch.right_angle(a, b, c)
    middle = (a + b + c) / 3
    sketch.name(names, (a, b, c), middle)
    more = rng.choice(("none", "height", "median", "angle", "midline"))
    foot = {"height": _foot(c, a, b), "median": (a + b) / 2}.get(more)
    if foot is not None and abs(foot - a) > 0.4:
        sketch.line(c, foot, options=rng.choice(("", "dashed")))
        if more == "height":
            sketch.right_angle(foot, b, c)
        sketch.texts.append((f"${_other(rng, names)}$", foot, -1j))
    elif more == "angle":
        sketch.angle(b, c, a, rng.choice(_ANGLES))
    elif more == "midline":
        ends = ((a + c) / 2, (b + c) / 2)
        sketch.line(*ends)
        sketch.name(rng.sample([name for name in _NAMES if name not in names], 2), ends, middle)
    return sketch


def _quadrangle(rng: random.Random) -> _Sketch:
    sketch, width, height = _Sketch(), rng.uniform(4, 8), rng.uniform(2.5, 6)
    kind = rng.choice(("rectangle", "square", "parallelogram", "trapezium", "kite"))
    lean = rng.uniform(0.8, 2.5)
    corners = {
        "rectangle": (0j, complex(width, 0), complex(width, height), complex(0, height)),
        "square": (0j, complex(width, 0), complex(width, width), complex(0, width)),
        "parallelogram": (0j, complex(width, 0), complex(width + lean, height), complex(lean, height)),
        "trapezium": (0j, complex(width, 0), complex(0.8 * width, height), complex(0.3 * width, height)),
        "kite": (complex(width / 2, 0), complex(width, height / 2), complex(width / 2, 1.4 * height), 1j * height / 2),
    }[kind]
    names, middle = _names(rng, 4), sum(corners) / 4
    sketch.line(*corners, closed=True)
    sketch.name(names, corners, middle)
    if kind in ("rectangle", "square") and rng.random() < 0.5:
        sketch.right_angle(corners[0], corners[1], corners[3])
    if rng.random() < 0.6:
        sketch.line(corners[0], corners[2], options=(style := rng.choice(("", "", "dashed"))))
        if rng.random() < 0.6:
            sketch.line(corners[1], corners[3], options=style)
            if kind != "trapezium":
                crossing = (corners[0] + corners[2]) / 2 if kind != "kite" else complex(width / 2, height / 2)
                sketch.texts.append(("$O$", crossing, -1j))
    return sketch


def _circle(rng: random.Random) -> _Sketch:
    sketch, radius = _Sketch(), 3.0
    sketch.circles.append((0j, radius))
    turns = sorted(rng.sample(range(0, 360, 15), 3))
    ends = [radius * _unit(turn) for turn in turns]
    names, more = _names(rng, 3), rng.choice(("triangle", "chord", "diameter", "radii", "tangent"))
    if more in ("chord", "diameter"):
        other = -ends[0] if more == "diameter" else ends[1]
        sketch.line(ends[0], other)
        sketch.name(names[:2], (ends[0], other), 0j)
    elif more == "triangle":
        sketch.line(*ends, closed=True)
        sketch.name(names, ends, 0j)
    elif more == "radii":
        sketch.line(ends[0], 0j, ends[1])
        sketch.name(names[:2], ends[:2], 0j)
        if turns[1] - turns[0] < 180:
            sketch.angle(0j, ends[0], ends[1])
    else:
        far = ends[0] + 1j * ends[0] * rng.uniform(0.9, 1.5)
        sketch.line(0j, ends[0], far)
        sketch.right_angle(ends[0], 0j, far)
        sketch.name(names[:2], (ends[0], far), 0j)
    if more != "triangle" or rng.random() < 0.5:
        sketch.dots.append(0j)
        sketch.texts.append(("$O$", 0j, -1j if more != "tangent" else -ends[0]))
    return sketch


def _polygon(rng: random.Random) -> _Sketch:
    sketch, count = _Sketch(), rng.randint(5, 8)
    corners = [3 * _unit(90 + 360 * number / count) for number in range(count)]
    sketch.line(*corners, closed=True)
    sketch.name(_names(rng, count), corners, 0j)
    if rng.random() < 0.4:
        sketch.circles.append((0j, 3.0))
    for number in range(rng.randint(0, 2)):
        sketch.line(corners[number], corners[(number + 2) % count], options=rng.choice(("", "dashed")))
    return sketch


def _parallels(rng: random.Random) -> _Sketch:
    sketch, gap, turn = _Sketch(), rng.uniform(2, 3.5), rng.uniform(40, 140)
    cross = gap / math.tan(math.radians(turn))
    first, second = 0j, complex(cross, gap)
    for place, name in zip((first, second), rng.choice((("a", "b"), ("l", "m"), ("m", "n"))), strict=True):
        sketch.line(place - 4, place + 4)
        sketch.texts.append((f"${name}$", place + 4, 1 + 0j))
    over = _unit(turn)
    sketch.line(first - 1.7 * over, second + 1.7 * over)
    sketch.texts.append(("$c$", second + 1.7 * over, over))
    for place in (first, second) if rng.random() < 0.6 else (first,):
        sketch.angle(place, place + 4, place + 4 * over, rng.choice(_ANGLES))
    return sketch


def _names(rng: random.Random, count: int) -> list[str]:
    """Letters in their order, from A in most figures."""
    start = 0 if rng.random() < 0.7 else rng.randrange(len(_NAMES) - count)
    return list(_NAMES[start : start + count])


def _other(rng: random.Random, names: Sequence[str]) -> str:
    return rng.choice([name for name in _NAMES if name not in names])


_FIGURES = (_triangle, _triangle, _quadrangle, _circle, _polygon, _parallels)


def random_figure(rng: random.Random) -> str:
    """The TikZ of a figure, turned at random."""
    sketch, turn = rng.choice(_FIGURES)(rng), rng.choice((0.0, 0.0, rng.uniform(0, 360)))
    return sketch.moved(lambda point: point * _unit(turn), 1.0, turn).written()


class GeometryRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, seed: int, split: str, strength: float):
        self.seed, self.split, self.strength = seed, split, strength

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "geometry", self.split, index)
        text = of_split(lambda: random_figure(rng), self.split)
        look = {"width": rng.uniform(0.7, 2.2), "size": rng.uniform(11, 20), "font": rng.choice(FONTS[self.split])}
        with Image.open(io.BytesIO(drawn(read(text), "png", **look))) as picture:
            image = on_paper(picture.convert("RGB"), rng)
        image, _ = degrade(image, np.array([[0, 0, *image.size]]), rng, self.strength)
        return image, named([text_row("geometry", text, rng)], "geometry", self.split, self.seed, index)


@register
class Geometry(Kind):
    name = "geometry"
    help = "figures of geometry (geometry: TikZ)"

    def options(self, parser):
        parser.add_argument("--degrade", type=share, default=0.2, help="strength of the scan, 0 to 1 (default: 0.2)")

    def renderer(self, options):
        require("render", "matplotlib", by="the kind 'geometry'")
        return GeometryRenderer(options.seed, options.split, options.degrade)

    def sources(self, options):
        return {"Matplotlib": "PSF-based (letters: Computer Modern and STIX, free; DejaVu, Bitstream Vera's licence)"}
