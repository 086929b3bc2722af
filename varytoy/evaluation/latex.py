"""Comparison of formulas in LaTeX."""

import re

_ROWS = re.compile(
    r"\\\\(?:\[[^\]]*\])?|\\(?:begin|end)\{(?:equation|align|aligned|gather|gathered|split|displaymath)\*?\}"
)
_TAGS = re.compile(r"\\(?:tag|label)\*?\{[^{}]*\}")
_UNSEEN = re.compile(
    r"\\[,;:!> ]|\\(?:q?quad|left\.?|right\.?|(?:display|text)style|limits|[Bb]igg?[lrm]?|math(?:bf|rm|it|sf)|"
    r"boldsymbol|bm|text(?:rm|bf|it)?|operatorname\*?|rm|bf|it)(?![A-Za-z])|[\s~&]+"
)
_WORDS = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "le": "leq", "ge": "geq", "ne": "neq", "to": "rightarrow",
    "lVert": "Vert", "rVert": "Vert", "dots": "ldots", "cdots": "ldots", "ast": "*", "prime": "'",
    "vert": "|", "lvert": "|", "rvert": "|", "mid": "|",
}  # fmt: skip
_WORD = re.compile(r"\\([A-Za-z]+)")
_SINGLE = re.compile(r"\{(\\[A-Za-z]+ |[^{}\\]?)\}")


def normalise_latex(formula: str) -> str:
    """LaTeX without most of what does not change how a formula reads: spaces, fonts, sizes of brackets, braces
    around one letter, rows, numbers."""
    formula = _TAGS.sub("", _ROWS.sub("", formula))
    for sign, word in ((r"\{", r"\lbrace "), (r"\}", r"\rbrace "), (r"\|", r"\Vert ")):
        formula = formula.replace(sign, word)
    formula = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])", r"\1{}", formula)  # the space ends the word
    formula = _WORD.sub(lambda word: _replaced(word[1]), _UNSEEN.sub("", formula))
    for _ in range(len(formula)):
        formula, count = _SINGLE.subn(r"\1", formula)
        if not count:
            break
    return formula.replace("^'", "'").rstrip(".,;")


def _replaced(word: str) -> str:
    other = _WORDS.get(word, word)
    return f"\\{other} " if other.isalpha() else other
