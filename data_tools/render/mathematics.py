"""Formulas: random LaTeX, drawn by Matplotlib's mathtext or by LaTeX itself."""

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

FONTS = ("cm", "stix", "dejavuserif", "stixsans", "dejavusans")
"""Matplotlib's mathematical fonts; the last two are for ``--split test`` alone."""

LATEX = "pdflatex"
"""In the place of a font: the program that draws the formula, in Computer Modern."""
_DOCUMENT = r"""\documentclass{article}
\usepackage{amsmath,amssymb}
\usepackage[paperwidth=200cm,paperheight=30cm,margin=1cm]{geometry}
\pagestyle{empty}
\begin{document}\noindent$\displaystyle FORMULA$\end{document}
"""
_POINTS = 10
"""Size of LaTeX's letters."""

_GREEK = (
    "alpha beta gamma delta epsilon theta lambda mu nu xi pi rho sigma tau phi chi psi omega Gamma Delta Omega".split()
)
_SETS = (r"\mathbb{R}", r"\mathbb{N}", r"\mathbb{Z}", r"\mathbb{C}", r"\mathcal{H}", "S", "V")
_FUNCTIONS = r"\sin \cos \tan \log \ln \exp \max \min \det \dim".split()
_RELATIONS = ("=", "=", "=", "=", r"\leq", r"\geq", r"\approx", r"\neq", "<", ">", r"\equiv", r"\sim", r"\propto")
_BINARY = ("+", "+", "-", "-", r"\cdot", r"\times", r"\pm", r"\otimes", r"\cup")


def random_formula(rng: random.Random, terms: int = 4) -> str:
    """One displayed formula; ``terms``: about how many on a side."""
    shape = rng.random()
    left = _term(rng, 1) if shape < 0.7 else _sum(rng, 2, 1)
    right = _sum(rng, rng.randint(1, terms), 2)
    formula = f"{left} {rng.choice(_RELATIONS)} {right}"
    if rng.random() < 0.15:
        formula += rf", \quad {_letter(rng)} \in {rng.choice(_SETS)}"
    return formula


def _letter(rng: random.Random) -> str:
    if rng.random() < 0.35:
        return "\\" + rng.choice(_GREEK)
    return rng.choice("abcdefghijklmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ")


def _number(rng: random.Random) -> str:
    return str(rng.randint(2, 9)) if rng.random() < 0.7 else f"{rng.uniform(0, 99):.{rng.randint(0, 2)}f}"


def _index(rng: random.Random) -> str:
    return rng.choice(("i", "j", "k", "n", "0", "1", "2", "ij", "n+1", "t-1", r"\max"))


def _sum(rng: random.Random, terms: int, depth: int) -> str:
    parts = [_term(rng, depth)]
    for _ in range(terms - 1):
        parts += [rng.choice(_BINARY), _term(rng, depth)]
    return " ".join(parts)


def _atom(rng: random.Random) -> str:
    text = _letter(rng)
    chance = rng.random()
    if chance < 0.08:
        text = rf"\{rng.choice(('hat', 'bar', 'tilde', 'vec', 'dot'))}{{{text}}}"
    elif chance < 0.14:
        text = rf"\mathbf{{{rng.choice('ABuvwxyz')}}}"
    chance = rng.random()
    if chance < 0.25:
        text += f"_{{{_index(rng)}}}"
    elif chance < 0.45:
        text += f"^{{{rng.choice(('2', '3', 'n', '-1', 'T', 'k+1'))}}}"
    elif chance < 0.52:
        text += f"_{{{_index(rng)}}}^{{{rng.choice(('2', 'n', '*'))}}}"
    return text


def _term(rng: random.Random, depth: int) -> str:
    if depth <= 0 or rng.random() < 0.3:
        return _atom(rng) if rng.random() < 0.85 else _number(rng)
    return rng.choice(_COMPOUND)(rng, depth - 1)


def _fraction(rng: random.Random, depth: int) -> str:
    return rf"\frac{{{_sum(rng, rng.randint(1, 2), depth)}}}{{{_sum(rng, rng.randint(1, 2), depth)}}}"


def _root(rng: random.Random, depth: int) -> str:
    degree = "[3]" if rng.random() < 0.2 else ""
    return rf"\sqrt{degree}{{{_sum(rng, rng.randint(1, 2), depth)}}}"


def _series(rng: random.Random, depth: int) -> str:
    variable, sign = rng.choice("ijkn"), rng.choice((r"\sum", r"\prod"))
    end = rng.choice(("n", "N", r"\infty", "m"))
    return rf"{sign}_{{{variable}={rng.choice('01')}}}^{{{end}}} {_term(rng, depth)}"


