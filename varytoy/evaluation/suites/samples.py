"""Folders of varytoy's samples: photographs, drawn scenes, rendered pages."""

import numpy as np

from varytoy.data.boxes import SCALE, parse_boxes
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import read_samples
from varytoy.data.spots import parse_spots
from varytoy.evaluation.case import Case
from varytoy.evaluation.metric import Metric, Whole
from varytoy.evaluation.metrics import boxes, questions, tables, text
from varytoy.evaluation.suite import Suite, SuiteError, register
from varytoy.evaluation.suites.base import parts_option, with_pictures
from varytoy.layout.frames import place_in_prompt
from varytoy.tasks import TASKS, find_prompt

METRICS = {
    "ocr": (text.normalised_edit_distance, text.character_error_rate),
    "markdown": (tables.markdown_similarity, text.normalised_edit_distance, tables.teds),
    "spot": (boxes.spotting_f1, lambda: boxes.spotting_f1(text=False), boxes.line_iou),
    "formula": (text.normalised_edit_distance,),
    "music": (text.normalised_edit_distance,),
    "geometry": (text.normalised_edit_distance,),
    "molecule": (questions.same_molecule,),
    "caption": (text.cider_d,),
    "vqa": (questions.exact_match,),
    "ground": (boxes.grounding_accuracy,),
    "detect": (boxes.detection_f1, boxes.average_precision, lambda: boxes.average_precision(at_half=True)),
}
"""Task -> its metrics, the task's own among them."""
_WRITTEN_BOXES = {"ground": parse_boxes, "detect": parse_boxes, "spot": lambda answer: parse_spots(answer).lines}
"""Task whose answer is boxes -> how they are read."""


@register
class Samples(Suite):
    """Groups are the task and the sample's ``metadata.kind``."""

    name = "samples"
    help = "a folder of varytoy's samples, scored by task; groups: task and kind"
    layout = "samples.jsonl and images/, as `python -m data_tools` writes them"

    def options(self, parser):
        parts_option(parser, "--tasks", list(METRICS), "of the samples (default: all; others in the file are an error)")

    def cases(self, folder, options):
        try:
            samples = list(read_samples(folder))
        except (SampleError, FileNotFoundError) as error:
            raise SuiteError(str(error)) from error
        if options.tasks:
            samples = [sample for sample in samples if sample.task in options.tasks]
        return with_pictures([case_of(sample) for sample in samples], "all images of the samples")

    def metrics(self, options):
        chosen = options.tasks or METRICS
        return [of_task(task, make()) for task, makers in METRICS.items() for make in makers if task in chosen]


def case_of(sample: Sample) -> Case:
    """Raises SuiteError for a sample that is not one question about one image."""
    if sample.task not in METRICS:
        others = " ".join(METRICS)
        raise SuiteError(f"{sample.name}: the task {sample.task} is not scored; choose with --tasks {others}")
    if len(sample.images) != 1 or len(sample.messages) > 2 + (sample.messages[0]["role"] == "system"):
        raise SuiteError(f"{sample.name}: not one question about one image; leave it out of the folder")
    place, _ = place_in_prompt(sample.prompt, (SCALE, SCALE))
    task, prompt = (sample.task, "") if place is not None else _asked(sample)
    written = _WRITTEN_BOXES.get(sample.task)
    truth = () if written else (sample.answer,)
    references = dict.fromkeys((*truth, *sample.annotations.references))
    if sample.task == "caption":
        references = dict.fromkeys(sample.annotations.references or truth)
    kind = sample.metadata.get("kind")
    group = f"{sample.task} {kind}" if kind else sample.task
    return Case(
        sample.id or sample.where,
        task,
        sample.image_paths()[0],
        prompt=prompt,
        references=tuple(references),
        boxes=tuple(sample.boxes or (written(sample.answer) if written else ())),
        place=place,
        group=group,
        facts={"task": sample.task},
    )


def _asked(sample: Sample) -> tuple[str, str]:
    """The task that a system is asked, and what it takes. A caption that is asked for in other words, such as Chinese
    ones, is asked for in them."""
    if sample.task == "detect":
        return "detect", ", ".join(sample.annotations.classes)
    known = find_prompt(sample.prompt)
    if known and known[0].name == sample.task:
        return sample.task, known[1]
    if sample.task == "caption":
        return "chat", sample.prompt
    return sample.task, sample.prompt if TASKS[sample.task].takes else ""


def of_task(task: str, metric: Metric) -> Metric:
    """A metric of the cases of one task; the others count nothing."""
    if not isinstance(metric, Whole):
        return OfTask(task, metric)

    def prepare(predictions, cases):
        own = [number for number, case in enumerate(cases) if case.facts["task"] == task]
        place = {number: index for index, number in enumerate(own)}
        value = metric.prepare([predictions[number] for number in own], [cases[number] for number in own])
        return lambda chosen: value([place[number] for number in chosen if number in place])

    return Whole(f"{task}: {metric.name}", prepare, metric.is_error)


class OfTask(Metric):
    """``of_task`` of a metric that is made of sums."""

    def __init__(self, task: str, metric: Metric):
        self.task, self.metric = task, metric
        self.name, self.is_error = f"{task}: {metric.name}", metric.is_error

    def rows(self, predictions, cases):
        own = [number for number, case in enumerate(cases) if case.facts["task"] == self.task]
        measured = self.metric.rows([predictions[number] for number in own], [cases[number] for number in own])
        rows = np.zeros((len(cases), measured.shape[1]))
        rows[own] = measured
        return rows

    def value(self, sums):
        return self.metric.value(sums)
