"""Evaluate a model on freshly rendered samples that share nothing with training."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.render.scenes import SceneRenderer
from data_tools.writer import Renderer, write_samples
from train import contact_sheet
from train.answers import answered, answers, scorable
from train.baselines import Guesses
from train.baselines import rows as compare
from train.data.bad_samples import BadSamples
from train.run_folder import writing
from varytoy.data.boxes import parse_boxes
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import read_samples
from varytoy.inference.reader import Reader
from varytoy.tasks import TASKS, Task, metrics

_BATCH, _WORST = 32, 20
BLOCKS = BlockOptions(lines=(1, 8), columns=(8, 90), font_size=(12, 28), blank=0.0)


class Evaluator:
    """Renders test samples once and runs the model on them, in batches of images of similar size."""

    def __init__(self, reader: Reader, text_source: Path, picture_source: Path | None, count: int, seed: int):
        self.reader, self.count, self.seed = reader, count, seed
        self.text_source, self.picture_source = text_source, picture_source

    def table(self) -> dict[str, float]:
        """Metric -> value, in the order of the README."""
        table: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as folder:
            table |= self._text_scores(Path(folder) / "blocks")
            if self.picture_source is not None:
                table |= self._scene_scores(Path(folder) / "scenes")
        return table

    def _text_scores(self, folder: Path) -> dict[str, float]:
        samples = self._render(folder, BlockRenderer(self.text_source, self.seed, "test", BLOCKS))
        scores = {}
        for task, name in (("ocr", "block CER"), ("markdown", "markdown tree similarity")):
            chosen = [sample for sample in samples if sample.task == task]
            if not chosen:  # the score of an empty set would be perfect
                continue
            outputs = answers(self.reader, chosen)
            scores[name] = TASKS[task].score([answer.text for answer in outputs], chosen)
            if task == "ocr":
                scores["blocks ended by a loop"] = metrics.mean(answer.stop_reason == "loop" for answer in outputs)
        blank = BlockRenderer(self.text_source, self.seed + 1, "test", BlockOptions(blank=1.0))
        samples = self._render(folder.with_name("blank"), blank, max(self.count // 8, 8))
        scores["blank pages left empty"] = metrics.mean(
            not answer.text.strip() for answer in answers(self.reader, samples)
        )
        return scores

    def _scene_scores(self, folder: Path) -> dict[str, float]:
        samples = self._render(folder, SceneRenderer(self.picture_source, self.seed, "test"))
        names = {
            "detect": "detection F1 at IoU 0.5",
            "ground": "grounding accuracy at IoU 0.5",
            "vqa": "questions right",
            "caption": "captions: objects named",
        }
        scores = {}
        for task, name in names.items():
            chosen = [sample for sample in samples if sample.task == task]
            if task == "caption":
                chosen = [sample for sample in chosen if sample.annotations.object_names]
            if task == "ground":
                chosen = [sample for sample in chosen if sample.boxes]
            if not chosen:
                continue
            texts = [answer.text for answer in answers(self.reader, chosen)]
            scores[name] = TASKS[task].score(texts, chosen)
            if task == "detect":
                scores |= _precision("detection", texts, chosen)
            if task in ("vqa", "caption"):
                scores[f"{name}, vision off"] = self._score(task, chosen, vision=False)
            if task == "vqa":
                scores[f"{name}, blank picture"] = self._score(task, chosen, blank=True)
        return scores

    def _score(self, task: str, samples: Sequence[Sample], **changes) -> float:
        return TASKS[task].score([answer.text for answer in answers(self.reader, samples, **changes)], samples)

    def _render(self, folder: Path, renderer: Renderer, count: int | None = None) -> list[Sample]:
        write_samples(folder, count or self.count, renderer)
        return list(read_samples(folder))


def _precision(name: str, texts: Sequence[str], samples: Sequence[Sample]) -> dict[str, float]:
    """COCO's average precision of detection answers; empty if no sample has a box."""
    pair = metrics.average_precision([parse_boxes(text) for text in texts], [sample.boxes for sample in samples])
    return {} if pair is None else {f"{name} AP@[.50:.95]": pair[0], f"{name} AP50": pair[1]}


