"""Forms and receipts: their text, and questions for the value of a field."""

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from data_tools.render.document import Word
from data_tools.render.glyphs import Style, face
from data_tools.render.kind import register
from data_tools.render.looks import Look, ScannedKind, named, scanned, text_row, vqa_row
from data_tools.render.sheet import Sheet
from data_tools.render.strips import base_line, set_lines
from data_tools.render.table_contents import random_date
from data_tools.writer import generator

_FIRST = "Anna Ben Carla David Emma Felix Grace Hugo Irene Jonas Karin Liam Maria Noah Olga Paul Rosa Sven Tara Victor"
_LAST = (
    "Adams Becker Costa Dubois Evans Fischer Garcia Hansen Ivanov Jensen Kowalski Lopez Meyer Novak Olsen Petit Rossi"
)
_STREETS = "Oak Mill Church Station Garden Park River Hill Market School Bridge Forest Lake King North"
_TOWNS = "Ashford Bergen Cadiz Dover Essen Faro Gdansk Hull Ipswich Jena Kiel Leeds Malaga Nantes Oslo Porto Riga Turin"
_GOODS = (
    "Apples Bread Butter Cheese Coffee Cookies Eggs Flour Honey Juice Lemons Milk Mushrooms Noodles Olives Onions "
    "Pasta Pepper Potatoes Rice Salad Salt Soap Soup Spinach Sugar Tea Tomatoes Water Yoghurt Batteries Candles "
    "Envelopes Notebook Pencils Toothpaste"
)
_SHOPS = "Corner Fresh City Family Green Daily Village Central Harbour Sunny"
_TITLES = "Application Form|Registration|Order Form|Membership|Delivery Note|Visitor Record|Insurance Claim|Invoice"


def _one(rng: random.Random, words: str) -> str:
    return rng.choice(words.split())


def _name(rng: random.Random) -> str:
    return f"{_one(rng, _FIRST)} {_one(rng, _LAST)}"


def _day(rng: random.Random) -> str:
    return random_date(rng).strftime(rng.choice(("%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y", "%B %d, %Y")))


def _code(rng: random.Random) -> str:
    return f"{''.join(rng.choice('ABCDEFGHKLMNPRST') for _ in range(2))}-{rng.randint(1000, 999999)}"


_FIELDS: dict[str, Callable[[random.Random], str]] = {
    "Name": _name,
    "Date of birth": _day,
    "Date": _day,
    "Street": lambda rng: f"{rng.randint(1, 250)} {_one(rng, _STREETS)} {rng.choice(('Street', 'Road', 'Lane'))}",
    "City": lambda rng: _one(rng, _TOWNS),
    "Postcode": lambda rng: f"{rng.randint(10000, 99999)}",
    "Telephone": lambda rng: f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(100000, 9999999)}",
    "E-mail": lambda rng: (
        f"{_one(rng, _FIRST).lower()}.{_one(rng, _LAST).lower()}@example.{rng.choice(('org', 'com'))}"
    ),
    "Reference": _code,
    "Customer number": lambda rng: str(rng.randint(10000, 9999999)),
    "Amount": lambda rng: f"${rng.uniform(1, 9000):,.2f}",
    "Quantity": lambda rng: str(rng.randint(1, 500)),
    "Weight": lambda rng: f"{rng.uniform(0.1, 80):.1f} kg",
    "Department": lambda rng: rng.choice(("Sales", "Research", "Finance", "Logistics", "Support", "Legal")),
    "Contact": _name,
    "Account": lambda rng: f"{rng.randint(10**9, 10**10 - 1)}",
    "Height": lambda rng: f"{rng.randint(140, 205)} cm",
    "Nationality": lambda rng: rng.choice(("Danish", "French", "German", "Italian", "Polish", "Spanish", "British")),
}
_CHOICES = {
    "Membership": ("Basic", "Family", "Student"),
    "Payment": ("Cash", "Card", "Transfer"),
    "Shipping": ("Standard", "Express"),
    "Insured": ("Yes", "No"),
}


