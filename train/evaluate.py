"""The table of a model's abilities, measured on freshly rendered samples that share nothing with training."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.render.scenes import SceneRenderer
from data_tools.writer import Renderer, write_samples
from train.data.bad_samples import BadSamples, fault, open_sample
from train.pages import with_texts
from train.run_folder import writing
from varytoy.data.answer import Answer
from varytoy.data.boxes import parse_boxes
from varytoy.data.sample import Sample, SampleError, image_size, open_image
from varytoy.data.samples import read_samples
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.processing.processor import Message
from varytoy.tasks import TASKS, Task, metrics

BLOCKS = BlockOptions(lines=(1, 8), columns=(8, 90), font_size=(12, 28), blank=0.0)


class Evaluator:
    """Renders test samples once and asks the model about them, in batches of like-sized pictures."""

    def __init__(self, reader: Reader, text_source: Path, picture_source: Path | None, count: int, seed: int):
        self.reader, self.count, self.seed = reader, count, seed
        self.text_source, self.picture_source = text_source, picture_source

    def table(self) -> dict[str, float]:
        """Metric -> value, in the order of the README."""
        found: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            found |= self._reading(Path(folder) / "blocks")
            if self.picture_source is not None:
                found |= self._pictures(Path(folder) / "scenes")
        return found

    def _reading(self, folder: Path) -> dict[str, float]:
        samples = self._render(folder, BlockRenderer(self.text_source, self.seed, "test", BLOCKS))
        found = {}
        for task, name in (("ocr", "block CER"), ("markdown", "markdown tree similarity")):
            chosen = [sample for sample in samples if sample.task == task]
            if not chosen:  # a score of nothing would be a perfect one
                continue
            given = answers(self.reader, chosen)
            found[name] = TASKS[task].score([answer.text for answer in given], chosen)
            if task == "ocr":
                found["blocks ended by a loop"] = metrics.mean(answer.stop_reason == "loop" for answer in given)
        blank = BlockRenderer(self.text_source, self.seed + 1, "test", BlockOptions(blank=1.0))
        samples = self._render(folder.with_name("blank"), blank, max(self.count // 8, 8))
        found["blank pages left empty"] = metrics.mean(
            not answer.text.strip() for answer in answers(self.reader, samples)
        )
        return found

    def _pictures(self, folder: Path) -> dict[str, float]:
        samples = self._render(folder, SceneRenderer(self.picture_source, self.seed, "test"))
        names = {
            "detect": "detection F1 at IoU 0.5",
            "ground": "grounding accuracy at IoU 0.5",
            "vqa": "questions right",
            "caption": "captions: objects named",
        }
        found = {}
        for task, name in names.items():
            chosen = [sample for sample in samples if sample.task == task]
            if task == "caption":
                chosen = [sample for sample in chosen if sample.annotations.object_names]
            if task == "ground":
                chosen = [sample for sample in chosen if sample.boxes]
            if not chosen:
                continue
            given = [answer.text for answer in answers(self.reader, chosen)]
            found[name] = TASKS[task].score(given, chosen)
            if task == "detect":
                found |= _precision("detection", given, chosen)
            if task in ("vqa", "caption"):
                found[f"{name}, CLIP off"] = self._score(task, chosen, clip=False)
            if task == "vqa":
                found[f"{name}, blank picture"] = self._score(task, chosen, blank=True)
        return found

    def _score(self, task: str, samples: Sequence[Sample], **changes) -> float:
        return TASKS[task].score([answer.text for answer in answers(self.reader, samples, **changes)], samples)

    def _render(self, folder: Path, renderer: Renderer, count: int | None = None) -> list[Sample]:
        write_samples(folder, count or self.count, renderer)
        return list(read_samples(folder))


def answers(
    reader: Reader,
    samples: Sequence[Sample],
    clip: bool = True,
    blank: bool = False,
    batch: int = 8,
    max_new_tokens: int = 1024,
) -> list[Answer]:
    """The model's raw answers, each picture read whole in one pass; in the order of ``samples``, all of one task."""
    views = [_view(reader, sample, blank) for sample in samples]
    questions = [sample.messages[:-1] for sample in samples]
    branch = reader.engine.model.clip
    try:
        if not clip:
            reader.engine.model.clip = None
        return answer_all(reader, questions, views, TASKS[samples[0].task], batch, max_new_tokens)
    finally:
        reader.engine.model.clip = branch


def _precision(name: str, texts: Sequence[str], samples: Sequence[Sample]) -> dict[str, float]:
    """COCO's figures of detection answers; nothing where no sample has a box."""
    pair = metrics.average_precision([parse_boxes(text) for text in texts], [sample.boxes for sample in samples])
    return {} if pair is None else {f"{name} AP@[.50:.95]": pair[0], f"{name} AP50": pair[1]}


def _view(reader: Reader, sample: Sample, blank: bool) -> Image.Image:
    image = open_sample(sample)[0]
    if blank:
        return Image.new("RGB", image.size, "white")
    return reader.fit_text(image) if TASKS[sample.task].view == "text" else image