def evaluate(
    open_reader: Callable[[], Reader],
    text_source: Path,
    picture_source: Path | None,
    count: int,
    seed: int,
) -> dict[str, float]:
    """All scores of a model, which ``open_reader`` loads."""
    torch.manual_seed(seed)
    reader = open_reader()
    scores = Evaluator(reader, text_source, picture_source, count, seed).table()
    return {name: round(value, 4) for name, value in scores.items()}


def score_samples(
    open_reader: Callable[[], Reader], folder: Path, max_new_tokens: int = 1024, worst: Path | None = None
) -> dict[str, float]:
    """Scores on a user's own samples: the metric of each of their tasks. Of a conversation the last answer is scored.
    Samples that cannot be answered or scored are reported, counted and skipped. ``worst``: a folder for contact sheets
    ``TASK.png`` of the 20 worst answers of each task.

    Raises:
        SampleError: no sample is left.
    """
    reader = open_reader()
    bad = BadSamples()
    groups: dict[str, list[Sample]] = {}
    for sample in scorable(read_samples(folder, on_error=bad), bad):
        groups.setdefault(sample.task, []).append(sample)
    scores = {}
    for name, chosen in sorted(groups.items()):
        pairs = answered(reader, chosen, bad, max_new_tokens)
        if pairs:
            outputs, chosen = zip(*pairs, strict=True)
            texts = [answer.text for answer in outputs]
            task = TASKS[name]
            scores[f"{name}, {len(chosen)} samples: {task.metric_of(chosen)}"] = task.score(texts, chosen)
            scores |= _by_kind(task, texts, chosen)
            if worst is not None:
                contact_sheet.draw(contact_sheet.worst(texts, chosen, _WORST), worst / f"{name}.png")
            if name == "detect":
                scores |= _precision(name, texts, chosen)
            if name == "ocr":
                scores["ocr: word error rate"] = metrics.word_error_rate(texts, [sample.answer for sample in chosen])
            scores[f"{name}: ended by a loop"] = metrics.mean(answer.stop_reason == "loop" for answer in outputs)
            scores[f"{name}: cut at the limit"] = metrics.mean(answer.stop_reason == "length" for answer in outputs)
    if not scores:
        raise SampleError(f"{folder}: no samples with an image that could be scored ({bad.count} bad ones)")
    if bad.count:
        scores["bad samples, left out"] = bad.count
    return {name: round(value, 4) for name, value in scores.items()}


def compare_samples(
    open_reader: Callable[[], Reader], folder: Path, training: Path, max_new_tokens: int = 1024
) -> dict[str, dict]:
    """Scores on samples about pictures, by kind, beside those of baselines (train.baselines) that learn from the
    samples of ``training``.

    Raises:
        SampleError: no sample is left.
    """
    reader = open_reader()
    bad = BadSamples()
    samples = list(scorable(read_samples(folder, on_error=bad), bad))
    if not samples:
        raise SampleError(f"{folder}: no samples with an image that could be scored ({bad.count} bad ones)")
    guesses = Guesses(training)

    def answer(chosen: Sequence[Sample], way: str) -> list[str]:
        if not way:
            return [each.text for each in answers(reader, chosen, batch=_BATCH, max_new_tokens=max_new_tokens)]
        # Without a picture the same prompt has the same answer.
        firsts = list({sample.prompt: sample for sample in chosen}.values())
        said = answers(reader, firsts, way != "off", True, _BATCH, max_new_tokens)
        text_of = {sample.prompt: each.text for sample, each in zip(firsts, said, strict=True)}
        return [text_of[sample.prompt] for sample in chosen]

    return compare(samples, guesses, answer)


def _by_kind(task: Task, texts: Sequence[str], samples: Sequence[Sample]) -> dict[str, float]:
    """The scores of samples whose ``metadata`` has a ``kind``, for each kind."""
    kinds: dict[str, list[int]] = {}
    for number, sample in enumerate(samples):
        if isinstance(sample.metadata.get("kind"), str):
            kinds.setdefault(sample.metadata["kind"], []).append(number)
    return {
        f"{task.name}, {len(numbers)} of {kind}": task.score([texts[n] for n in numbers], [samples[n] for n in numbers])
        for kind, numbers in sorted(kinds.items())
    }


def write_table(table: dict[str, float], target: Path) -> None:
    with writing(target):
        target.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
