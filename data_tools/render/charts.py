"""Charts: bars, lines, pies and points by Matplotlib; the answer is their table, and questions about it."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.assets import sources
from data_tools.program import share
from data_tools.render.degrade import degrade
from data_tools.render.document import Cell, Table
from data_tools.render.kind import Kind, register
from data_tools.render.looks import Look, named, text_row, vqa_rows
from data_tools.render.markdown import block_markdown, escape
from data_tools.render.truth import Grid, Truth
from data_tools.writer import generator
from varytoy.extras import require

FORMS = ("bar", "grouped", "horizontal", "line", "pie", "scatter")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_SUBJECTS = (
    ("Sales", "units"),
    ("Visitors", "thousands"),
    ("Rainfall", "mm"),
    ("Energy use", "GWh"),
    ("Exports", "tonnes"),
    ("Revenue", "million $"),
    ("Temperature", "C"),
    ("Members", "number"),
    ("Costs", "thousand EUR"),
    ("Accuracy", "%"),
)
_GROUPS = (
    "Apples Pears Plums Cherries Grapes Lemons Melons",
    "Norway Spain Poland Italy France Greece Austria Latvia",
    "North South East West Centre",
    "Cars Buses Trains Ships Planes Bicycles",
    "Red Blue Green Yellow Purple",
    "Oak Birch Pine Maple Beech Willow",
    "Alpha Beta Gamma Delta Epsilon",
)
_PALETTES = ("tab10", "Set2", "Dark2", "Paired", "viridis", "Greys_r")
_DPI = 100
_UNUSABLE = "CMU "
"""Families whose letters Matplotlib does not draw at some sizes."""


@dataclass
class Chart:
    """What a chart shows: a value for each category of each series."""

    form: str
    title: str
    categories: list[str]
    series: list[str]
    values: list[list[float]]
    across: str
    up: str
    decimals: int

    def text(self, value: float) -> str:
        return f"{value:.{self.decimals}f}"

    def table(self) -> Table:
        head = tuple(Cell(text, head=True) for text in (self.across, *self.series))
        rows = [
            tuple(Cell(text) for text in (category, *(self.text(values[number]) for values in self.values)))
            for number, category in enumerate(self.categories)
        ]
        return Table((head, *rows))

    def truth(self) -> Truth:
        head, *rows = ([cell.text for cell in row] for row in self.table().rows)
        joint = {"x": "at x =", "Group": "for"}.get(self.across, "in")
        groups = (_MONTHS if self.across == "Month" else " ".join(_GROUPS).split()) if self.across != "x" else []
        grid = Grid(
            (head[0].lower(), *head[1:]),
            tuple(map(tuple, rows)),
            self._marks(),
            joint,
            tuple(name for name in groups if name not in self.categories),
            "%" * (self.up == "%"),
        )
        return Truth("chart", {"title": (self.title,)}, grid)

    def _marks(self) -> str:
        """What stands for a row."""
        if self.form in ("bar", "horizontal"):
            return "bars"
        return {"pie": "slices", "line": "points on each line", "scatter": "points"}.get(self.form, "groups of bars")


def random_chart(rng: random.Random, form: str) -> Chart:
    subject, unit = rng.choice(_SUBJECTS)
    groups = rng.sample(rng.choice(_GROUPS).split(), rng.randint(3, 5))
    step = rng.choice((1, 2, 5, 10, 0.5))
    decimals = 1 if step < 1 else 0
    if form == "pie":
        shares = np.array([rng.uniform(1, 4) for _ in groups])
        whole = np.floor(100 * shares / shares.sum()).astype(int)
        whole[0] += 100 - whole.sum()
        return Chart(form, f"{subject} by group", groups, ["Share"], [[float(each) for each in whole]], "Group", "%", 0)
    if form == "scatter":
        xs = sorted(rng.sample(range(1, 20), rng.randint(5, 9)))
        values = [[float(rng.randint(1, 20)) * step for _ in xs]]
        return Chart(form, subject, list(map(str, xs)), [f"{subject}"], values, "x", unit, decimals)
    if form == "line" or rng.random() < 0.4:
        if rng.random() < 0.5:
            start, count = rng.randint(0, 5), rng.randint(4, 7)
            categories, across = _MONTHS[start : start + count], "Month"
        else:
            first = rng.randint(1990, 2018)
            categories, across = [str(first + number) for number in range(rng.randint(4, 7))], "Year"
    else:
        categories, across = groups, "Group"
    count = rng.randint(2, 3) if form == "grouped" else rng.randint(1, 3) if form == "line" else 1
    others = [group for group in _GROUPS if not set(categories) & set(group.split())]
    series = rng.sample(rng.choice(others).split(), count) if count > 1 else [subject]
    values = [[float(rng.randint(2, 20)) * step for _ in categories] for _ in series]
    when = f", {categories[0]}-{categories[-1]}" if across == "Year" else ""
    return Chart(form, f"{subject}{when}", categories, series, values, across, unit, decimals)


def draw_chart(chart: Chart, rng: random.Random, font: Path, size: tuple[int, int], dark: bool) -> Image.Image:
    """The chart in pixels; its numbers stand at its marks, or a grid shows them."""
    from matplotlib import colormaps, rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    ink, paper = ("white", "#202024") if dark else ("black", rng.choice(("white", "white", "#f7f7f2", "#eef2f7")))
    figure = Figure((size[0] / _DPI, size[1] / _DPI), _DPI, facecolor=paper, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = rng.uniform(8.5, 12)
    style, large = FontProperties(fname=str(font), size=points), FontProperties(fname=str(font), size=points * 1.3)
    palette = colormaps[rng.choice([name for name in _PALETTES if not (dark and name == "Greys_r")])]
    marks = max(len(chart.series), len(chart.categories) if chart.form == "pie" else 1)
    colours = [palette(number) if palette.N <= 20 else palette((number + 0.5) / (marks + 1)) for number in range(marks)]
    axes.set_facecolor(paper)
    axes.set_title(chart.title, fontproperties=large, color=ink)
    labelled = chart.form != "scatter" and rng.random() < 0.6
    {"pie": _pie, "line": _line, "scatter": _scatter}.get(chart.form, _bars)(axes, chart, colours, style, ink, labelled)
    if chart.form != "pie":
        if not labelled:
            axes.grid(True, color="#888888", linewidth=0.5, alpha=0.6)
            axes.set_axisbelow(True)
        up, across = (
            (axes.set_xlabel, axes.set_ylabel) if chart.form == "horizontal" else (axes.set_ylabel, axes.set_xlabel)
        )
        up(chart.up, fontproperties=style, color=ink)
        across(chart.across, fontproperties=style, color=ink)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_fontproperties(style)
            label.set_color(ink)
        for side in axes.spines.values():
            side.set_color(ink)
        axes.tick_params(colors=ink)
    if len(chart.series) > 1:
        axes.legend(prop=style, facecolor=paper, labelcolor=ink)
    with rc_context({"text.hinting": "none"}):  # hinting loses the letters of some fonts
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _bars(axes, chart: Chart, colours, style, ink, labelled: bool) -> None:
    places, wide = np.arange(len(chart.categories)), 0.75 / len(chart.series)
    flat = chart.form == "horizontal"
    for number, values in enumerate(chart.values):
        at = places + (number - (len(chart.series) - 1) / 2) * wide
        draw = axes.barh if flat else axes.bar
        bars = draw(at, values, wide * 0.95, color=colours[number], label=chart.series[number])
        if labelled:
            axes.bar_label(bars, [chart.text(value) for value in values], fontproperties=style, color=ink, padding=2)
    if flat:
        axes.set_yticks(places, chart.categories)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max(map(max, chart.values)))
    else:
        axes.set_xticks(places, chart.categories)
        axes.set_ylim(0, (1.35 if len(chart.series) > 1 else 1.12) * max(map(max, chart.values)))


def _line(axes, chart: Chart, colours, style, ink, labelled: bool) -> None:
    places = np.arange(len(chart.categories))
    for number, values in enumerate(chart.values):
        sign = "os^"[number % 3]
        axes.plot(places, values, color=colours[number], marker=sign, label=chart.series[number])
        if labelled and len(chart.series) == 1:
            for place, value in zip(places, values, strict=True):
                where = {"textcoords": "offset points", "xytext": (0, 5), "ha": "center"}
                axes.annotate(chart.text(value), (place, value), fontproperties=style, color=ink, **where)
    if labelled and len(chart.series) > 1:
        axes.grid(True, color="#888888", linewidth=0.5, alpha=0.6)
    axes.set_xticks(places, chart.categories)
    axes.set_ylim(0, (1.35 if len(chart.series) > 1 else 1.15) * max(map(max, chart.values)))


def _scatter(axes, chart: Chart, colours, style, ink, labelled: bool) -> None:
    axes.scatter(list(map(int, chart.categories)), chart.values[0], color=colours[0])
    axes.set_xticks(range(0, 21, 2))
    axes.set_ylim(0, 1.1 * max(chart.values[0]))


def _pie(axes, chart: Chart, colours, style, ink, labelled: bool) -> None:
    texts = [f"{name} {value:.0f}%" for name, value in zip(chart.categories, chart.values[0], strict=True)]
    edges = {"edgecolor": "white", "linewidth": 1}
    _, labels = axes.pie(chart.values[0], labels=texts, colors=colours, startangle=90, wedgeprops=edges)
    for label in labels:
        label.set_fontproperties(style)
        label.set_color(ink)


class ChartRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, look: Look, seed: int, forms: tuple[str, ...], strength: float):
        self.seed, self.split, self.forms, self.strength = seed, look.split, forms, strength
        fonts = [font for font in sources.fonts(look.source, look.split) if not font.family.startswith(_UNUSABLE)]
        upright = [font.path for font in fonts if font.upright]
        self.fonts = upright or [font.path for font in fonts]

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "charts", self.split, index)
        chart = random_chart(rng, rng.choice(self.forms))
        size = (rng.randint(420, 800), rng.randint(320, 560))
        image = draw_chart(chart, rng, Path(rng.choice(self.fonts)), size, dark=rng.random() < 0.12)
        if rng.random() < 0.15:
            image = image.convert("L")
        image, _ = degrade(image, np.array([[0, 0, *image.size]]), rng, self.strength)
        answer = f"# {escape(chart.title)}\n\n{block_markdown(chart.table())}"
        truth = chart.truth()
        rows = [text_row("markdown", answer, rng, form=chart.form, truth=truth.to_json()), *vqa_rows(truth, rng, 3)]
        return image, named(rows, "charts", self.split, self.seed, index)


@register
class Charts(Kind):
    name = "charts"
    help = "bar, line, pie and scatter charts (their table as markdown, and questions)"

    def options(self, parser):
        parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="default: all")
        parser.add_argument("--degrade", type=share, default=0.1, help="strength of the scan, 0 to 1 (default: 0.1)")

    def renderer(self, options):
        require("train", "matplotlib", by="the kind 'charts'")
        look = Look(Path(options.source), options.split)
        return ChartRenderer(look, options.seed, tuple(options.forms), options.degrade)

    def sources(self, options):
        return {"matplotlib": "Matplotlib licence"} | sources.FONTS
