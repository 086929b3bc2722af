"""Speed of the renderers: images a second and core of each kind, beside what the bare library does in the same run.

The bare library is Pillow, which draws the same lines in a font of the same size on an image of the same size and mode;
for charts and formulas it is Matplotlib. Both sides include the encoding of the file.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data_tools.assets import languages, sources
from data_tools.render.kinds import KINDS
from data_tools.writer import encode
from varytoy.data.boxes import SCALE
from varytoy.options import positive

CASES: dict[str, tuple[str, ...]] = {
    "pages, 45 lines, clean": ("pages", "--lines", "45", "--degrade", "0"),
    "pages, 45 lines, degraded": ("pages", "--lines", "45", "--degrade", "1"),
    "pages, 45 lines, square, clean": ("pages", "--lines", "45", "--degrade", "0", "--paper", "square"),
    "pages, 45 lines, square, degraded": ("pages", "--lines", "45", "--degrade", "1", "--paper", "square"),
    "pages, Chinese, clean": ("pages", "--language", "zh", "--degrade", "0"),
    "tables": ("tables",),
    "forms": ("forms",),
    "numbers": ("numbers",),
    "code": ("code",),
    "scene-text": ("scene-text",),
    "formulas": ("formulas",),
    "charts": ("charts",),
    "blocks": ("blocks",),
    "scenes": ("scenes",),
}
"""Name -> kind and its options."""
_WARM_UP = 12


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by `fetch`")
    parser.add_argument("--count", type=positive, default=60, help="images of each kind (default: 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="+", choices=sorted({case[0] for case in CASES.values()}), help="only these")


def run(chosen: argparse.Namespace) -> None:
    """Print a table."""
    print(f"{'images a second and core':<36}{'rendered':>10}{'bare':>8}{'ratio':>8}   size")
    for name, (kind, *words) in CASES.items():
        if chosen.kind and kind not in chosen.kind:
            continue
        ours, bare, size = measure(kind, words, chosen.source, chosen.count, chosen.seed)
        rest = f"{bare:>8.1f}{ours / bare:>8.2f}" if bare else f"{'-':>8}{'-':>8}"
        print(f"{name:<36}{ours:>10.1f}{rest}   {size[0]} x {size[1]}", flush=True)


def measure(
    kind: str, words: list[str], source: Path, count: int, seed: int
) -> tuple[float, float | None, tuple[int, int]]:
    """Images a second of a kind and of the bare library (None: there is none), in time of one processor, and the mean
    size of an image. The first images, which fill the caches of fonts, are not counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--split", default="train")
    KINDS[kind].options(parser)
    arguments = parser.parse_args(words)
    arguments.source, arguments.seed = source, seed
    renderer, image_format = KINDS[kind].renderer(arguments), KINDS[kind].image_format
    faces = {font.family: font.path for font in reversed(sources.fonts(source, "train")) if font.upright}
    if "zh" in words:
        faces = {font.family: font.path for font in languages.fonts(source, "train", "zh")}
    bare_library = _BARE.get(kind, _lines)
    ours = bare = 0.0
    width = height = 0
    warm_up = min(_WARM_UP, count)
    for index in range(warm_up + count):
        start = time.process_time()
        image, rows = renderer(index)
        encode(image, image_format)
        middle = time.process_time()
        drawn = bare_library(image, rows, faces)
        if drawn is not None:
            encode(drawn, image_format)
        if index >= warm_up:
            ours, bare = ours + middle - start, bare + (time.process_time() - middle if drawn is not None else 0)
            width, height = width + image.width, height + image.height
    return count / ours, count / bare if bare else None, (round(width / count), round(height / count))


Bare = Callable[[Image.Image, list[dict], dict[str, str]], Image.Image | None]


def _lines(image: Image.Image, rows: list[dict], faces: dict[str, str]) -> Image.Image | None:
    """The lines of a sample at their places, by Pillow."""
    annotations, metadata = rows[0].get("annotations", {}), rows[0].get("metadata", {})
    if not annotations.get("lines"):
        return None
    path = faces.get(metadata.get("font", ""), next(iter(faces.values())))
    page = Image.new(image.mode, image.size, "white")
    pen = ImageDraw.Draw(page)
    fonts: dict[int, ImageFont.FreeTypeFont] = {}
    boxes = annotations["line_boxes"]
    for number, line in enumerate(annotations["lines"]):
        left, top, _, bottom = boxes[4 * number : 4 * number + 4]
        high = (bottom - top) * image.height / SCALE
        size = round(metadata.get("letter_size", max(high, 4)))
        font = fonts.setdefault(size, ImageFont.truetype(path, size))
        pen.text((left * image.width / SCALE, top * image.height / SCALE), line, fill="black", font=font)
    return page


def _formulas(image: Image.Image, rows: list[dict], faces: dict[str, str]) -> Image.Image:
    """The formulas of a sample, by Matplotlib's mathtext."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    metadata = rows[0]["metadata"]
    style = FontProperties(size=metadata["size"], math_fontfamily=metadata["font"])
    parser = MathTextParser("agg")
    for latex in rows[0]["messages"][1]["content"].split("$$")[1::2]:
        parser.parse(f"${latex.strip()}$", dpi=72, prop=style)
    return Image.new(image.mode, image.size)


def _charts(image: Image.Image, rows: list[dict], faces: dict[str, str]) -> Image.Image:
    """A chart of the same size with as many bars as the table has rows, by Matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    answer = rows[0]["messages"][1]["content"]
    lines = [line.strip("| ").split(" | ") for line in answer.splitlines() if line.startswith("|")]
    figure = Figure((image.width / 100, image.height / 100), 100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(answer.splitlines()[0])
    axes.bar([line[0] for line in lines[2:]], [float(line[1]) for line in lines[2:]])
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def _nothing(image: Image.Image, rows: list[dict], faces: dict[str, str]) -> None:
    """Pillow alone puts no text into perspective."""


_BARE: dict[str, Bare] = {"scene-text": _nothing, "formulas": _formulas, "charts": _charts}
