"""Receipts: shop, goods with prices, totals; printed as tills print, and questions about them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from data_tools.assets import languages
from data_tools.render.document import Word
from data_tools.render.glyphs import Style, face
from data_tools.render.looks import Look
from data_tools.render.sheet import Sheet
from data_tools.render.strips import base_line, set_lines
from data_tools.render.table_contents import random_date
from data_tools.render.truth import Grid, Truth, ways_to_write

FIRST_NAMES = (
    "Anna Ben Carla David Emma Felix Grace Hugo Irene Jonas Karin Liam Maria Noah Olga Paul Rosa Sven Tara Victor"
)
STREETS = "Oak Mill Church Station Garden Park River Hill Market School Bridge Forest Lake King North"
TOWNS = "Ashford Bergen Cadiz Dover Essen Faro Gdansk Hull Ipswich Jena Kiel Leeds Malaga Nantes Oslo Porto Riga Turin"
_GOODS = (
    "Apples Bread Butter Cheese Coffee Cookies Eggs Flour Honey Juice Lemons Milk Mushrooms Noodles Olives Onions "
    "Pasta Pepper Potatoes Rice Salad Salt Soap Soup Spinach Sugar Tea Tomatoes Water Yoghurt Batteries Candles "
    "Envelopes Notebook Pencils Toothpaste"
)
_SHOPS = "Corner Fresh City Family Green Daily Village Central Harbour Sunny"
_SHOP_KINDS = ("Market", "Store", "Shop", "Foods", "Trading Ltd", "Hardware Co.", "Restaurant", "Bakery", "Pharmacy")
_TITLES = (
    "Tax Invoice",
    "Receipt",
    "Cash Receipt",
    "Invoice",
    "Cash Bill",
    "Simplified Tax Invoice",
    "Official Receipt",
)
_CURRENCIES = ("", "", "", "$", "\u20ac", "RM ", "USD ")
_ABSENT = ("discount code", "delivery date", "name of the customer", "table number", "membership number", "due date")
_FOOTERS = (
    "Thank you!",
    "Please come again",
    "Goods can be returned in 14 days",
    "Goods sold are not returnable",
    "Thank you. Please come again.",
    "Keep this receipt for exchange",
    "*** Customer copy ***",
    "Have a nice day :)",
    "Prices include tax where applicable",
    "www.example.com",
)


def one_word(rng: random.Random, words: str) -> str:
    return rng.choice(words.split())


def random_day(rng: random.Random) -> str:
    return random_date(rng).strftime(rng.choice(("%d/%m/%Y", "%Y-%m-%d", "%d.%m.%Y", "%B %d, %Y", "%d-%m-%y")))


def put_text(sheet: Sheet, text: str, x: float, y: float, style: Style, joint: str = "\n") -> float:
    """Print a text from a point on its base line. Returns where it ends."""
    (line,) = set_lines([(Word(word), style) for word in text.split()], 1e6)
    left = round(x)
    sheet.line([(word, left + dx, round(y), *rest) for word, dx, *rest in line], joint)
    return left + text_width(text, style)


def text_width(text: str, style: Style) -> float:
    return face(style.path, style.number).width(text) * style.size


@dataclass
class _Line:
    """Cells of a line: (text, where it stands: 0 left to 1 right); or a rule of these strokes."""

    cells: list[tuple[str, float]] = field(default_factory=list)
    scale: float = 1.0
    rule: str = ""


def receipt(rng: random.Random, look: Look) -> tuple[Sheet, Truth, str]:
    """A narrow slip: shop, date, goods with prices, sum, tax, total. Returns it with what it says, and how it lists the
    goods."""
    theme = look.theme(rng, 400, (11, 24), inverted=0.0)
    style = theme.style(code=rng.random() < 0.5, bold=rng.random() < 0.2)
    lines, truth, manner = _content(rng, style, look)
    case = rng.choice((str, str, str.upper))
    for line in lines:
        line.cells = [(case(text), place) for text, place in line.cells]
    pitch, gap = style.size * rng.uniform(1.15, 1.7), 1.2 * style.size
    margin = round(style.size * rng.uniform(0.9, 2))
    widths = [sum(text_width(text, _sized(style, line.scale)) + gap for text, _ in line.cells) for line in lines]
    width = round(max([style.size * rng.uniform(17, 27), *widths]))
    height = sum(pitch * line.scale for line in lines)
    sheet = Sheet((width + 2 * margin, round(2 * margin + height)), theme.paper, theme.darkness)
    y = float(margin)
    for line in lines:
        own = _sized(style, line.scale)
        if line.rule:
            _rule(sheet, line.rule, margin, margin + width, y + 0.5 * pitch, style.size, theme.ink)
        joint = "\n"
        for text, place in line.cells:
            x = margin + place * (width - text_width(text, own) - 1)
            put_text(sheet, text, x, y + base_line(pitch * line.scale, own.size), own, joint)
            joint = " "
        y += pitch * line.scale
    return sheet, truth.mapped(case), manner


def _sized(style: Style, scale: float) -> Style:
    return style._replace(size=round(style.size * scale * 4) / 4)


def _rule(sheet: Sheet, kind: str, left: float, right: float, y: float, size: float, ink: tuple[int, int, int]) -> None:
    """A straight, dashed or dotted rule, or two."""
    dash, step = {"line": (right - left, right - left), "dash": (0.4 * size, 0.6 * size), "dot": (1.5, 0.35 * size)}[
        kind
    ]
    thick = max(round(size / 14), 1)
    x = left
    while x + dash <= right + 1:
        sheet.rule(x, y, x + dash, y, ink, thick)
        x += max(step, 3)


def _content(rng: random.Random, style: Style, look: Look) -> tuple[list[_Line], Truth, str]:
    currency = rng.choice(_CURRENCIES)
    if currency and not face(style.path, style.number).covers(currency.strip()):
        currency = ""
    names = _goods_names(rng, style, look)
    detailed = rng.random() < 0.5
    if detailed:
        names = [f"{name} {_size(rng)}".strip() for name in names]
    amounts = [rng.randint(1, 4) if rng.random() < 0.3 else 1 for _ in names]
    prices = [rng.randint(30, 3000) * amount for amount in amounts]
    total, rate = sum(prices), rng.choice((5, 6, 7, 8, 10, 19, 20, 21))
    tax, given = round(total * rate / (100 + rate)), -(-total // 500) * 500
    shop, day = f"{one_word(rng, _SHOPS)} {rng.choice(_SHOP_KINDS)}", random_day(rng)
    number = f"{rng.choice(('', '', 'INV-', 'CS', 'R'))}{rng.randint(1000, 9999999)}"
    rule = _Line(rule=rng.choice(("line", "dash", "dash", "dot")))
    lines = [_Line([(shop, 0.5)], rng.choice((1.0, 1.0, 1.3, 1.6)))]
    if rng.random() < 0.6:
        lines.append(_Line([(f"({_digits(rng, 6)}-{rng.choice('KMTVWX')})", 0.5)]))
    lines += [_Line([(text, 0.5)]) for text in _address(rng)]
    lines += [_Line([(text, 0.5)]) for text in _identities(rng)]
    lines.append(_Line())
    if rng.random() < 0.6:
        lines += [_Line([(rng.choice(_TITLES), 0.5)], rng.choice((1.0, 1.3, 1.6))), _Line()]
    colon = rng.choice((": ", ": ", " : ", ":"))
    time = f"{rng.randint(8, 21):02d}:{rng.randint(0, 59):02d}" + (f":{rng.randint(0, 59):02d}" * (rng.random() < 0.5))
    lines += [
        _Line([(f"Date{colon}{day}", 0.0), (time, 1.0)]),
        _Line([(f"{rng.choice(('Receipt', 'Bill No.', 'Invoice No', 'Receipt #'))}{colon}{number}", 0.0)]),
    ]
    if rng.random() < 0.6:
        person = rng.choice(
            (one_word(rng, FIRST_NAMES), f"Counter {rng.randint(1, 9)}", "Manager", f"AH{_digits(rng, 3)}")
        )
        lines.append(_Line([(f"{rng.choice(('Cashier', 'Sales person', 'Served by'))}{colon}{person}", 0.0)]))
    lines.append(rule)
    manner = rng.choice(("plain", "above", "columns"))
    own_currency = currency if manner == "plain" else ""
    lines += _goods(rng, manner, names, amounts, prices, own_currency) + [rule]
    lines += _totals(rng, total, tax, rate, len(names), currency)
    cash = rng.random() < 0.5
    if cash:
        lines += [_row("Cash", given, currency), _row("Change", given - total, currency)]
    if rng.random() < 0.3:
        net = f"{(total - tax) / 100:,.2f}"
        lines += [
            rule,
            _Line([("Tax summary", 0.0), ("Amount", 0.6), ("Tax", 1.0)]),
            _Line([(f"SR @ {rate}%", 0.0), (net, 0.6), (f"{tax / 100:,.2f}", 1.0)]),
        ]
    lines += [_Line(), *(_Line([(text, 0.5)]) for text in rng.sample(_FOOTERS, rng.randint(1, 3)))]
    fields = {
        "total": ways_to_write(_money(total, currency)),
        "name of the shop": (shop,),
        "date": (day,),
        "included tax": ways_to_write(_money(tax, currency)),
        "receipt number": (number,),
    }
    if cash:
        fields["change given"] = ways_to_write(_money(given - total, currency))
    goods = tuple((name, _money(price, own_currency)) for name, price in zip(names, prices, strict=True))
    absent = tuple(name for name in _GOODS.split() if not any(name.lower() in each.lower() for each in names))
    return lines, Truth("receipt", fields, Grid(("item", "price"), goods, "items", "of", absent), _ABSENT), manner


def _goods_names(rng: random.Random, style: Style, look: Look) -> list[str]:
    """Two to twelve different names: food and household goods, or words of the source's texts."""
    count = rng.randint(2, 12)
    if rng.random() < 0.4:
        return rng.sample(_GOODS.split(), count)
    paragraphs = languages.prose_paragraphs(look.source, look.split, look.language)
    known, names = face(style.path, style.number), dict.fromkeys(rng.sample(_GOODS.split(), 2))
    for _ in range(count):
        words = [
            word for word in rng.choice(paragraphs).split() if word.isalpha() and known.covers(word + word.upper())
        ]
        if words:
            start = rng.randrange(len(words))
            names[" ".join(words[start : start + rng.randint(1, 3)]).capitalize()] = None
    return list(names)


