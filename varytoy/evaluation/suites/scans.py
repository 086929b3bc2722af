"""Scanned pages with their words in hOCR, receipts with their lines in JSON, and DocBank's pages."""

import re
from html.parser import HTMLParser

from varytoy.data.boxes import Box, around
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import boxes
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import PICTURES, checked, read_json, read_text, size_of, with_answers
from varytoy.evaluation.suites.folders import reading_metrics
from varytoy.evaluation.suites.sroie import WithoutCase, page_text, quad_box

_BOX = re.compile(r"\bbbox\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)")


@register
class Scans(Suite):
    name = "scans"
    help = "scanned pages with their words in hOCR (edit distance, error rates, lines)"
    layout = "NAME.png (or .jpg, …) with NAME.hocr"

    def cases(self, folder, options):
        return [self._case(*pair) for pair in with_answers(folder, PICTURES, ".hocr", self.layout)]

    def _case(self, picture, file):
        size = size_of(picture)
        with checked(str(file), self.layout):
            lines = [Box.from_pixels(text, sides, *size) for text, sides in hocr_lines(read_text(file))]
        if not lines:
            raise SuiteError(f"{file} has no words (class ocrx_word): give {self.layout}")
        truth = "\n".join(line.label for line in lines)
        return Case(picture.stem, "ocr", picture, references=(truth,), boxes=tuple(lines))

    def metrics(self, options):
        return [*reading_metrics(), boxes.spotting_f1(), boxes.spotting_f1(text=False)]


@register
class Receipts(Suite):
    """Case is ignored, since receipts are often written down in capitals, as SROIE's are."""

    name = "receipts"
    help = "receipts with the corners and texts of their lines (edit distance, error rates, lines; case is ignored)"
    layout = 'NAME.jpg (or .png, …) with NAME.json: {"lines": [{"quad": [x1, y1, … x4, y4], "text": …}]}, in pixels'

    def cases(self, folder, options):
        return [self._case(*pair) for pair in with_answers(folder, PICTURES, ".json", self.layout)]

    def _case(self, picture, file):
        size, lines = size_of(picture), []
        tree = read_json(file, self.layout)
        with checked(str(file), self.layout):
            entries = list(tree["lines"])
        for number, line in enumerate(entries, 1):
            with checked(f"{file} line {number}", self.layout):
                lines.append(quad_box(line["quad"], line["text"], size))
        lines = [line for line in lines if line.label]
        return Case(picture.stem, "ocr", picture, references=(page_text(lines),), boxes=tuple(lines))

    def metrics(self, options):
        return [*map(WithoutCase, reading_metrics()), boxes.spotting_f1(), boxes.spotting_f1(text=False)]


@register
class DocBank(Suite):
    name = "docbank"
    help = "DocBank's pages of papers (edit distance, error rates)"
    layout = "NAME_ori.jpg with NAME.txt: token, x1, y1, x2, y2, … in a line, with tabs"

    def cases(self, folder, options):
        pictures = sorted(folder.glob("*_ori.jpg"))
        if not pictures:
            raise SuiteError(f"no *_ori.jpg in {folder}: give a folder with {self.layout}")
        return [self._case(picture) for picture in pictures]

    def _case(self, picture):
        name = picture.stem.removesuffix("_ori")
        file = picture.with_name(f"{name}.txt")
        if not file.is_file():
            raise SuiteError(f"{picture} has no {file.name}: give {self.layout}")
        rows = [line.split("\t") for line in read_text(file).splitlines() if line.strip()]
        bad = next((number for number, row in enumerate(rows, 1) if len(row) < 5), None)
        if bad:
            raise SuiteError(f"{file} line {bad} has no token and four numbers: give {self.layout}")
        tokens = [row[0] for row in rows if not row[0].startswith("##LT")]  # figures and rules
        return Case(name, "ocr", picture, references=(" ".join(tokens),))

    def metrics(self, options):
        return reading_metrics()


def hocr_lines(text: str) -> list[tuple[str, list[float]]]:
    """The words of each line and its box, in the order of the file. Raises ValueError for a word without a box."""
    reader = _Hocr()
    reader.feed(text)
    reader.close()
    lines: dict[int, list[tuple[str, list[int]]]] = {}
    for line, word, box in reader.words:
        if word.strip():
            lines.setdefault(line, []).append((word.strip(), box))
    found = []
    for words in lines.values():
        found.append((" ".join(word for word, _ in words), list(map(float, around([box for _, box in words])))))
    return found


class _Hocr(HTMLParser):
    """Collects (number of the line, text, box) of each word."""

    def __init__(self):
        super().__init__()
        self.words: list[tuple[int, str, list[int]]] = []
        self._line, self._open = 0, 0

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        classes = (values.get("class") or "").split()
        if self._open:
            self._open += tag not in ("br", "img")
        elif {"ocrx_word", "ocr_word"} & set(classes):
            box = _BOX.search(values.get("title") or "")
            if not box:
                raise ValueError(f"line {self.getpos()[0]}: a word without bbox")
            self.words.append((self._line, "", [int(side) for side in box.groups()]))
            self._open = 1
        elif any(each in ("ocr_line", "ocrx_line", "ocr_header", "ocr_caption", "ocr_textfloat") for each in classes):
            self._line += 1

    def handle_endtag(self, tag):
        self._open = max(self._open - 1, 0)

    def handle_data(self, data):
        if self._open:
            line, word, box = self.words[-1]
            self.words[-1] = (line, word + data, box)
