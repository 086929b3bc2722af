"""SROIE: scanned receipts, with their lines of text and four fields."""

from dataclasses import replace
from pathlib import Path

from varytoy.data.boxes import Box
from varytoy.evaluation.case import Case
from varytoy.evaluation.metric import Metric
from varytoy.evaluation.metrics import boxes, questions, text
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import checked, in_rows, read_json, read_text, size_of

FIELDS = {
    "company": "What is the name of the company?",
    "date": "What is the date?",
    "address": "What is the address of the company?",
    "total": "What is the total amount?",
}


@register
class Sroie(Suite):
    """The text of a receipt is its lines from top to bottom, and from left to right where they stand beside each other.
    Case is ignored. Fields are asked for one by one, in words of our own."""

    name = "sroie"
    help = "SROIE's receipts: their text and lines (tasks 1 and 2), or four fields of each (--fields, task 3)"
    layout = "img/NAME.jpg with box/NAME.txt (x1,y1,…,x4,y4,text a line) and, for --fields, entities/NAME.txt (JSON)"

    def options(self, parser):
        help = "ask for company, date, address and total in the place of reading the text"
        parser.add_argument("--fields", action="store_true", help=help)

    def cases(self, folder, options):
        base = next((each for each in (folder, folder / "test") if (each / "img").is_dir()), None)
        if base is None:
            raise SuiteError(f"no img in {folder}: give a folder with {self.layout}")
        pictures = sorted(file for file in (base / "img").iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
        read = self._fields if options.fields else self._text
        return [case for picture in pictures for case in read(base, picture)]

    def _partner(self, base: Path, picture: Path, names: tuple[str, ...]) -> Path:
        for name in names:
            file = base / name / f"{picture.stem}.txt"
            if file.is_file():
                return file
        raise SuiteError(f"{picture} has no {names[0]}/{picture.stem}.txt: give {self.layout}")

    def _text(self, base: Path, picture: Path) -> list[Case]:
        file, size = self._partner(base, picture, ("box",)), size_of(picture)
        lines = [
            line_of(line, f"{file} line {number}", size, self.layout)
            for number, line in enumerate(read_text(file, or_else="latin-1").splitlines(), 1)  # some files are
            if line.strip()
        ]
        lines = [line for line in lines if line.label]
        return [Case(picture.stem, "ocr", picture, references=(page_text(lines),), boxes=tuple(lines))]

    def _fields(self, base: Path, picture: Path) -> list[Case]:
        file = self._partner(base, picture, ("entities", "key"))
        tree = read_json(file, self.layout)
        with checked(str(file), self.layout):
            values = {name: " ".join(str(tree.get(name, "")).split()) for name in FIELDS}
        return [
            Case(f"{picture.stem}-{name}", "vqa", picture, prompt=FIELDS[name], references=(value,), group=name)
            for name, value in values.items()
            if value
        ]

    def metrics(self, options):
        if options.fields:
            return [questions.exact_match(), questions.anls()]
        reading = [WithoutCase(metric) for metric in (text.word_f1(), text.normalised_edit_distance())]
        return [*reading, boxes.spotting_f1(), boxes.spotting_f1(text=False)]


class WithoutCase(Metric):
    """A metric of texts in lower case: SROIE's truths are in capitals, whatever is printed."""

    def __init__(self, metric: Metric):
        self.metric = metric
        self.name, self.is_error = f"{metric.name} without case", metric.is_error

    def rows(self, predictions, cases):
        lowered = [replace(each, text=each.text.lower()) for each in predictions]
        true = [replace(case, references=tuple(each.lower() for each in case.references)) for case in cases]
        return self.metric.rows(lowered, true)

    def value(self, sums):
        return self.metric.value(sums)


def line_of(line: str, where: str, size: tuple[int, int], layout: str) -> Box:
    """``x1,y1,x2,y2,x3,y3,x4,y4,text``; the text may have commas. Raises SuiteError."""
    with checked(where, layout):
        *sides, words = line.split(",", 8)
        if len(sides) != 8:
            raise ValueError("not eight numbers and a text")
        return quad_box([float(side) for side in sides], words, size)


def quad_box(quad: list[float], words: str, size: tuple[int, int]) -> Box:
    """The upright box around four corners in pixels. Raises ValueError."""
    if len(quad) != 8:
        raise ValueError("not four corners")
    corners = (min(quad[0::2]), min(quad[1::2]), max(quad[0::2]), max(quad[1::2]))
    return Box.from_pixels(words, corners, *size)


def page_text(lines: list[Box]) -> str:
    """One line of text each, by ``in_rows``."""
    return "\n".join(line.label for row in in_rows(lines) for line in row)