class FormRenderer:
    """index -> (image, rows): see data_tools.writer. Equal arguments give equal images."""

    def __init__(self, look: Look, seed: int, kind: str, degrade: float):
        self.look, self.seed, self.kind, self.degrade = look, seed, kind, degrade

    def __call__(self, index: int) -> tuple[Image.Image, list[dict]]:
        rng = generator(self.seed, "forms", self.look.split, index)
        kind = rng.choice(("form", "receipt")) if self.kind == "both" else self.kind
        sheet, questions = (_form if kind == "form" else _receipt)(rng, self.look)
        image, annotations = scanned(sheet, rng, self.degrade)
        rows = [text_row("ocr", sheet.text(), rng, annotations, kind=kind)]
        for question, *answers in rng.sample(questions, min(3, len(questions))):
            rows.append(vqa_row(question, answers, rng, kind))
        return image, named(rows, "forms", self.look.split, self.seed, index)


def _put(sheet: Sheet, text: str, x: float, y: float, style: Style, joint: str = "\n") -> float:
    """Print a text from a point on its base line. Returns where it ends."""
    (line,) = set_lines([(Word(word), style) for word in text.split()], 1e6)
    left = round(x)
    sheet.line([(word, left + dx, round(y), *rest) for word, dx, *rest in line], joint)
    return left + _width(text, style)


def _width(text: str, style: Style) -> float:
    return face(style.path, style.number).width(text) * style.size


def _field_names(rng: random.Random, count: int) -> list[str]:
    return rng.sample(list(_FIELDS), count)


