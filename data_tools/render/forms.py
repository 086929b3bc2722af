"""Forms and receipts: their text, and questions for the value of a field."""

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from data_tools.render.kind import register
from data_tools.render.looks import Look, ScannedKind, named, scanned, text_row, vqa_rows
from data_tools.render.receipts import FIRST_NAMES, STREETS, TOWNS, one_word, put_text, random_day, receipt, text_width
from data_tools.render.sheet import Sheet
from data_tools.render.strips import base_line
from data_tools.render.truth import Truth, ways_to_write
from data_tools.writer import generator

_LAST = (
    "Adams Becker Costa Dubois Evans Fischer Garcia Hansen Ivanov Jensen Kowalski Lopez Meyer Novak Olsen Petit Rossi"
)
_TITLES = "Application Form|Registration|Order Form|Membership|Delivery Note|Visitor Record|Insurance Claim|Invoice"


def _name(rng: random.Random) -> str:
    return f"{one_word(rng, FIRST_NAMES)} {one_word(rng, _LAST)}"


def _code(rng: random.Random) -> str:
    return f"{''.join(rng.choice('ABCDEFGHKLMNPRST') for _ in range(2))}-{rng.randint(1000, 999999)}"


_FIELDS: dict[str, Callable[[random.Random], str]] = {
    "Name": _name,
    "Date of birth": random_day,
    "Date": random_day,
    "Street": lambda rng: f"{rng.randint(1, 250)} {one_word(rng, STREETS)} {rng.choice(('Street', 'Road', 'Lane'))}",
    "City": lambda rng: one_word(rng, TOWNS),
    "Postcode": lambda rng: f"{rng.randint(10000, 99999)}",
    "Telephone": lambda rng: f"+{rng.randint(1, 99)} {rng.randint(100, 999)} {rng.randint(100000, 9999999)}",
    "E-mail": lambda rng: (
        f"{one_word(rng, FIRST_NAMES).lower()}.{one_word(rng, _LAST).lower()}@example.{rng.choice(('org', 'com'))}"
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
        sheet, truth, layout = (_form if kind == "form" else receipt)(rng, self.look)
        image, annotations = scanned(sheet, rng, self.degrade, till=kind == "receipt")
        rows = [text_row("ocr", sheet.text(), rng, annotations, kind=kind, layout=layout, truth=truth.to_json())]
        rows += vqa_rows(truth, rng, 3)
        return image, named(rows, "forms", self.look.split, self.seed, index)


def _field_names(rng: random.Random, count: int) -> list[str]:
    return rng.sample(list(_FIELDS), count)


def _form(rng: random.Random, look: Look) -> tuple[Sheet, Truth, str]:
    """A title and fields with values, ruled or boxed, in one or two columns, and boxes to tick; what it says, and its
    layout."""
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
    put_text(sheet, title, margin, margin + 1.3 * size, theme.heading_style(1.6))
    labels = max(text_width(name + ":", label) for name in names) + size
    fields: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(names):
        x = margin + column * (number % columns)
        y = margin + title_height + row_height * (number // columns)
        base = y + base_line(row_height, size)
        text = _FIELDS[name](rng)
        put_text(sheet, f"{name}:", x, base, label, " " if number % columns else "\n")
        left, right = x + labels, x + column - size
        right = max(right, left + text_width(text, value) + 0.6 * size)
        if manner == "line":
            sheet.rule(left, base + 0.25 * size, right, base + 0.25 * size, theme.faint)
        elif manner == "box":
            sheet.frame(left, y + 0.15 * row_height, right, y + 0.85 * row_height, theme.faint)
        put_text(sheet, text, left + 0.3 * size, base, value, " ")
        fields[_lower(name)] = ways_to_write(text)
    y = margin + title_height + row_height * rows
    for name in ticks:
        base = y + base_line(row_height, size)
        x = put_text(sheet, f"{name}:", margin, base, label) + size
        chosen = rng.choice(_CHOICES[name])
        for choice in _CHOICES[name]:
            side = round(0.8 * size)
            sheet.frame(x, base - side, x + side, base, theme.ink)
            if choice == chosen:
                sheet.box(x + 3, base - side + 3, x + side - 2, base - 2, theme.ink)
            x = put_text(sheet, choice, x + 1.3 * size, base, value, " ") + 1.2 * size
        fields[f"option ticked under {name}"] = (chosen,)
        sheet.size = (max(sheet.size[0], round(x) + margin), sheet.size[1])
        y += row_height
    sheet.size = (max(sheet.size[0], round(_right(sheet)) + margin), sheet.size[1])
    truth = Truth("form", fields, absent=tuple(_lower(name) for name in _FIELDS if name not in names))
    return sheet, truth, f"{manner}, {columns} column{'s' * (columns > 1)}"


def _right(sheet: Sheet) -> float:
    """Where the longest line or box ends."""
    words = max(x + text_width(text, style) for text, x, _, style, _ in sheet.words)
    return max([words, *(edges[2] for _, edges, _, _ in sheet.shapes)])


def _lower(name: str) -> str:
    return name if name == "E-mail" else name.lower()


@register
class Forms(ScannedKind):
    name = "forms"
    help = "forms and receipts (OCR and questions for values)"

    def own_options(self, parser):
        parser.add_argument("--kind-of-form", choices=("both", "form", "receipt"), default="both", help="default: both")

    def renderer(self, options):
        look = Look(Path(options.source), options.split, options.language)
        return FormRenderer(look, options.seed, options.kind_of_form, options.degrade)
