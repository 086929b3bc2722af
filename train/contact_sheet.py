"""Contact sheets: images with a model's answers below them."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from train.data.bad_samples import open_sample
from train.run_folder import writing
from varytoy.data.sample import Sample
from varytoy.tasks import TASKS

_SIDE, _LINES, _COLUMNS = 300, 7, 5
_CHARACTERS = 44


def worst(texts: Sequence[str], samples: Sequence[Sample], count: int) -> list[tuple[Sample, str, float]]:
    """(sample, answer, score) of the worst scores, all of one task, the worst first."""
    task = TASKS[samples[0].task]
    scores = task.scores(texts, samples)
    order = sorted(range(len(samples)), key=lambda number: scores[number], reverse=task.is_error)
    return [(samples[number], texts[number], scores[number]) for number in order[:count]]


def draw(rows: Sequence[tuple[Sample, str, float]], target: Path, before: Sequence[str] = ()) -> None:
    """Write a sheet of the images with predicted boxes, question, answer, right answer and score. ``before``: another
    model's answers, written under each."""
    font = ImageFont.load_default(size=12)
    most = _LINES + 4 if before else _LINES
    height = _SIDE + 16 * most
    down = -(-len(rows) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + 12) + 12, down * (height + 12) + 12), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (sample, text, score) in enumerate(rows):
        x, y = 12 + number % _COLUMNS * (_SIDE + 12), 12 + number // _COLUMNS * (height + 12)
        image, task = open_sample(sample)[0], TASKS[sample.task]
        drawn = task.draw(image, task.parse(text, image.size))
        drawn.thumbnail((_SIDE, _SIDE))
        sheet.paste(drawn, (x, y))
        written = [f"{score:.2f}  {sample.prompt}" if sample.task != "caption" else f"{score:.2f}", text or "(empty)"]
        if before:
            parts = (written[0], f"now: {text or '(empty)'}", f"before: {before[number] or '(empty)'}")
            cut = [textwrap.wrap(part, _CHARACTERS)[: most // 4] for part in parts]  # room for each
            lines = [line for part in cut for line in part]
        else:
            lines = [line for part in written for line in textwrap.wrap(part, _CHARACTERS)]
        lines += textwrap.wrap(f"right: {sample.answer}", _CHARACTERS)
        pen.multiline_text((x, y + _SIDE + 2), "\n".join(lines[:most]), font=font, fill="black", spacing=2)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target)
