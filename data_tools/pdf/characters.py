"""Words of a PDF page with their places and styles, from its text layer."""

import ctypes
import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from varytoy.data.pdfium import HYPHEN, address_of, characters, fast, shown

_SPACES = frozenset((9, 10, 13, 32, 0x7F, 0xA0, 0x1680, *range(0x2000, 0x200C), 0x2028, 0x2029, 0x202F, 0x205F,
                    0x2060, 0x3000, 0xFEFF))  # fmt: skip
_SPACE_CODES = np.array(sorted(_SPACES), np.uint32)
_LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_SYMBOLS = {0xF0B7: "\u2022", 0xF0A7: "\u25aa", 0xF0D8: "\u27a2", 0xF06F: "\u25e6", 0xF0FC: "\u2713"}
"""Bullets of Symbol and Wingdings, which office programs leave in the private use area."""
_PRINTED = {HYPHEN: "-", 0xAD: "-", 0xFFFE: "-", **_LIGATURES, **_SYMBOLS}
_ACCENTS = {"´": "\u0301", "ˆ": "\u0302", "˜": "\u0303", "¯": "\u0304", "˘": "\u0306", "˙": "\u0307",
            "¨": "\u0308", "˚": "\u030a", "˝": "\u030b", "ˇ": "\u030c", "¸": "\u0327"}  # fmt: skip
_ACCENTED = re.compile(f"[{''.join(_ACCENTS)}]")
_MATHS = re.compile(r"CM(MI|SY|EX|BSY|MIB)|MSAM|MSBM|EUF|EUS|RSFS|Math|Symbol|STIXGeneral|txsy|pxsy", re.IGNORECASE)
_BOLD = re.compile(
    r"bold|black|heavy|(^|[^a-z])(demi|semib)|-bd|-medi\b|CM(BX|B|SSBX)\d|(SF|EC)(BX|BI|XB|BL|SX)", re.IGNORECASE
)
_ITALIC = re.compile(r"ital|obliq|slanted|[-,]it\b|CM(TI|SL|BXTI|SSI|U)\d|(SF|EC)(TI|SL|BI|BL|SI)\d", re.IGNORECASE)
_MONO = re.compile(
    r"mono|courier|typewriter|consolas|CM(SL)?TT|(SF|EC)(TT|LTT)|lmtt|[tp]xtt|cursor|nimbusmon", re.IGNORECASE
)
_FLAG_FIXED, _FLAG_ITALIC, _FLAG_BOLD = 1, 1 << 6, 1 << 18
_INVISIBLE = 3
"""Text render mode of the text layer of a scan."""
_JUMP, _BACK, _DROP = 1.5, 0.6, 0.8
"""Ems by which the next character of a word is ahead, back or lower at most."""


@dataclass(frozen=True)
class Style:
    """Of a text object: size in points, ``turned`` where it is not upright, ``drawn`` where it is not invisible."""

    size: float
    bold: bool = False
    italic: bool = False
    mono: bool = False
    maths: bool = False
    turned: bool = False
    drawn: bool = True


@dataclass(slots=True)
class Word:
    """``box``: of its ink, xyxy; ``base``: y of its baseline; in points from the upper left corner of the page as it
    is shown. ``spaced``: whether a space is before it in the file, and no end of a line."""

    text: str
    box: tuple[float, float, float, float]
    base: float
    style: Style
    spaced: bool = False


@dataclass
class Layer:
    """The text layer of a page.

    Attributes:
        words: that are drawn upright on the page, in the order of the file.
        width, height: of the page as it is shown, points.
        text: all printed characters, without spaces.
        invisible, turned: number of characters that are not drawn, or not upright.
        unmapped: share of the characters of which the file does not say what they are.
    """

    words: list[Word]
    width: float
    height: float
    text: str
    invisible: int = 0
    turned: int = 0
    unmapped: float = 0.0


def read_layer(page) -> Layer:
    """Of a pypdfium2 page. Raises PdfiumError."""
    width, height = page.get_size()
    layer = page.get_textpage()
    try:
        return _read(page, layer, width, height)
    finally:
        layer.close()


