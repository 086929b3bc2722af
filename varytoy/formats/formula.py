"""Formulas: LaTeX to MathML by latex2mathml, and MathML to SVG by ziamath."""

import html
import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from varytoy.extras import require
from varytoy.formats.problem import NotationError, check_length, short

_DEEPEST = 60
"""Groups in each other; the converter calls itself for each."""
_POINTS = 32
_TAGS = {
    *"math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup".split(),
    *"munder mover munderover mtable mtr mtd mlabeledtr".split(),
}
_ATTRIBUTES = {
    *"display displaystyle scriptlevel mathvariant mathcolor mathbackground mathsize stretchy fence form".split(),
    *"separator lspace rspace minsize maxsize largeop movablelimits symmetric accent accentunder width height".split(),
    *"depth voffset linethickness bevelled notation columnalign rowalign columnspacing rowspacing columnlines".split(),
    *"rowlines frame framespacing rowspan columnspan".split(),
}
_VALUE = re.compile(r"[-+#\w.% ]*")
"""No brackets and no colon: an address or a function of CSS cannot be written."""
_PARTS = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
_ARGUMENTS = dict.fromkeys("frac dfrac tfrac cfrac binom dbinom tbinom overset underset stackrel".split(), 2) | (
    dict.fromkeys("sqrt hat bar tilde vec dot ddot overline underline widehat widetilde".split(), 1)
    | dict.fromkeys(
        "mathbb mathbf mathcal mathfrak mathit mathrm mathsf mathscr text operatorname boldsymbol".split(), 1
    )
)
_KNOWN = "array matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix smallmatrix cases split align align* subarray".split()
_SAME = {name: "split" for name in ("aligned", "eqnarray", "eqnarray*")} | {"dcases": "cases"}
_SAME |= {
    name: "matrix" for name in ("gather", "gather*", "gathered", "equation", "equation*", "multline", "multline*")
}
"""Environments that the converter takes for nothing -> one of ``_KNOWN`` that looks like it."""
_NAME = re.compile(r"(\\(?:begin|end))\s*\{([^{}]*)\}")
_TOKEN = re.compile(r"\\(?:[A-Za-z]+\*?|.)|%|[{}^_&]|\s+|.", re.DOTALL)
_MARKS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))


def bare(text: str) -> str:
    """A formula without the signs around it."""
    text = text.strip()
    for start, end in _MARKS:
        if len(text) >= len(start) + len(end) and text.startswith(start) and text.endswith(end):
            return text[len(start) : -len(end)].strip()
    return text


def mathml(latex: str, display: bool = True) -> Element:
    """The formula as ``<math>``, which holds nothing but MathML's elements of presentation.

    Raises:
        NotationError: LaTeX that is broken, or that is not known; the place is a character, from 1.
    """
    from latex2mathml.converter import convert_to_element

    check_length(latex, "the formula")
    _check(latex)
    renamed = _NAME.sub(lambda match: f"{match[1]}{{{_SAME.get(match[2], match[2])}}}", latex)
    try:
        root = convert_to_element(renamed, display="block" if display else "inline")
    except Exception as error:  # it has many kinds, most of them without a message
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
        raise NotationError(f"the formula cannot be read ({str(error) or name}): {_short(latex)}") from error
    for element in root.iter():
        element.text = html.unescape(element.text) if element.text else element.text
        element.tail = None
        name = (element.text or "") if element.tag in ("mi", "mo", "mn") else ""
        if re.match(r"\\[A-Za-z]", name):
            place = latex.find(name) + 1
            raise NotationError(f"{name} at character {place} of the formula is not known: {_short(latex)}")
        if element.tag not in _TAGS or len(element) != _PARTS.get(element.tag, len(element)):
            raise NotationError(f"a part of the formula is missing: {_short(latex)}")
        known = {key: value for key, value in element.attrib.items() if key in _ATTRIBUTES and _VALUE.fullmatch(value)}
        element.attrib.clear()
        element.attrib.update(known)
    return root


def markup(latex: str, display: bool = True) -> str:
    """``mathml`` as text for a page of HTML."""
    return ElementTree.tostring(mathml(latex, display), "unicode", short_empty_elements=False)


def svg(latex: str) -> str:
    """A picture of the formula, its letters as paths. Raises as ``mathml``."""
    require("render", "ziamath", by="a picture of a formula")
    root = mathml(bare(latex))
    import ziamath

    try:
        return ziamath.Math(ElementTree.tostring(root, "unicode"), size=_POINTS).svg()
    except Exception as error:  # as in ``mathml``
        raise NotationError(f"the formula cannot be drawn ({error}): {_short(latex)}") from error


def _check(latex: str) -> None:
    """Raises NotationError for braces, environments and arguments that do not fit together."""
    opened: list[tuple[str, int]] = []
    tokens = [(match[0], match.start() + 1) for match in _TOKEN.finditer(latex) if not match[0].isspace()]
    for number, (token, place) in enumerate(tokens):
        if token == "{" or token in ("\\left", "\\begin"):
            opened.append((token, place))
            if len(opened) > _DEEPEST:
                raise NotationError(f"the formula has more than {_DEEPEST} groups in each other at character {place}")
        elif token in _CLOSES:
            if not opened or opened[-1][0] != _CLOSES[token]:
                unclosed = f"; {opened[-1][0]} at {opened[-1][1]} is still open" if opened else ""
                raise NotationError(f"{token} at character {place} closes nothing{unclosed}: {_short(latex)}")
            opened.pop()
        wanted = _ARGUMENTS.get(token[1:], 0) if token[0] == "\\" else token in ("^", "_")
        after = number + 1
        for _ in range(wanted):
            after = _after_argument(tokens, after, token == "\\sqrt")
            if not after:
                raise NotationError(f"{token} at character {place} lacks what belongs to it: {_short(latex)}")
    for match in _NAME.finditer(latex):
        if match[2] not in _KNOWN and match[2] not in _SAME:
            raise NotationError(f"\\begin{{{match[2]}}} at character {match.start() + 1} is not known: {_short(latex)}")
    if opened:
        raise NotationError(f"{opened[-1][0]} at character {opened[-1][1]} is not closed: {_short(latex)}")


_CLOSES = {"}": "{", "\\right": "\\left", "\\end": "\\begin"}


def _after_argument(tokens: list[tuple[str, int]], start: int, optional: bool) -> int:
    """The token after an argument, 0 where none begins at ``start``."""
    if optional and start < len(tokens) and tokens[start][0] == "[":
        start = next((place + 1 for place in range(start, len(tokens)) if tokens[place][0] == "]"), len(tokens))
    if start >= len(tokens) or tokens[start][0] in ("}", "&", "^", "_", "\\\\", "\\right", "\\end"):
        return 0
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place][0] == "{") - (tokens[place][0] == "}")
        if depth <= 0:
            return place + 1
    return len(tokens)


def _short(latex: str) -> str:
    return short(" ".join(latex.split()))
