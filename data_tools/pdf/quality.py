"""Why a PDF page makes no sample: rules with a number each, tried on real files (README)."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from data_tools.importers.base import Dropped
from data_tools.pdf.characters import Layer, unreadable
from data_tools.pdf.order import Line, segments
from data_tools.pdf.rules import Drawing
from varytoy.extras import require

ENCRYPTED, PROTECTED, DAMAGED = "encrypted", "copying forbidden", "damaged"
SCAN, OCR_LAYER, GARBLED = "no text layer", "text layer of a scan", "garbled text layer"
TURNED, SHORT, LANGUAGE = "turned text", "too little text", "other language"
HIDDEN, SMALL, UNSHOWN = "text that is not seen", "letters too small", "cannot be shown"
DUPLICATE = "near-duplicate"

_COMMON = frozenset("eainrsto")
_LEAST_COMMON, _LETTERS, _LATIN = 0.42, 100, 0.5
"""Pages in Latin letters have 0.48 to 0.70 of these eight among them; shifted or wrong codes about 0.3. Asked of pages
with at least this many Latin letters, if they are this share of the text."""
_INVISIBLE, _TURNED, _HIDDEN = 0.5, 0.5, 0.5
_FLAT = 24
"""Grey levels: where the picture has fewer, no letters are seen."""


@dataclass(frozen=True)
class Limits:
    """What is dropped. ``unreadable``: share of characters; ``characters``: of the page, at least; ``letter_size``:
    of the text, in pixels of the picture, at least; ``languages``: codes as py3langid has them, none for all;
    ``scans``: keep pages with the text layer of a scan."""

    unreadable: float = 0.01
    characters: int = 20
    letter_size: float = 5.0
    languages: tuple[str, ...] = ()
    scans: bool = False


def check_text(layer: Layer, drawing: Drawing, limits: Limits) -> None:
    """Raises Dropped."""
    count = len(layer.text)
    if not count:
        raise Dropped(SCAN)
    if not limits.scans and (layer.invisible > _INVISIBLE * count or drawing.over_text):
        how = "behind the picture" if drawing.over_text else "invisible"
        raise Dropped(OCR_LAYER, f"its text is {how}")
    if layer.turned > _TURNED * count:
        raise Dropped(TURNED, f"{layer.turned} of {count} characters are not upright")
    unknown = sum(map(unreadable, layer.text)) / count
    if unknown > limits.unreadable:
        raise Dropped(GARBLED, f"{unknown:.1%} of the characters have no meaning")
    latin = [letter for letter in unicodedata.normalize("NFD", layer.text).lower() if "a" <= letter <= "z"]
    if len(latin) >= _LETTERS and len(latin) >= _LATIN * count:
        common = sum(map(_COMMON.__contains__, latin)) / len(latin)
        if common < _LEAST_COMMON:
            raise Dropped(GARBLED, f"its letters are those of no language ({common:.0%} are e, a, i, n, r, s, t or o)")
    elif layer.unmapped > 0.5:
        raise Dropped(GARBLED, f"the file does not say what {layer.unmapped:.0%} of the characters are")
    if count < limits.characters:
        raise Dropped(SHORT, f"it has {count} characters")
    if limits.languages:
        language = language_of(" ".join(word.text for word in layer.words))
        if language not in limits.languages:
            raise Dropped(LANGUAGE, f"its language is {language}")


def check_picture(pixels: np.ndarray, layer: Layer, limits: Limits) -> list[Line]:
    """The lines of ``order.segments`` that are seen in the picture, of pixels [H, W, 3 or 4]. Raises Dropped."""
    sizes = sorted(word.style.size for word in layer.words)
    letters = sizes[len(sizes) // 2] * pixels.shape[1] / layer.width if sizes else 0.0
    if sizes and letters < limits.letter_size:
        raise Dropped(SMALL, f"most letters are set in {letters:.1f} pixels")
    if layer.invisible:
        return segments(layer.words)
    green = pixels[..., 1]
    across, down = pixels.shape[1] / layer.width, pixels.shape[0] / layer.height
    seen: list[Line] = []
    count = 0
    for line in segments(layer.words):
        x1, y1, x2, y2 = line.box
        part = green[max(int(y1 * down), 0) : int(y2 * down) + 2, max(int(x1 * across), 0) : int(x2 * across) + 2]
        if part.size and int(part.max()) - int(part.min()) >= _FLAT:
            seen.append(line)
            count += len(line.words)
    if count < (1 - _HIDDEN) * len(layer.words) or not seen:
        raise Dropped(HIDDEN, f"{len(layer.words) - count} of {len(layer.words)} words are not in the picture")
    return seen


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def check_languages(codes: Sequence[str]) -> None:
    """Raises MissingExtra, and ValueError for a code that is not known."""
    if codes:
        require("data", "py3langid", by="pdf --language")
        known = _identifier().labels
        if wrong := sorted(set(codes) - set(known)):
            raise ValueError(f"--language {' '.join(wrong)}: give some of {' '.join(sorted(known))}")


def language_of(text: str) -> str:
    """Its ISO 639-1 code."""
    return _identifier().classify(text[:4000])[0]