def _read(page, layer, width: float, height: float) -> Layer:
    found, boxes = characters(layer)
    codes, boxes = np.array(found, np.uint32), np.frombuffer(boxes)
    places = np.flatnonzero(~np.isin(codes, _SPACE_CODES))  # of what is printed
    if not len(places):
        return Layer([], width, height, "")
    codes, unmapped = _unknown(layer, codes, places)
    breaks = np.isin(codes[np.maximum(places - 1, 0)], (10, 13))
    word = np.cumsum(np.diff(places, prepend=-2) > 1)
    codes, boxes, places, word, breaks = _whole(codes[places], boxes.reshape(-1, 4)[places], places, word, breaks)
    ax, bx, cx, ay, by, cy = shown(page)
    xs = (ax * boxes[:, :2] + bx * boxes[:, 2:] + cx) * width
    ys = (ay * boxes[:, :2] + by * boxes[:, 2:] + cy) * height
    inside = (xs.sum(1) > 0) & (xs.sum(1) < 2 * width) & (ys.sum(1) > 0) & (ys.sum(1) < 2 * height)
    if not inside.all():
        codes, xs, ys, places, word, breaks = (each[inside] for each in (codes, xs, ys, places, word, breaks))
        if not len(places):
            return Layer([], width, height, "")
    x1, x2, y1, y2 = xs.min(1), xs.max(1), ys.min(1), ys.max(1)
    begins = np.diff(word, prepend=0) > 0
    spaced = begins & ~breaks
    styles, style_of = _styles(layer, places[begins].tolist(), abs(ax) < abs(bx) or ax < 0)
    kinds = np.repeat(style_of, np.diff(np.append(np.flatnonzero(begins), len(places))))
    size, turned, drawn = (
        np.array([getattr(style, name) for style in styles])[kinds] for name in ("size", "turned", "drawn")
    )
    begins[1:] |= ~turned[1:] & (
        (x1[1:] - x2[:-1] > _JUMP * size[1:])
        | (x2[1:] - x1[:-1] < -_BACK * size[1:])
        | (np.abs(y1[1:] + y2[1:] - y1[:-1] - y2[:-1]) > 2 * _DROP * size[1:])
    )
    starts = np.flatnonzero(begins)
    boxes = np.stack([np.minimum.reduceat(x1, starts), np.minimum.reduceat(y1, starts),
                      np.maximum.reduceat(x2, starts), np.maximum.reduceat(y2, starts)], 1)  # fmt: skip
    bases = _bases(layer, places[starts].tolist(), (ay * height, by * height, cy * height))
    # An invisible layer is kept where nothing is drawn: whether it is wanted is for others to say.
    invisible = int((~drawn).sum())
    hidden = invisible > len(codes) / 2
    words = [
        Word(text, tuple(box), base, styles[kind], space)
        for text, box, base, kind, space in zip(
            _texts(codes, starts), boxes.tolist(), bases, kinds[starts].tolist(), spaced[starts].tolist(), strict=True
        )
        if not styles[kind].turned and styles[kind].drawn != hidden
    ]
    return Layer(words, width, height, "".join(map(chr, codes.tolist())), invisible, int(turned.sum()), unmapped)


def _unknown(layer, codes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, float]:
    """The codes with U+FFFD for what is no character, and the share of those at ``places`` that the file does not map.
    Where most are so, their codes in the fonts may be right (bitmap fonts of TeX), and stay."""
    has_error, page = fast("FPDFText_HasUnicodeMapError"), address_of(layer)
    word = np.diff(places, prepend=-2) > 1
    bad = np.zeros(len(codes), bool)
    share = 0.0
    if any(has_error(page, place) == 1 for place in places[word].tolist()):
        bad[places] = [has_error(page, place) == 1 for place in places.tolist()]
        share = float(bad[places].mean())
        bad &= share < 0.5
    bad |= (codes < 32) & (codes != HYPHEN) & ~np.isin(codes, _SPACE_CODES)
    return np.where(bad, 0xFFFD, codes).astype(np.uint32) if bad.any() else codes, share


def _texts(codes: np.ndarray, starts: np.ndarray) -> Iterator[str]:
    """The words, as they are printed; U+FFFD for what cannot be read."""
    printed = "".join(map(chr, codes.tolist()))
    special = not printed.isascii() or "\x02" in printed
    unknown = {letter: "\ufffd" for letter in set(printed) if unreadable(letter)} if special else {}
    table = str.maketrans(unknown | {chr(code): text for code, text in _PRINTED.items()}) if special else {}
    for start, end in itertools.pairwise((*starts.tolist(), len(printed))):
        word = printed[start:end]
        if special and not (word.isascii() and word.isprintable()):
            word = word.translate(table)
            if _ACCENTED.search(word):
                word = compose(word)
        yield word


def compose(word: str) -> str:
    """TeX's older fonts draw an accent and its letter one after the other: one letter of both."""
    letters: list[str] = []
    accent = ""
    for letter in word:
        if accent:
            whole = unicodedata.normalize("NFC", {"\u0131": "i", "\u0237": "j"}.get(letter, letter) + _ACCENTS[accent])
            letters.append(whole if len(whole) == 1 else accent + letter)
            accent = ""
        elif letter in _ACCENTS:
            whole = unicodedata.normalize("NFC", letters[-1] + _ACCENTS[letter]) if letters and letter == "¸" else ""
            if len(whole) == 1:  # a cedilla is drawn after its letter
                letters[-1] = whole
            else:
                accent = letter
        else:
            letters.append(letter)
    return "".join(letters) + accent


