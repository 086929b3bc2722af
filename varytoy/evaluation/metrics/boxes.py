"""Metrics of boxes, in thousandths of the image. IoU is pycocotools'."""

import numpy as np

from varytoy.data.boxes import Box
from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import F1, Mean, Metric, Whole
from varytoy.tasks import metrics


def grounding_accuracy(threshold: float = 0.5) -> Metric:
    """Share of phrases whose first predicted box has IoU >= threshold with the case's first box; where the case has no
    box, no predicted box is right."""

    def score(prediction: Prediction, case: Case) -> bool:
        if not case.boxes:
            return not prediction.boxes
        return metrics.box_hit(prediction.boxes, case.boxes[0], threshold)

    return Mean(f"accuracy at IoU {threshold:g}", score)


def detection_f1(threshold: float = 0.5) -> Metric:
    """Micro F1 of labelled boxes, matched by ``tasks.metrics.box_hits``: in the order of the answer, each takes the
    free true box of its label that it overlaps most, if at IoU >= threshold. NaN if there are no boxes at all."""

    def count(prediction, case):
        hits = metrics.box_hits(prediction.boxes, case.boxes, threshold)
        return hits, len(prediction.boxes), len(case.boxes)

    return F1(f"F1 at IoU {threshold:g}", count)


def spotting_f1(threshold: float = 0.5, text: bool = True) -> Metric:
    """Micro F1 of text lines, whose labels are their text. Pairs of a predicted and a true line with IoU >= threshold
    are taken in order of falling IoU (then of the answer), each line once; a pair is a hit if the normalised texts are
    the same without case. Matching looks at boxes only. NaN if there are no lines at all.

    Args:
        text: False counts every pair as a hit: F1 of detection.
    """

    def count(prediction, case):
        pairs = [pair for pair in match(prediction.boxes, case.boxes) if pair[0] >= threshold]
        hits = sum(not text or _plain(predicted) == _plain(true) for _, predicted, true in pairs)
        return hits, len(prediction.boxes), len(case.boxes)

    return F1(f"spotting F1 at IoU {threshold:g}" if text else f"line F1 at IoU {threshold:g}", count)


def line_iou() -> Metric:
    """Mean over pages of the summed IoU of the lines that ``match`` pairs, over the larger number of lines: lines
    without a partner count 0. A page without lines, true or predicted, gives 1. (KOSMOS-2.5 does not say how its IOU
    pairs lines.)"""

    def score(prediction, case):
        most = max(len(prediction.boxes), len(case.boxes))
        return sum(overlap for overlap, *_ in match(prediction.boxes, case.boxes)) / most if most else 1.0

    return Mean("IoU of lines", score)


def match(predicted: tuple[Box, ...], true: tuple[Box, ...]) -> list[tuple[float, Box, Box]]:
    """(IoU, predicted box, true box) of boxes that overlap, one to one, in order of falling IoU; equal ones in the
    order of the predicted boxes, then of the true ones. Labels do not matter."""
    overlaps = metrics.ious(predicted, true)
    pairs: list[tuple[float, Box, Box]] = []
    left, right = set(range(len(predicted))), set(range(len(true)))
    for place in np.argsort(-overlaps, axis=None, kind="stable"):
        i, j = divmod(int(place), len(true))
        if overlaps[i, j] > 0 and i in left and j in right:
            left.remove(i)
            right.remove(j)
            pairs.append((float(overlaps[i, j]), predicted[i], true[j]))
    return pairs


def _plain(box: Box) -> str:
    return metrics.normalise(box.label).casefold()


def average_precision(at_half: bool = False) -> Metric:
    """COCO's AP, the mean over IoU 0.50 to 0.95, or AP50, by pycocotools (``tasks.metrics.average_precision``: boxes
    are ranked by their position in the answer). NaN if there are no true boxes."""

    def prepare(predictions, cases):
        answers, truths = [each.boxes for each in predictions], [case.boxes for case in cases]
        of_choice = metrics.average_precision_of_choices(answers, truths)

        def value(chosen):
            pair = of_choice(chosen)
            return float("nan") if pair is None else pair[int(at_half)]

        return value

    return Whole("AP50" if at_half else "AP", prepare)
