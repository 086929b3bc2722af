"""Ask a model the questions of samples. A batch that fails is halved, down to the sample that cannot be asked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from PIL import Image
from tqdm import tqdm

from train.baselines import branches_off
from train.data.bad_samples import fault, open_sample
from varytoy.data.answer import Answer
from varytoy.data.sample import Sample, SampleError
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.processing.processor import Message
from varytoy.tasks import TASKS, Task

_GREY = (127, 127, 127)


def answers(
    reader: Reader,
    samples: Sequence[Sample],
    vision: bool = True,
    blank: bool = False,
    batch: int = 8,
    max_new_tokens: int = 1024,
    search: bool = True,
) -> list[Answer]:
    """The model's raw answers, each image read in one pass; in the order of ``samples``, all of one task."""
    views = [_view(reader, sample, blank) for sample in samples]
    questions = [sample.messages[:-1] for sample in samples]
    task = TASKS[samples[0].task]
    with nullcontext() if vision else branches_off(reader.engine_for(task.view).model):
        return answer_all(reader, questions, views, task, batch, max_new_tokens, search)


def _view(reader: Reader, sample: Sample, blank: bool) -> Image.Image:
    image = open_sample(sample)[0]
    if blank:
        return Image.new("RGB", image.size, "white" if TASKS[sample.task].view == "text" else _GREY)
    return reader.fit_text(image) if TASKS[sample.task].view == "text" else image


def answer_all(
    reader: Reader,
    questions: Sequence[Sequence[Message]],
    views: Sequence[Image.Image],
    task: Task,
    batch: int = 8,
    max_new_tokens: int = 1024,
    search: bool = True,
) -> list[Answer]:
    """Raw answers to questions about one image each, in batches of images of similar size; in the order given.
    ``search``: whether tasks that pay for it are answered with beams."""
    order = sorted(range(len(views)), key=lambda number: views[number].width * views[number].height)
    answers: dict[int, Answer] = {}
    for start in tqdm(range(0, len(order), batch), unit="batch", leave=False, disable=len(order) <= batch):
        part = order[start : start + batch]
        requests = [Request.of(task, questions[number], [views[number]], max_new_tokens) for number in part]
        if not search:
            requests = [replace(request, search=False) for request in requests]
        answers |= zip(part, reader.engine_for(task.view).generate(requests), strict=True)
    return [answers[number] for number in range(len(views))]


def metric_name(task: Task, samples: Sequence[Sample]) -> str:
    """Task and metric, e.g. ``ocr character error rate``."""
    metric = task.metric_of(samples)
    return metric if metric.startswith(task.name) else f"{task.name} {metric}"


def scorable(samples: Iterable[Sample], bad: Callable[[Exception], None]) -> Iterator[Sample]:
    """The samples with one image whose answers can be scored; ``bad`` is called with the reason for each other."""
    return (sample for sample in samples if _can_be_scored(sample, bad))


def _can_be_scored(sample: Sample, bad: Callable[[Exception], None]) -> bool:
    try:
        if sample.task not in TASKS:
            raise ValueError(f"there is no task '{sample.task}'; there are {', '.join(TASKS)}")
        if len(sample.images) != 1:
            raise ValueError(f"{len(sample.images)} images; expected one")
        TASKS[sample.task].score([sample.answer], [sample])
    except Exception as error:  # annotations or boxes that the metric needs may be missing or malformed
        bad(fault(sample, error))
        return False
    return True


def answered(
    reader: Reader,
    samples: Sequence[Sample],
    bad: Callable[[Exception], None],
    max_new_tokens: int = 1024,
    batch: int = 8,
    search: bool = True,
    on_retry: Callable[[Exception], None] | None = None,
) -> list[tuple[Answer, Sample]]:
    """The answers with their samples, all of one task; a batch that fails is halved, down to single samples.

    ``bad``: called with the error of each sample that cannot be asked; ``on_retry``: with that of each larger batch.
    """
    try:
        given = answers(reader, samples, batch=batch, max_new_tokens=max_new_tokens, search=search)
        return list(zip(given, samples, strict=True))
    except Exception as error:  # of any kind: one sample must not end the evaluation
        if len(samples) == 1:
            bad(_fault(samples[0], error))
        elif on_retry is not None:
            error.__traceback__ = error.__context__ = None  # which hold the batch's tensors
            on_retry(error)
    # Outside of the except, whose traceback holds the batch's tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(samples) == 1:
        return []
    half = len(samples) // 2  # so that few are run again
    parts = (samples[:half], samples[half:])
    return [
        pair
        for part in parts
        for pair in answered(reader, part, bad, max_new_tokens, min(batch, half), search, on_retry)
    ]


def _fault(sample: Sample, error: Exception) -> SampleError:
    if isinstance(error, torch.OutOfMemoryError):
        return SampleError(f"{sample.name}: out of memory")
    return fault(sample, error)