def _goods(
    rng: random.Random, manner: str, names: list[str], amounts: list[int], prices: list[int], currency: str
) -> list[_Line]:
    """The goods as name and price; with the name above code, amount and price; or in four columns."""
    if manner == "plain":
        return [_row(name, price, currency) for name, price in zip(names, prices, strict=True)]
    lines = []
    if manner == "columns":
        heads = rng.choice((("Item", "Qty", "Price", "Amount"), ("Description", "Qty", "U/P", "Total")))
        lines.append(_Line(list(zip(heads, (0.0, 0.5, 0.75, 1.0), strict=True))))
    for name, amount, price in zip(names, amounts, prices, strict=True):
        single = f"{price / amount / 100:,.2f}"
        if manner == "columns":
            cells = [(name, 0.0), (str(amount), 0.5), (single, 0.75), (f"{price / 100:,.2f}", 1.0)]
            lines.append(_Line(cells if len(name) < 12 else cells[:1]))
            lines += [_Line([(_digits(rng, 7), 0.0), *cells[1:]])] * (len(name) >= 12)
        else:
            lines.append(_Line([(name, 0.0)]))
            code = _digits(rng, rng.choice((6, 8, 13)))
            lines.append(_Line([(f"{code} {amount} {rng.choice('xX@')} {single}", 0.0), (f"{price / 100:,.2f}", 1.0)]))
    return lines