def _whole(codes: np.ndarray, *rest: np.ndarray):
    """Pairs of UTF-16 units as one character, what is none as U+FFFD; ``rest``: arrays of as many rows."""
    high = np.flatnonzero((codes[:-1] >> 10 == 0x36) & (codes[1:] >> 10 == 0x37))
    if len(high):
        codes = codes.copy()
        codes[high] = 0x10000 + ((codes[high] & 0x3FF) << 10) + (codes[high + 1] & 0x3FF)
        codes, *rest = (np.delete(each, high + 1, 0) for each in (codes, *rest))
    bad = (codes > 0x10FFFF) | (codes >> 11 == 0x1B)
    return np.where(bad, 0xFFFD, codes).astype(np.uint32) if bad.any() else codes, *rest


def _bases(layer, places: list[int], row: tuple[float, float, float]) -> list[float]:
    points = (ctypes.c_double * (2 * len(places)))()
    address, get, page, (a, b, c) = ctypes.addressof(points), fast("FPDFText_GetCharOrigin"), address_of(layer), row
    for place in places:
        get(page, place, address, address + 8)
        address += 16
    return (np.frombuffer(points).reshape(-1, 2) @ (a, b) + c).tolist()


def _styles(layer, places: list[int], sideways: bool) -> tuple[list[Style], np.ndarray]:
    """Styles, and the number of that of the character at each place."""
    import pypdfium2.raw as pdfium

    numbers: dict[Style, int] = {}
    known: dict[tuple, int] = {}
    matrix, size = pdfium.FS_MATRIX(), ctypes.c_float()
    at_matrix, at_size = ctypes.addressof(matrix), ctypes.addressof(size)
    get_size, get_matrix, get_font = map(fast, ("FPDFTextObj_GetFontSize", "FPDFText_GetMatrix", "FPDFTextObj_GetFont"))
    get, get_mode, page = fast("FPDFText_GetTextObject"), fast("FPDFTextObj_GetTextRenderMode"), address_of(layer)
    kinds, before = [], None
    for place in places:
        element = get(page, place)
        if element == before:
            kinds.append(kinds[-1])
            continue
        before = element
        get_size(element, at_size)
        get_matrix(page, place, at_matrix)
        font, mode = get_font(element), get_mode(element)
        key = (font, size.value, matrix.a, matrix.b, matrix.c, matrix.d, mode)
        if key not in known:
            font = ctypes.cast(font, pdfium.FPDF_FONT)
            known[key] = numbers.setdefault(_style(font, size.value, matrix, mode, sideways), len(numbers))
        kinds.append(known[key])
    return list(numbers), np.array(kinds, np.int64)


def _style(font, size: float, matrix, mode: int, sideways: bool) -> Style:
    a, b = (matrix.b, -matrix.a) if sideways else (matrix.a, matrix.b)
    height = size * (matrix.c**2 + matrix.d**2) ** 0.5
    name, flags, weight = _font(font)
    maths = bool(_MATHS.search(name))
    return Style(
        round(abs(height) * 4) / 4 or 1.0,
        bold=not maths
        and (bool(_BOLD.search(name)) or bool(flags & _FLAG_BOLD) or (weight >= 600 and "+" not in name)),
        italic=not maths and (bool(_ITALIC.search(name)) or bool(flags & _FLAG_ITALIC)),
        mono=bool(_MONO.search(name)) or bool(flags & _FLAG_FIXED),
        maths=maths,
        turned=abs(b) > 0.2 * abs(a),
        drawn=mode != _INVISIBLE,
    )


def _font(font) -> tuple[str, int, int]:
    """Its name, flags and weight."""
    import pypdfium2.raw as pdfium

    if not font:
        return "", 0, 0
    name = ctypes.create_string_buffer(128)
    pdfium.FPDFFont_GetBaseFontName(font, name, len(name))
    flags = pdfium.FPDFFont_GetFlags(font)
    return name.value.decode("utf-8", "replace"), max(flags, 0), pdfium.FPDFFont_GetWeight(font)


@lru_cache(4096)
def unreadable(character: str) -> bool:
    """Whether it says that the text layer has no meaning: not a character, private use, a control character."""
    return ord(character) not in _PRINTED and (
        character in "\ufffd\uffff" or unicodedata.category(character) in ("Cn", "Co", "Cc", "Cs")
    )