def _form(rng: random.Random, look: Look) -> tuple[Sheet, list[tuple[str, ...]]]:
    """A title and fields with values, ruled or boxed, in one or two columns, and boxes to tick."""
    theme = look.theme(rng, 700, (11, 17), inverted=0.03)
    columns, manner = rng.choice((1, 1, 2)), rng.choice(("plain", "line", "box"))
    names = _field_names(rng, rng.randint(4, 11))
    ticks = rng.sample(list(_CHOICES), rng.randint(0, 2))
    size, label, value = theme.size, theme.style(bold=theme.has_bold and rng.random() < 0.5), theme.style()
    row_height = round(size * rng.uniform(2.0, 2.8))
    margin, title_height = round(size * rng.uniform(1.5, 3)), round(size * 3.2)
    rows = -(-len(names) // columns)
    column = round(size * (27 if columns == 2 else rng.uniform(28, 40)))
    height = margin * 2 + title_height + row_height * (rows + len(ticks))
    sheet = Sheet((margin * 2 + column * columns, height), theme.paper, theme.darkness)
    title = rng.choice(_TITLES.split("|"))
    _put(sheet, title, margin, margin + 1.3 * size, theme.heading_style(1.6))
    labels = max(_width(name + ":", label) for name in names) + size
    questions: list[tuple[str, ...]] = []
    for number, name in enumerate(names):
        x = margin + column * (number % columns)
        y = margin + title_height + row_height * (number // columns)
        base = y + base_line(row_height, size)
        text = _FIELDS[name](rng)
        _put(sheet, f"{name}:", x, base, label, " " if number % columns else "\n")
        left, right = x + labels, x + column - size
        right = max(right, left + _width(text, value) + 0.6 * size)
        if manner == "line":
            sheet.rule(left, base + 0.25 * size, right, base + 0.25 * size, theme.faint)
        elif manner == "box":
            sheet.frame(left, y + 0.15 * row_height, right, y + 0.85 * row_height, theme.faint)
        _put(sheet, text, left + 0.3 * size, base, value, " ")
        questions.append(_asked(rng, name, text))
    y = margin + title_height + row_height * rows
    for name in ticks:
        base = y + base_line(row_height, size)
        x = _put(sheet, f"{name}:", margin, base, label) + size
        chosen = rng.choice(_CHOICES[name])
        for choice in _CHOICES[name]:
            side = round(0.8 * size)
            sheet.frame(x, base - side, x + side, base, theme.ink)
            if choice == chosen:
                sheet.box(x + 3, base - side + 3, x + side - 2, base - 2, theme.ink)
            x = _put(sheet, choice, x + 1.3 * size, base, value, " ") + 1.2 * size
        questions.append((f"Which option is ticked under {name}?", chosen))
        sheet.size = (max(sheet.size[0], round(x) + margin), sheet.size[1])
        y += row_height
    sheet.size = (max(sheet.size[0], round(_right(sheet)) + margin), sheet.size[1])
    return sheet, questions


def _right(sheet: Sheet) -> float:
    """Where the longest line or box ends."""
    words = max(x + _width(text, style) for text, x, _, style, _ in sheet.words)
    return max([words, *(edges[2] for _, edges, _, _ in sheet.shapes)])


def _asked(rng: random.Random, name: str, value: str) -> tuple[str, ...]:
    lower = name if name == "E-mail" else name.lower()
    return rng.choice((f"What is the {lower}?", f"What does the field '{name}' say?", f"Give the {lower}.")), value


def _receipt(rng: random.Random, look: Look) -> tuple[Sheet, list[tuple[str, ...]]]:
    """A narrow slip: shop, date, goods with prices, sum, tax, total."""
    theme = look.theme(rng, 400, (11, 17), inverted=0.0)
    style = theme.style(code=rng.random() < 0.6)
    pitch, width = style.size * rng.uniform(1.3, 1.6), round(style.size * rng.uniform(21, 27))
    margin, currency = round(style.size * rng.uniform(0.9, 2)), rng.choice(("", "", "$", "\u20ac"))
    if currency and not face(style.path, style.number).covers(currency):
        currency = ""
    goods = rng.sample(_GOODS.split(), rng.randint(2, 12))
    prices = [rng.randint(30, 3000) for _ in goods]
    total, rate = sum(prices), rng.choice((5, 7, 8, 10, 19, 20, 21))
    tax = round(total * rate / (100 + rate))
    given = -(-total // 500) * 500
    shop, day = f"{_one(rng, _SHOPS)} {rng.choice(('Market', 'Store', 'Shop', 'Foods'))}", _day(rng)
    number = str(rng.randint(1000, 999999))
    lines: list[tuple[str, str]] = [
        (shop, "c"),
        (f"{rng.randint(1, 250)} {_one(rng, _STREETS)} Street, {_one(rng, _TOWNS)}", "c"),
        ("", ""),
        (f"Date: {day}", f"{rng.randint(8, 21):02d}:{rng.randint(0, 59):02d}"),
        (f"Receipt {number}", ""),
        ("-", "rule"),
        *((name, _money(price, currency)) for name, price in zip(goods, prices, strict=True)),
        ("-", "rule"),
        ("TOTAL", _money(total, currency)),
        (f"incl. {rate}% tax", _money(tax, currency)),
    ]
    cash = rng.random() < 0.5
    if cash:
        lines += [("Cash", _money(given, currency)), ("Change", _money(given - total, currency))]
    lines += [("", ""), (rng.choice(("Thank you!", "Please come again", "Goods can be returned in 14 days")), "c")]
    width = max([width, *(round(_width(left, style) + _width(right, style) + 2 * style.size) for left, right in lines)])
    sheet = Sheet((width + 2 * margin, round(2 * margin + pitch * len(lines))), theme.paper, theme.darkness)
    for row, (left, right) in enumerate(lines):
        base = margin + pitch * row + base_line(pitch, style.size)
        if right == "rule":
            sheet.rule(margin, base - 0.3 * style.size, margin + width, base - 0.3 * style.size, theme.ink)
        elif left:
            _put(sheet, left, margin + ((width - _width(left, style)) / 2 if right == "c" else 0), base, style)
            if right not in ("", "c"):
                _put(sheet, right, margin + width - _width(right, style) - 1, base, style, " ")
    questions = [
        (f"What does {name} cost?", *_answers(price, currency)) for name, price in zip(goods, prices, strict=True)
    ]
    questions = rng.sample(questions, 1) + [
        ("What is the total?", *_answers(total, currency)),
        ("Which shop is the receipt from?", shop),
        ("What is the date on the receipt?", day),
        ("How many items are listed?", str(len(goods))),
        ("How much tax is included?", *_answers(tax, currency)),
        ("What is the number of the receipt?", number),
        ("Which item is the most expensive?", goods[prices.index(max(prices))]),
    ]
    if prices.count(max(prices)) > 1:
        questions.pop()
    return sheet, questions + [("How much change was given?", *_answers(given - total, currency))] * cash


def _money(cents: int, currency: str) -> str:
    return f"{currency}{cents / 100:,.2f}"


def _answers(cents: int, currency: str) -> tuple[str, ...]:
    """As it is printed, and without the sign of the currency and commas."""
    return tuple(dict.fromkeys((_money(cents, currency), f"{cents / 100:,.2f}", f"{cents / 100:.2f}")))


@register
class Forms(ScannedKind):
    name = "forms"
    help = "forms and receipts (OCR and questions for values)"

    def own_options(self, parser):
        parser.add_argument("--kind-of-form", choices=("both", "form", "receipt"), default="both", help="default: both")

    def renderer(self, options):
        look = Look(Path(options.source), options.split, options.language)
        return FormRenderer(look, options.seed, options.kind_of_form, options.degrade)
