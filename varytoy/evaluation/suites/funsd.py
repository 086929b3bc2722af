"""FUNSD: scanned forms with their words."""

from varytoy.data.boxes import Box, around
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import boxes, text
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import checked, in_rows, read_json, size_of, with_pictures


@register
class Funsd(Suite):
    """The text of a form is its words, row by row across the page. Lines of text are the words of an entity that stand
    in a row."""

    name = "funsd"
    help = "FUNSD's scanned forms: their words and lines"
    layout = "testing_data/annotations/NAME.json and testing_data/images/NAME.png"

    def cases(self, folder, options):
        parts = ("", "testing_data", "dataset/testing_data")
        base = next((folder / part for part in parts if (folder / part / "annotations").is_dir()), None)
        files = sorted((base / "annotations").glob("*.json")) if base else []
        if base is None or not files:
            raise SuiteError(f"no testing_data/annotations/*.json in {folder}: give a folder with {self.layout}")
        pictures = {file: base / "images" / f"{file.stem}.png" for file in files}
        empty = [Case(file.stem, "ocr", picture) for file, picture in pictures.items()]
        with_pictures(empty, self.layout)
        return [self._case(file, picture) for file, picture in pictures.items()]

    def _case(self, file, picture) -> Case:
        size, words, lines = size_of(picture), [], []
        tree = read_json(file, self.layout)
        with checked(str(file), self.layout):
            form = list(tree["form"])
        for number, entity in enumerate(form, 1):
            with checked(f"{file} entity {number}", self.layout):
                own = [Box.from_pixels(word["text"], word["box"], *size) for word in entity["words"]]
                own = [word for word in own if word.label]
            words += own
            lines += [_joined(row) for row in in_rows(own)]
        page = "\n".join(" ".join(word.label for word in row) for row in in_rows(words))
        return Case(file.stem, "ocr", picture, references=(page,), boxes=tuple(lines))

    def metrics(self, options):
        return [text.word_f1(), text.normalised_edit_distance(), boxes.spotting_f1(), boxes.spotting_f1(text=False)]


def _joined(row: list[Box]) -> Box:
    return Box(" ".join(word.label for word in row), around([word.xyxy for word in row]))
