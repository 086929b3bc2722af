"""Contact sheets of samples: images with a model's answers below them."""

from collections.abc import Sequence
from pathlib import Path

from train.data.bad_samples import open_sample
from train.run_folder import writing
from varytoy.data.sample import Sample
from varytoy.evaluation import contact_sheet
from varytoy.tasks import TASKS


def worst(texts: Sequence[str], samples: Sequence[Sample], count: int) -> list[tuple[Sample, str, float]]:
    """(sample, answer, score) of the worst scores, all of one task, the worst first."""
    task = TASKS[samples[0].task]
    scores = task.scores(texts, samples)
    order = sorted(range(len(samples)), key=lambda number: scores[number], reverse=task.is_error)
    return [(samples[number], texts[number], scores[number]) for number in order[:count]]


def draw(rows: Sequence[tuple[Sample, str, float]], target: Path, before: Sequence[str] = ()) -> None:
    """Write a sheet of the images with predicted boxes, question, answer, right answer and score. ``before``: another
    model's answers, written under each."""
    tiles = (_tile(*row, before[number] if before else None) for number, row in enumerate(rows))
    with writing(target):
        contact_sheet.draw(tiles, target, contact_sheet.LINES + 4 if before else contact_sheet.LINES)


def _tile(sample: Sample, text: str, score: float, before: str | None):
    image, task = open_sample(sample)[0], TASKS[sample.task]
    drawn = task.draw(image, task.parse(text, image.size))
    asked = f"{score:.2f}  {sample.prompt}" if sample.task != "caption" else f"{score:.2f}"
    said = [text or "(empty)"] if before is None else [f"now: {text or '(empty)'}", f"before: {before or '(empty)'}"]
    return drawn, [asked, *said, f"right: {sample.answer}"]
