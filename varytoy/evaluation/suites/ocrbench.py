"""OCRBench: a thousand questions about text of 30 data sets."""

from varytoy.data.questions import Question
from varytoy.evaluation.case import Case
from varytoy.evaluation.metrics import ocrbench, text
from varytoy.evaluation.suite import register
from varytoy.evaluation.suites.base import QuestionSuite, Record, find, read_list

FORMULAS = "Handwritten Mathematical Expression Recognition"


@register
class OcrBench(QuestionSuite):
    """The questions of the six kinds of recognition ("what is written in the image?") become the task ``ocr``, so that
    a model gets the prompt that it knows; those for LaTeX are asked as they stand, the others for a short answer."""

    name = "ocrbench"
    help = "OCRBench's thousand questions about text (answers that contain the truth); groups: its categories"
    layout = "OCRBench.json, and OCRBench_Images/"
    images = "OCRBench_Images/"

    def records(self, folder, options):
        file = find(folder, ("OCRBench.json",), self.layout, inside=("", "OCRBench"))
        for number, (where, record) in enumerate(read_list(file, self.layout), 1):
            with_type = record["type"] if isinstance(record, dict) and isinstance(record.get("type"), str) else ""
            yield Record(where, with_type, str(number), record)

    @staticmethod
    def question(record):
        name, answers = record["image_path"], record["answers"]
        if not (isinstance(record["type"], str) and isinstance(record["dataset_name"], str)):
            raise TypeError("type and dataset_name must be texts")
        answers = answers if isinstance(answers, list) else [answers]
        return Question(None, (f"OCRBench_Images/{name}", name), record["question"], answers)

    def case(self, record: Record, question: Question, file):
        task = "ocr" if record.part.endswith(" Recognition") and record.part != FORMULAS else "vqa"
        task = "chat" if record.part == FORMULAS else task
        facts = {"dataset": record.content["dataset_name"]}
        prompt = "" if task == "ocr" else question.text
        return Case(record.name, task, file, 1, prompt, tuple(question.answers), group=record.part, facts=facts)

    def metrics(self, options):
        return [ocrbench.contained(), ocrbench.exact(), text.length()]
