"""``python -m train calibrate``: fit a model's confidences to how often its answers are right, and draw both.

Every second answer fits the scale, the others measure it: expected calibration error (ECE) of ten bins, before and
after.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.render.blocks import BlockRenderer
from data_tools.writer import write_samples
from train.answers import answers
from train.evaluate import BLOCKS
from train.run_folder import writing
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import read_samples
from varytoy.inference.calibration import FILE, bins, calibrated, expected_error, fit
from varytoy.inference.reader import Reader
from varytoy.tasks import TASKS, metrics

Point = tuple[float, float]
"""Confidence of an answer, and how right it is: 0 or 1, or for reading the share of right characters."""


@dataclass
class Scale:
    """A task's scale with its measured answers."""

    task: str
    scale: tuple[float, float]
    measured: list[Point]

    @property
    def after(self) -> list[Point]:
        return [(calibrated(confidence, self.scale), right) for confidence, right in self.measured]

    def __str__(self) -> str:
        before, after = (expected_error(*zip(*points, strict=True)) for points in (self.measured, self.after))
        return f"{self.task}: {len(self.measured):,} answers, ECE {before:.3f} before, {after:.3f} after"


def reading_points(reader: Reader, source: Path, count: int, seed: int) -> list[Point]:
    """Of freshly rendered blocks of the held-out fonts and texts."""
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Path(folder), count, BlockRenderer(source, seed, "test", BLOCKS))
        samples = [sample for sample in read_samples(Path(folder)) if sample.task == "ocr"]
        outputs = answers(reader, samples)
    return [
        (answer.confidence or 0.0, 1 - metrics.normalised_edit_distance(answer.text, sample.answer))
        for answer, sample in zip(outputs, samples, strict=True)
    ]


def picture_points(reader: Reader, samples: Sequence[Sample]) -> list[Point]:
    """Of questions or phrases about pictures, all of one task."""
    outputs, task = answers(reader, samples, batch=32), TASKS[samples[0].task]
    return [
        (answer.confidence or 0.0, task.score([answer.text], [sample]))
        for answer, sample in zip(outputs, samples, strict=True)
    ]


def calibrate(model: str, pictures: Path | None, source: Path, count: int, seed: int, out: Path) -> list[Scale]:
    """Write ``calibration.json`` and ``reliability.png`` to ``out``: of questions and phrases about ``pictures``, or
    without these of reading ``count`` rendered blocks.

    Raises:
        SampleError: there is no sample of vqa or ground.
    """
    reader = Reader.from_pretrained(model)
    points: dict[str, list[Point]] = {}
    if pictures is None:
        points["ocr"] = reading_points(reader, source, count, seed)
    samples = list(read_samples(pictures)) if pictures else []
    for task in ("vqa", "ground"):
        chosen = [sample for sample in samples if sample.task == task]
        if chosen:
            points[task] = picture_points(reader, chosen)
    if not points:
        raise SampleError(f"{pictures}: no sample of vqa or ground to calibrate on")
    scales = [Scale(task, fit(*zip(*rows[::2], strict=True)), rows[1::2]) for task, rows in points.items()]
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        rounded = {each.task: [round(number, 4) for number in each.scale] for each in scales}
        if "ocr" in rounded:
            rounded["markdown"] = rounded["ocr"]
        (out / FILE).write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")
    draw(scales, out / "reliability.png")
    return scales


def draw(scales: Sequence[Scale], target: Path) -> None:
    """Reliability curves: share of right answers over confidence, before and after."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(scales), 4), layout="constrained")
    for axis, each in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales, strict=True):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, points in (("before", each.measured), ("after", each.after)):
            rows = bins(*zip(*points, strict=True))
            axis.plot([row[0] for row in rows], [row[1] for row in rows], marker="o", label=name)
        axis.set(title=each.task, xlabel="confidence", ylabel="right", xlim=(0, 1), ylim=(0, 1))
        axis.legend()
    FigureCanvasAgg(figure)
    with writing(target):
        figure.savefig(target, dpi=110)