def _integral(rng: random.Random, depth: int) -> str:
    low, high = rng.choice((("0", "1"), ("a", "b"), ("0", r"\infty"), (r"-\infty", r"\infty"), ("0", r"2\pi")))
    return rf"\int_{{{low}}}^{{{high}}} {_term(rng, depth)} \, d{rng.choice('xyt')}"


def _function(rng: random.Random, depth: int) -> str:
    name = rng.choice((*_FUNCTIONS, "f", "g", "P", r"\phi"))
    return rf"{name} \left( {_sum(rng, rng.randint(1, 2), depth)} \right)"


def _derivative(rng: random.Random, depth: int) -> str:
    sign = rng.choice(("d", r"\partial "))
    return rf"\frac{{{sign}{rng.choice('fuyx')}}}{{{sign}{rng.choice('xtz')}}}"


def _limit(rng: random.Random, depth: int) -> str:
    variable, end = rng.choice("nxt"), rng.choice((r"\infty", "0", "a"))
    return rf"\lim_{{{variable} \to {end}}} {_term(rng, depth)}"


def _brackets(rng: random.Random, depth: int) -> str:
    left, right = rng.choice((("(", ")"), ("[", "]"), ("|", "|"), (r"\{", r"\}"), (r"\|", r"\|")))
    power = f"^{{{rng.choice('23n')}}}" if rng.random() < 0.4 else ""
    return rf"\left{left} {_sum(rng, rng.randint(1, 3), depth)} \right{right}{power}"


def _binomial(rng: random.Random, depth: int) -> str:
    return rf"\binom{{{rng.choice('nmN')}}}{{{rng.choice('kr')}}}"


def _product(rng: random.Random, depth: int) -> str:
    return f"{_atom(rng)} {_atom(rng)}"


_COMPOUND: tuple[Callable[[random.Random, int], str], ...] = (
    *(_fraction,) * 3,
    *(_product,) * 4,
    _root,
    _series,
    _integral,
    _function,
    _derivative,
    _limit,
    _brackets,
    _binomial,
)


def formula_picture(latex: str, size: float, ink: tuple[int, int, int], font: str = "cm") -> Image.Image:
    """A formula in letters of ``size`` pixels, on nothing; ``font``: one of ``FONTS``, or ``LATEX``.

    Raises:
        ValueError: LaTeX that mathtext, or LaTeX itself, does not know.
    """
    drawn = _by_latex if font == LATEX else _coverage
    coverage = Image.fromarray(drawn(latex, round(size * 4) / 4, font))
    if len(set(ink)) == 1:
        picture = Image.new("LA", coverage.size, (ink[0], 0))
    else:
        picture = Image.new("RGBA", coverage.size, (*ink, 0))
    picture.putalpha(coverage)
    return picture


@lru_cache(maxsize=64)
def _coverage(latex: str, size: float, font: str) -> np.ndarray:
    from matplotlib.font_manager import FontProperties

    style = FontProperties(size=size, math_fontfamily=font)
    raster = _parser().parse(f"${latex}$", dpi=72, prop=style)
    return _cut(np.asarray(raster.image, np.uint8))


@lru_cache(maxsize=64)
def _by_latex(latex: str, size: float, font: str) -> np.ndarray:
    import pypdfium2

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "formula.tex").write_text(_DOCUMENT.replace("FORMULA", latex), encoding="utf-8")
        command = [LATEX, "-interaction=batchmode", "-halt-on-error", "-no-shell-escape", "formula.tex"]
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        if done.returncode:
            raise ValueError(f"LaTeX cannot draw {latex[:120]!r}")
        with pypdfium2.PdfDocument(Path(folder) / "formula.pdf") as document:
            picture = document[0].render(scale=size / _POINTS, grayscale=True).to_numpy()
    return _cut(255 - picture.reshape(picture.shape[:2]))


def check_latex() -> None:
    """Raises ValueError where LaTeX is not installed."""
    if shutil.which(LATEX) is None:
        raise ValueError(f"--latex needs {LATEX} (Debian: texlive-latex-base): install it, or leave --latex out")


def _cut(pixels: np.ndarray) -> np.ndarray:
    """The part with ink of coverage [H, W], 0-255."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return np.ascontiguousarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


@lru_cache(maxsize=1)
def _parser():
    from matplotlib.mathtext import MathTextParser

    return MathTextParser("agg")
