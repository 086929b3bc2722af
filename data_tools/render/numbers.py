"""Numbers: long ones, amounts, dates and identifiers, in lines or columns, for OCR."""

import random
import string
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from data_tools.program import span
from data_tools.render.document import Word
from data_tools.render.kind import register
from data_tools.render.looks import Look, ScannedKind, named, scanned, stacked, text_row
from data_tools.render.strips import line_strips, set_lines
from data_tools.render.table_contents import random_date
from data_tools.render.themes import font_face
from data_tools.writer import generator


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(count))


def _long(rng: random.Random) -> str:
    return str(rng.randint(1, 9)) + _digits(rng, rng.randint(7, 24))


def _grouped(rng: random.Random) -> str:
    number = rng.randint(10**3, 10 ** rng.randint(4, 13))
    return f"{number:,}".replace(",", rng.choice((",", ".", " ", "'")))


def _amount(rng: random.Random) -> str:
    number = f"{rng.uniform(0, 10 ** rng.randint(1, 7)):,.2f}"
    sign = rng.choice(("$", "\u20ac", "\u00a3", "USD ", "EUR ", "-$", ""))
    return sign + number if rng.random() < 0.8 else number + " " + rng.choice(("EUR", "USD", "PLN", "CHF"))


def _decimal(rng: random.Random) -> str:
    number = rng.uniform(-1, 1) * 10 ** rng.randint(-4, 5)
    return rng.choice(("{:.3f}", "{:.6f}", "{:.4e}", "{:+.2f}", "{:.1f}%")).format(number)


def _moment(rng: random.Random) -> str:
    day = random_date(rng).strftime(rng.choice(("%Y-%m-%d", "%d/%m/%Y", "%m.%d.%y", "%d %b %Y", "%Y%m%d")))
    return day + (f" {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}" * (rng.random() < 0.5))


def _telephone(rng: random.Random) -> str:
    return (
        f"+{rng.randint(1, 99)} {_digits(rng, 3)}{rng.choice(' -')}{_digits(rng, 3)}{rng.choice(' -')}{_digits(rng, 4)}"
    )


def _card(rng: random.Random) -> str:
    return " ".join(_digits(rng, 4) for _ in range(4))


def _account(rng: random.Random) -> str:
    code = rng.choice(("DE", "FR", "ES", "PL", "GB", "NL")) + _digits(rng, rng.randint(16, 22))
    return " ".join(code[start : start + 4] for start in range(0, len(code), 4)) if rng.random() < 0.6 else code


def _hexadecimal(rng: random.Random) -> str:
    digits = "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((8, 12, 16, 32, 40))))
    return digits.upper() if rng.random() < 0.3 else digits


def _serial(rng: random.Random) -> str:
    letters = string.ascii_uppercase + string.digits
    parts = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 6))) for _ in range(rng.randint(2, 5))]
    return rng.choice("-/._").join(parts)


def _address(rng: random.Random) -> str:
    return ".".join(str(rng.randint(0, 255)) for _ in range(4)) + (f":{rng.randint(1, 65535)}" * (rng.random() < 0.3))


_MAKERS: tuple[Callable[[random.Random], str], ...] = (
    _long,
    _long,
    _grouped,
    _amount,
    _amount,
    _decimal,
    _moment,
    _telephone,
    _card,
    _account,
    _hexadecimal,
    _serial,
    _address,
)


class NumberRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, look: Look, seed: int, lines: tuple[int, int], degrade: float):
        self.look, self.seed, self.lines, self.degrade = look, seed, lines, degrade

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "numbers", self.look.split, index)
        theme = self.look.theme(rng, 600, (11, 30), inverted=0.2)
        across = rng.choice((1, 1, 1, 2, 3))
        makers = [rng.choice(_MAKERS) for _ in range(across)]
        style = theme.style()
        strips, width = [], 0
        for _ in range(rng.randint(*self.lines)):
            text = "   ".join(rng.choice((maker, rng.choice(_MAKERS)))(rng) for maker in makers)
            if not theme.covers(text.replace(" ", "")):
                text = _long(rng)
            (line,) = set_lines([(Word(word), style) for word in text.split()], 1e6)
            width = max(width, line[-1][1] + round(font_face(theme.body[0]).width(line[-1][0]) * style.size) + 2)
            strips += line_strips([line], theme)
        sheet = stacked(strips, theme, width, rng)
        image, annotations = scanned(sheet, rng, self.degrade)
        row = text_row("ocr", sheet.text(), rng, annotations, font=theme.body[0].family)
        return image, named([row], "numbers", self.look.split, self.seed, index)


@register
class Numbers(ScannedKind):
    name = "numbers"
    help = "long numbers, amounts, dates and identifiers (OCR)"

    def own_options(self, parser):
        parser.add_argument("--lines", type=span, default=(1, 16), help="default: 1-16")

    def renderer(self, options):
        look = Look(Path(options.source), options.split, options.language)
        return NumberRenderer(look, options.seed, options.lines, options.degrade)
