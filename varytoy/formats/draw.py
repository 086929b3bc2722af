"""``draw``: a text in one of the notations as a file; ``notation_of``: which notation a text is in."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from varytoy.extras import require
from varytoy.formats import browser, chart, formula, geometry, molecule, music, page
from varytoy.formats.problem import NotationError

SUFFIXES = ("png", "svg", "html")


@dataclass(frozen=True)
class Notation:
    """``help``: what it is; ``suffixes``: of files in it; ``svg``: its picture, None where it is a page of HTML."""

    help: str
    suffixes: Sequence[str]
    svg: Callable[[str], str] | None = None


NOTATIONS = {
    "markdown": Notation("text with tables and formulas", (".md", ".markdown")),
    "formula": Notation("one formula in LaTeX", (".tex", ".latex"), formula.svg),
    "music": Notation("sheet music in **kern", (".krn", ".kern"), music.svg),
    "molecule": Notation("a molecule in SMILES", (".smi", ".smiles"), molecule.svg),
    "geometry": Notation("a figure of geometry in a part of TikZ", (".tikz",), geometry.svg),
    "chart": Notation("a chart's title and table in markdown", (), chart.svg),
}


def notation_of(name: str, text: str) -> str:
    """The notation of a text from a file ``name``, by its suffix or its first words.

    Raises:
        NotationError: neither tells.
    """
    suffix = PurePath(name).suffix.lower()
    for notation, known in NOTATIONS.items():
        if suffix in known.suffixes:
            return notation
    start = text.strip()
    if any(line.startswith("**kern") for line in start.splitlines()):
        return "music"
    if start.startswith("\\begin{tikzpicture}"):
        return "geometry"
    if formula.bare(start) != start and formula.bare(start).count("$") == 0:
        return "formula"
    if start.startswith("# ") or "<table" in start:
        return "markdown"
    raise NotationError(f"{name} does not tell its notation: say it with --as {'|'.join(NOTATIONS)}")


def draw(text: str, notation: str, suffix: str, title: str = "") -> tuple[bytes, list[str]]:
    """The file's bytes, and sentences about what is wrong in it and drawn all the same.

    Args:
        notation: a key of ``NOTATIONS``.
        suffix: of ``SUFFIXES``. HTML loads nothing and runs nothing.
        title: of a page of HTML.

    Raises:
        NotationError: what cannot be drawn, and where it is broken.
        MissingExtra: a package is not installed.
    """
    problems: list[str] = []
    to_svg = NOTATIONS[notation].svg
    if to_svg is None:
        if suffix == "svg":
            raise NotationError(f"{notation} is drawn as .html or .png, not as .svg")
        written = page.page(text, title, problems)
        return (browser.png(written) if suffix == "png" else written.encode()), problems
    if notation == "formula" and suffix == "html":
        return page.document(formula.markup(formula.bare(text)) + "\n", title).encode(), problems
    picture = to_svg(text)
    problems += music.check(text) if notation == "music" else []
    if suffix == "svg":
        return picture.encode(), problems
    if suffix == "html":
        address = f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"
        return page.document(f'<img alt="{notation}" src="{address}">\n', title).encode(), problems
    return raster(picture), problems


def raster(svg: str, zoom: int = 2) -> bytes:
    """SVG as a PNG on white, by resvg."""
    require("render", "resvg_py", by="a PNG")
    import resvg_py

    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=svg, background="white", zoom=zoom, dpi=96))
    except ValueError as error:
        raise NotationError(f"the picture cannot be made ({error}); write .svg") from error
