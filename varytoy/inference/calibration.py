"""Calibration: a model's confidence in an answer -> how often such answers are right, measured on held-out samples.

A checkpoint's ``calibration.json`` has, for each task, the two numbers of Platt's scaling: ``[slope, shift]``.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from varytoy.data.answer import Answer, Region

FILE = "calibration.json"
_EDGE = 1e-6


def calibrated(confidence: float, scale: Sequence[float]) -> float:
    """Logistic of ``slope * logit(confidence) + shift``."""
    slope, shift = scale
    return 1 / (1 + math.exp(-(slope * logit(confidence) + shift)))


def logit(share: float) -> float:
    share = min(max(share, _EDGE), 1 - _EDGE)
    return math.log(share / (1 - share))


def fit(confidences: Sequence[float], right: Sequence[float], steps: int = 100) -> tuple[float, float]:
    """Slope and shift of the largest likelihood (Newton's method); ``right``: 0 to 1 for each answer.

    Raises:
        ValueError: no answers.
    """
    if not confidences:
        raise ValueError("no answers to calibrate on")
    slope, shift = 1.0, 0.0
    points = [(logit(confidence), truth) for confidence, truth in zip(confidences, right, strict=True)]
    for _ in range(steps):
        gradient, curvature = [0.0, 0.0], [1e-3, 0.0, 1e-3]  # a little damping: right or wrong answers alone
        for x, truth in points:
            share = 1 / (1 + math.exp(-(slope * x + shift)))
            weight = share * (1 - share)
            gradient = [gradient[0] + (share - truth) * x, gradient[1] + share - truth]
            curvature = [curvature[0] + weight * x * x, curvature[1] + weight * x, curvature[2] + weight]
        determinant = curvature[0] * curvature[2] - curvature[1] ** 2
        step = (
            (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant,
            (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant,
        )
        slope, shift = slope - max(min(step[0], 1.0), -1.0), shift - max(min(step[1], 1.0), -1.0)
        if max(map(abs, step)) < 1e-6:
            break
    return slope, shift


def bins(confidences: Sequence[float], right: Sequence[float], count: int = 10) -> list[tuple[float, float, int]]:
    """(mean confidence, share that is right, answers) of each tenth of the confidences that has answers."""
    groups: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    for confidence, truth in zip(confidences, right, strict=True):
        groups[min(int(confidence * count), count - 1)].append((confidence, truth))
    return [
        (sum(c for c, _ in group) / len(group), sum(t for _, t in group) / len(group), len(group))
        for group in groups
        if group
    ]


def expected_error(confidences: Sequence[float], right: Sequence[float], count: int = 10) -> float:
    """Expected calibration error (arXiv 1706.04599): mean distance of confidence and share that is right, by tenths."""
    total = max(len(confidences), 1)
    return sum(abs(mean - share) * number for mean, share, number in bins(confidences, right, count)) / total


def read_calibration(folder: Path) -> Mapping[str, tuple[float, float]]:
    """A checkpoint's scales by task; empty without the file.

    Raises:
        ValueError: the file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return {}
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        scales = {task: (float(slope), float(shift)) for task, (slope, shift) in rows.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f'{file} has no scales by task, such as {{"vqa": [1.0, 0.0]}}: delete it') from error
    if not all(math.isfinite(number) for scale in scales.values() for number in scale):
        raise ValueError(f"{file} has a number that is not finite: delete it")
    return scales


def calibrated_answer(answer: Answer, scale: tuple[float, float]) -> Answer:
    """The answer with its confidences, and those of its parts, on a measured scale; an empty page keeps its own."""
    if answer.confidence is not None and answer.tokens:
        answer.confidence = calibrated(answer.confidence, scale)
    answer.regions = [_calibrated_region(region, scale) for region in answer.regions]
    for page in answer.pages:
        calibrated_answer(page, scale)
    return answer


def _calibrated_region(region: Region, scale: tuple[float, float]) -> Region:
    score = None if region.score is None else calibrated(region.score, scale)
    return replace(region, score=score, parts=tuple(_calibrated_region(part, scale) for part in region.parts))
