"""ChartQA: questions of people and of a program about charts."""

from varytoy.data.questions import chartqa
from varytoy.evaluation.metrics import questions
from varytoy.evaluation.suite import register
from varytoy.evaluation.suites.base import QuestionSuite, Record, find, read_list


@register
class ChartQa(QuestionSuite):
    name = "chartqa"
    help = "ChartQA's questions about charts (relaxed accuracy); groups: human, augmented"
    layout = "test_human.json and test_augmented.json, and png/ (ChartQA's folder test)"
    images = "png/"
    question = staticmethod(chartqa)

    def options(self, parser):
        super().options(parser)
        parser.add_argument("--split", choices=("val", "test"), default="test")

    def records(self, folder, options):
        for part in ("human", "augmented"):
            file = find(folder, (f"{options.split}_{part}.json",), self.layout)
            for number, (where, record) in enumerate(read_list(file, self.layout), 1):
                yield Record(where, part, f"{part}-{number}", record)

    def metrics(self, options):
        return [questions.relaxed_accuracy(), questions.exact_match()]
