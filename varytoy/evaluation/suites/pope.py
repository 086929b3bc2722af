"""POPE: whether an object is in a photograph, asked about objects that are and that are not."""

from varytoy.data.questions import Question
from varytoy.evaluation.metrics import questions
from varytoy.evaluation.suite import SuiteError, register
from varytoy.evaluation.suites.base import QuestionSuite, Record, parts_option, read_lines

PARTS = ("random", "popular", "adversarial")


@register
class Pope(QuestionSuite):
    name = "pope"
    help = "POPE's questions whether an object is in a photograph (accuracy, F1); groups: random, popular, adversarial"
    layout = "coco_pope_random.json, coco_pope_popular.json and coco_pope_adversarial.json, and val2014/"
    images = "val2014/, COCO's photographs"

    def options(self, parser):
        super().options(parser)
        parts_option(parser, "--parts", PARTS, "of the questions (default: those that are there)")

    def records(self, folder, options):
        parts = options.parts or [part for part in PARTS if (folder / f"coco_pope_{part}.json").is_file()]
        if not parts:
            raise SuiteError(f"no coco_pope_random.json in {folder}: give a folder with {self.layout}")
        for part in parts:
            file = folder / f"coco_pope_{part}.json"
            if not file.is_file():
                raise SuiteError(f"no {file.name} in {folder}: leave {part} out of --parts")
            for number, (where, record) in enumerate(read_lines(file, self.layout), 1):
                yield Record(where, part, f"{part}-{number}", record)

    @staticmethod
    def question(record):
        if record["label"] not in ("yes", "no"):
            raise ValueError(f"the label {record['label']!r} is not yes or no")
        name = record["image"]
        return Question(None, (f"val2014/{name}", name), record["text"], [record["label"]])

    def metrics(self, options):
        return questions.yes_no()
