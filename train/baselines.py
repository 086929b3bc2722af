"""``python -m train evaluate --samples FOLDER --baselines TRAINING_SAMPLES``: a model's scores on pictures beside those
of answers that need no picture.

fixed: one answer for all questions of a kind, the best for the scored samples themselves.
question only: for each question the answer that is most frequent for it in the training samples; for a phrase the mean
box of the phrase, or else of its last word, or else of all.
blank: the model itself, with an even grey picture in place of each.
off: the model itself, with its vision branch's features set to zero.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from varytoy.data.boxes import SCALE, Box, format_box, format_boxes
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.tasks import TASKS, find_prompt, metrics
from varytoy.tasks.cider import CiderD

COLUMNS = ("model", "blank", "off", "question only", "fixed")
_CANDIDATES = 200
"""Captions of the training samples that are tried as the fixed one."""
_WHOLE = (0, 0, SCALE, SCALE)


def kind_of(sample: Sample) -> str:
    """The row of a table that a sample belongs to: its task, or the kind of its question."""
    kind = sample.metadata.get("kind")
    return f"{sample.task}: {kind}" if isinstance(kind, str) else sample.task


def by_kind(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    kinds: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        kinds[kind_of(sample)].append(sample)
    return dict(sorted(kinds.items()))


class Guesses:
    """Answers that need no picture, learned from training samples."""

    def __init__(self, folder: Path, seed: int = 0):
        self.answers: dict[str, Counter] = defaultdict(Counter)
        self.boxes: dict[str, list[Sequence[int]]] = defaultdict(list)
        self.captions: list[str] = []
        for sample in read_samples(folder):
            if sample.task == "ground" and sample.boxes:
                phrase = _argument(sample).casefold()
                for name in (phrase, phrase.split()[-1] if phrase else "", "*"):
                    self.boxes[name].append(sample.boxes[0].xyxy)
            elif sample.task == "caption":
                self.captions.append(sample.answer)
            elif sample.task == "vqa":
                self.answers[_argument(sample).casefold()][sample.answer] += 1
        random.Random(seed).shuffle(self.captions)

    def question_only(self, samples: Sequence[Sample]) -> list[str] | None:
        """None for tasks without questions."""
        task = samples[0].task
        if task == "ground" and self.boxes:
            return [self._box(_argument(sample).casefold()) for sample in samples]
        if task == "vqa" and self.answers:
            every: Counter = sum((self.answers[_argument(sample).casefold()] for sample in samples), Counter())
            usual = every.most_common(1)[0][0] if every else ""
            known = (self.answers.get(_argument(sample).casefold()) for sample in samples)
            return [counts.most_common(1)[0][0] if counts else usual for counts in known]
        return None

    def _box(self, phrase: str) -> str:
        last = phrase.split()[-1] if phrase else ""
        return _mean_box(next(self.boxes[name] for name in (phrase, last, "*") if self.boxes.get(name)))

    def fixed(self, samples: Sequence[Sample]) -> float:
        """The score of the best fixed answer."""
        task = samples[0].task
        if task == "caption":
            tried = self.captions[:_CANDIDATES]
            references = [sample.annotations.references for sample in samples]
            if all(references):
                scorer = CiderD(references)  # as the task's score, with the references counted once for all
                means = (metrics.mean(scorer.score(each, group) for group in references) for each in tried)
                return max(means, default=0.0)
        elif task == "ground":
            tried = [format_box(_WHOLE), *([_mean_box(self.boxes["*"])] if self.boxes else [])]
        elif task == "detect":
            labels = sorted({box.label for sample in samples for box in sample.boxes})
            tried = ["None.", *(format_boxes([Box(label, _WHOLE)]) for label in labels)]
        else:
            answers = Counter(
                answer for sample in samples for answer in (sample.answer, *sample.annotations.references)
            )
            tried = [answer for answer, _ in answers.most_common(20)]
        return max((TASKS[task].score([each] * len(samples), samples) for each in tried), default=0.0)


def _argument(sample: Sample) -> str:
    found = find_prompt(sample.prompt)
    return found[1] if found else sample.prompt


def _mean_box(boxes: Sequence[Sequence[int]]) -> str:
    means = [round(sum(sides) / len(boxes)) for sides in zip(*boxes, strict=True)]
    return format_box((means[0], means[1], means[2], means[3]))


@contextmanager
def branches_off(model: VaryForConditionalGeneration) -> Iterator[None]:
    """Context: the features of all vision branches are zero."""
    hooks = [
        branch.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        for branch in model.encoders.values()
    ]
    model.forget_images()
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        model.forget_images()


def rows(
    samples: Sequence[Sample], guesses: Guesses, answer: Callable[[Sequence[Sample], str], list[str]]
) -> dict[str, dict[str, float | int | str | None]]:
    """A table: kind -> metric, count and the scores of ``COLUMNS``. ``answer``: the model's texts for samples of one
    task, with ``""``, ``"blank"`` or ``"off"``."""
    table: dict[str, dict[str, float | int | str | None]] = {}
    groups = by_kind(samples)
    texts = {
        (way, task): dict(zip(map(id, chosen), answer(chosen, way), strict=True))
        for task in sorted({sample.task for sample in samples})
        for chosen in [[sample for sample in samples if sample.task == task]]
        for way in ("", "blank", "off")
    }
    for kind, chosen in groups.items():
        task = TASKS[chosen[0].task]

        def score(outputs: Sequence[str] | None, chosen=chosen, task=task) -> float | None:
            return None if outputs is None else round(task.score(outputs, chosen), 4)

        ways = [score([texts[way, task.name][id(sample)] for sample in chosen]) for way in ("", "blank", "off")]
        scores = (*ways, score(guesses.question_only(chosen)), round(guesses.fixed(chosen), 4))
        table[kind] = {
            "metric": task.metric_of(chosen),
            "samples": len(chosen),
            **dict(zip(COLUMNS, scores, strict=True)),
        }
    return table


def markdown(table: dict[str, dict]) -> str:
    """The table in markdown."""
    lines = [f"| | metric | samples | {' | '.join(COLUMNS)} |", "|---" * (3 + len(COLUMNS)) + "|"]
    for kind, row in table.items():
        cells = ["" if row[column] is None else f"{row[column]:.3f}" for column in COLUMNS]
        lines.append(f"| {kind} | {row['metric']} | {row['samples']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)