def answer_all(
    reader: Reader,
    questions: Sequence[Sequence[Message]],
    views: Sequence[Image.Image],
    task: Task,
    batch: int = 8,
    max_new_tokens: int = 1024,
) -> list[Answer]:
    """Raw answers, one picture a question, in batches of like-sized pictures; in the order given."""
    order = sorted(range(len(views)), key=lambda number: views[number].width * views[number].height)
    answers: dict[int, Answer] = {}
    for start in tqdm(range(0, len(order), batch), unit="batch", leave=False):
        part = order[start : start + batch]
        requests = [Request(questions[number], [views[number]], task.view, max_new_tokens) for number in part]
        answers |= zip(part, reader.engine.generate(requests), strict=True)
    return [answers[number] for number in range(len(views))]


def read_blocks(reader: Reader, pairs: Sequence[tuple[Path, str]]) -> float:
    """Mean normalised edit distance on pictures with their texts, each read whole in one pass."""
    views, truths = [reader.fit_text(open_image(path)) for path, _ in pairs], [truth for _, truth in pairs]
    question = [{"role": "user", "content": "<image>\n" + TASKS["ocr"].prompt()}]
    answers = answer_all(reader, [question] * len(pairs), views, TASKS["ocr"])
    return metrics.mean(
        metrics.normalised_edit_distance(answer.text, truth) for answer, truth in zip(answers, truths, strict=True)
    )


def evaluate(
    model: str, text_source: Path, picture_source: Path | None, count: int, seed: int, blocks: Path | None = None
) -> dict[str, float]:
    """All figures of a model. ``blocks``: a folder of block pictures with their texts, to report on as well."""
    pairs = with_texts(blocks, "*.png") if blocks is not None else []  # what is wrong with them is said at once
    for path, _ in pairs:
        image_size(path)
    torch.manual_seed(seed)
    reader = Reader.from_pretrained(model)
    found = Evaluator(reader, text_source, picture_source, count, seed).table()
    if blocks is not None:
        found["print/blocks edit distance"] = read_blocks(reader, pairs)
    return {name: round(value, 4) for name, value in found.items()}


def score_samples(model: str, folder: Path, max_new_tokens: int = 1024) -> dict[str, float]:
    """A model's figures on samples of one's own: a metric for each task among them. Conversations are asked for their
    last answer. Samples that cannot be asked or scored are named, counted and left out.

    Raises:
        SampleError: no sample is left.
    """
    reader = Reader.from_pretrained(model)
    bad = BadSamples()
    groups: dict[str, list[Sample]] = {}
    for sample in read_samples(folder, on_error=bad):
        if _can_be_scored(sample, bad):
            groups.setdefault(sample.task, []).append(sample)
    found = {}
    for name, chosen in sorted(groups.items()):
        pairs = _asked(reader, chosen, bad, max_new_tokens)
        if pairs:
            given, chosen = zip(*pairs, strict=True)
            texts = [answer.text for answer in given]
            found[f"{name}, {len(chosen)} samples: {TASKS[name].metric}"] = TASKS[name].score(texts, chosen)
            if name == "detect":
                found |= _precision(name, texts, chosen)
            if name == "ocr":
                found["ocr: word error rate"] = metrics.word_error_rate(texts, [sample.answer for sample in chosen])
            found[f"{name}: ended by a loop"] = metrics.mean(answer.stop_reason == "loop" for answer in given)
            found[f"{name}: cut at the limit"] = metrics.mean(answer.stop_reason == "length" for answer in given)
    if not found:
        raise SampleError(f"{folder}: no samples with a picture that could be asked ({bad.count} bad ones)")
    if bad.count:
        found["bad samples, left out"] = bad.count
    return {name: round(value, 4) for name, value in found.items()}


def _can_be_scored(sample: Sample, bad: BadSamples) -> bool:
    try:
        if sample.task not in TASKS:
            raise ValueError(f"there is no task '{sample.task}'; there are {', '.join(TASKS)}")
        if len(sample.images) != 1:
            raise ValueError(f"{len(sample.images)} pictures, and one is asked about")
        TASKS[sample.task].score([sample.answer], [sample])
    except Exception as error:  # annotations or boxes that the metric needs may be missing, or of any odd kind
        bad(fault(sample, error))
        return False
    return True


def _asked(
    reader: Reader, samples: Sequence[Sample], bad: BadSamples, max_new_tokens: int
) -> list[tuple[Answer, Sample]]:
    """The answers with their samples; where a batch fails each is asked alone."""
    try:
        return list(zip(answers(reader, samples, max_new_tokens=max_new_tokens), samples, strict=True))
    except Exception as error:  # of any kind: one sample must not end the others
        if len(samples) == 1:
            bad(fault(samples[0], error))
            return []
    half = len(samples) // 2  # so that few are asked again
    parts = (samples[:half], samples[half:])
    return [pair for part in parts for pair in _asked(reader, part, bad, max_new_tokens)]


def write_table(found: dict[str, float], target: Path) -> None:
    with writing(target):
        target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
