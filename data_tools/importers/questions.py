"""``docvqa``, ``chartqa`` and ``textvqa``: questions about documents, charts and photographs with text."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_tools.importers.base import (
    Dropped,
    Entry,
    Grouped,
    Importer,
    evaluation_options,
    folder_of,
    read_json_list,
)
from data_tools.program import register
from data_tools.writer import generator, question_row
from varytoy.data.questions import Question, chartqa, docvqa, first_file, read_data, textvqa
from varytoy.tasks import TASKS

BARE = 0.25
"""Share of the training questions that do not ask for a short answer."""


class Questions(Importer):
    """Base: a subclass reads a record. All answers of people become ``references``."""

    key: str
    form: str

    def options(self, parser):
        super().options(parser)
        evaluation_options(parser, "the answer of most people, and standard prompts only")

    def records(self, options) -> Iterator[Entry]:
        """Raises ValueError, OSError."""
        return read_json_list(options.annotations, self.form)

    def groups(self, options):
        return Grouped(self.records(options), self.key)

    @staticmethod
    def question(record: Mapping[str, Any]) -> Question:
        """Raises as ``rows``."""
        raise NotImplementedError

    def rows(self, entry, options):
        number, names, question, answers = self.question(entry.record)
        question = " ".join(question.split())
        answers = [" ".join(answer.split()) for answer in answers]
        answers = [answer for answer in answers if answer]
        if not answers:
            raise Dropped("question without an answer")
        if not question:
            raise Dropped("question without words")
        number = number or entry.where.rpartition(" ")[2]
        rng = generator(options.seed, self.name, number)
        counts = Counter(answers)
        if options.evaluate:
            prompt, answer = TASKS["vqa"].prompt(question), counts.most_common(1)[0][0]
        else:
            answer = rng.choice(agreed(answers))
            prompt = question if rng.random() < BARE else TASKS["vqa"].prompt(question, rng)
        row = question_row("vqa", prompt, answer, annotations={"references": answers})
        yield {**row, "id": str(number), "images": [first_file(folder_of(options), *names)]}


def agreed(answers: Sequence[str]) -> list[str]:
    """The answers that at least two people gave; all, where there are none."""
    counts = Counter(answers)
    return [answer for answer in answers if counts[answer] > 1] or list(answers)


class _OfData(Questions):
    """Base of those whose records are the list ``data`` of an object."""

    def records(self, options):
        for number, record in read_data(options.annotations, self.form):
            yield Entry(f"{options.annotations} entry {number}", record)


@register
class DocVqa(_OfData):
    name = "docvqa"
    help = "import DocVQA's questions about scanned documents"
    licence = "as the Robust Reading Competition states (DocVQA); documents of the UCSF Industry Documents Library"
    takes = form = "train_v1.0_withQT.json"
    images = "images, which holds `documents`"
    key = "image"
    question = staticmethod(docvqa)


@register
class ChartQa(Questions):
    name = "chartqa"
    help = "import ChartQA's questions about charts"
    licence = "GPL-3.0 (ChartQA)"
    takes = form = "train_human.json or train_augmented.json"
    images = "images, `png` or the folder that holds it"
    key = "imgname"
    question = staticmethod(chartqa)


@register
class TextVqa(_OfData):
    name = "textvqa"
    help = "import TextVQA's questions about text in photographs"
    licence = "CC-BY-4.0 (TextVQA); photographs of Open Images, CC-BY-2.0"
    takes = form = "TextVQA_0.5.1_train.json or TextVQA_0.5.1_val.json"
    images = "images, or the folder that holds `train_images`"
    key = "image_id"
    question = staticmethod(textvqa)