def _totals(rng: random.Random, total: int, tax: int, rate: int, count: int, currency: str) -> list[_Line]:
    lines = []
    if rng.random() < 0.5:
        lines.append(_row(rng.choice(("Subtotal", "Sub Total", "Total excl. tax")), total - tax, currency))
    if rng.random() < 0.3:
        lines.append(_row(rng.choice(("Rounding", "Discount", "Rounding adj.")), 0, currency))
    if rng.random() < 0.3:
        lines.append(_Line([(rng.choice(("Total items", "Item count", "Total qty")), 0.0), (str(count), 1.0)]))
    lines.append(_row("TOTAL", total, currency))
    lines[-1].scale = rng.choice((1.0, 1.0, 1.3))
    lines.append(_row(rng.choice((f"incl. {rate}% tax", f"GST @{rate}%", f"VAT {rate}%")), tax, currency))
    return lines


def _row(name: str, cents: int, currency: str) -> _Line:
    return _Line([(name, 0.0), (_money(cents, currency), 1.0)])


def _money(cents: int, currency: str) -> str:
    return f"{currency}{cents / 100:,.2f}"


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _size(rng: random.Random) -> str:
    """How much of something, or its kind."""
    amount = rng.choice((1, 2, 5, 10, 12, 50, 100, 250, 320, 500, 750))
    kinds: tuple[Callable[[], str], ...] = (
        lambda: f"{amount}{rng.choice(('g', 'ml', 'kg', 'pcs', ' mm', 'cm'))}",
        lambda: f"{amount}x{rng.randint(2, 60)}",
        lambda: f"({rng.choice('SMLBA')})",
        lambda: f"#{rng.randint(1, 99)}",
        lambda: f'{rng.randint(1, 9)}.{rng.randint(1, 9)}"',
        lambda: f"{rng.choice(('Extra', 'Mini', 'Fresh', 'White', 'Hot', 'Iced'))} {rng.choice(('A4', 'XL', 'No. 2'))}",
    )
    return rng.choice(kinds)()


def _address(rng: random.Random) -> list[str]:
    street = f"{one_word(rng, STREETS)} {rng.choice(('Street', 'Road', 'Lane', 'Avenue'))}"
    town = f"{_digits(rng, 5)} {one_word(rng, TOWNS)}"
    if rng.random() < 0.5:
        return [f"{rng.randint(1, 250)} {street}, {one_word(rng, TOWNS)}"]
    house = f"{rng.choice(('No. ', 'Lot ', ''))}{rng.randint(1, 250)}{rng.choice(('', '-G', 'A', ' & 12', '/7'))}"
    return [f"{house}, {street},", f"{town}{rng.choice(('', ',', '.'))}"]


def _identities(rng: random.Random) -> list[str]:
    """Telephone, fax and numbers of registration."""
    telephone = f"{_digits(rng, 2)}-{_digits(rng, 3)} {_digits(rng, 4)}"
    lines = [f"{rng.choice(('Tel: ', 'TEL : ', 'Phone '))}{telephone}"] if rng.random() < 0.7 else []
    if lines and rng.random() < 0.4:
        lines[0] += f" Fax: {_digits(rng, 2)}-{_digits(rng, 7)}"
    if rng.random() < 0.6:
        lines.append(f"{rng.choice(('GST No: ', 'GST ID : ', 'VAT Reg No: ', 'Tax ID '))}{_digits(rng, 12)}")
    return lines
