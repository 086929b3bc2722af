"""Metrics, each with its definition. Error rates are jiwer's, other Levenshtein distances rapidfuzz's, tree distances
apted's, box overlap and average precision COCO's (pycocotools)."""

import contextlib
import io
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from varytoy.data.boxes import Box

_DEEPEST = 50
"""Elements of markdown in each other; a run of a thousand asterisks is nested deeper."""
_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212", "''\"\"------")


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; 0 if there are no values."""
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def normalise(text: str) -> str:
    """NFKC, curly quotes and dashes to ASCII, runs of white space to one space."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_PLAIN).split())


def edit_distance(first: str, second: str) -> int:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(first, second)


def normalised_edit_distance(predicted: str, truth: str) -> float:
    """Levenshtein distance of the normalised texts over the longer length: 0 if equal, 1 if nothing is in common."""
    predicted, truth = normalise(predicted), normalise(truth)
    return edit_distance(predicted, truth) / max(len(predicted), len(truth), 1)


def character_error_rate(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """Edits over true characters, on the whole set of normalised texts, by jiwer. Can exceed 1."""
    import jiwer

    return float(jiwer.cer(list(map(normalise, truths)), list(map(normalise, predictions))))


def word_error_rate(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """As ``character_error_rate``, on words."""
    import jiwer

    return float(jiwer.wer(list(map(normalise, truths)), list(map(normalise, predictions))))


def iou(first: Box, second: Box) -> float:
    """Intersection over union as pycocotools computes it; 0 where both are empty."""
    return float(ious([first], [second])[0, 0])


def ious(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    """[first, second] IoU of each with each."""
    from pycocotools import mask

    if not (first and second):
        return np.zeros((len(first), len(second)))
    return mask.iou([_xywh(box) for box in first], [_xywh(box) for box in second], [0] * len(second))


def _xywh(box: Box) -> list[float]:
    x1, y1, x2, y2 = map(float, box.xyxy)
    return [x1, y1, x2 - x1, y2 - y1]


def average_precision(
    predictions: Sequence[Sequence[Box]], truths: Sequence[Sequence[Box]]
) -> tuple[float, float] | None:
    """COCO's AP@[.50:.95] and AP50, the mean over the ground truth's labels (case is ignored), by COCOeval on boxes in
    thousandths of the image. None if there are no true boxes.

    The models give no scores, so boxes are ranked by their position in the answer: all first boxes come before all
    second ones, and ties follow the order of the images. Only the first 100 boxes of an answer count, as in COCO.
    """
    return average_precision_of_choices(predictions, truths)(range(len(truths)))


def average_precision_of_choices(
    predictions: Sequence[Sequence[Box]], truths: Sequence[Sequence[Box]]
) -> Callable[[Sequence[int]], tuple[float, float] | None]:
    """A function that gives ``average_precision`` of any choice of the images, by their numbers, in which an image may
    stand more than once. The boxes are matched only once."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes = [box for group in (*predictions, *truths) for box in group]
    labels = {label: number for number, label in enumerate(sorted({box.label.casefold() for box in boxes}), 1)}

    def dataset(groups: Sequence[Sequence[Box]]) -> COCO:
        rows: list[dict] = []
        for image, group in enumerate(groups):
            for rank, box in enumerate(group):
                x, y, width, height = _xywh(box)
                row: dict = {"id": len(rows) + 1, "image_id": image, "category_id": labels[box.label.casefold()]}
                row |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0, "score": 1 / (1 + rank)}
                rows.append(row)
        coco = COCO()
        images = [{"id": image} for image in range(len(groups))]
        categories = [{"id": number, "name": label} for label, number in labels.items()]
        coco.dataset = {"images": images, "annotations": rows, "categories": categories}
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        scored = COCOeval(dataset(truths), dataset(predictions), "bbox")
        scored.params.areaRng, scored.params.areaRngLbl = scored.params.areaRng[:1], ["all"]
        scored.params.maxDets = [100]
        scored.evaluate()
    matches = [
        scored.evalImgs[start : start + len(truths)] for start in range(0, len(scored.evalImgs), len(truths) or 1)
    ]

    def of_choice(images: Sequence[int]) -> tuple[float, float] | None:
        if not any(truths[image] for image in images):
            return None
        scored.evalImgs = [of_label[image] for of_label in matches for image in images]
        scored.params.imgIds = scored._paramsEval.imgIds = list(range(len(images)))
        with contextlib.redirect_stdout(io.StringIO()):
            scored.accumulate()
        precision = scored.eval["precision"]  # [thresholds, recalls, labels, 1, 1], -1 for labels without true boxes
        return float(precision[precision > -1].mean()), float(precision[0][precision[0] > -1].mean())

    return of_choice


def box_hits(predicted: Sequence[Box], true: Sequence[Box], threshold: float = 0.5) -> int:
    """How many predicted boxes of an image match a true one, one to one. Each box in the order of the answer takes the
    free true box of its label (case is ignored) that it overlaps most, if at IoU >= threshold."""
    unmatched, hits = list(true), 0
    for box in predicted:
        same = [other for other in unmatched if other.label.casefold() == box.label.casefold()]
        best = max(same, key=lambda other: iou(other, box), default=None)
        if best is not None and iou(best, box) >= threshold:
            unmatched.remove(best)
            hits += 1
    return hits


def detection_f1(
    predictions: Sequence[Sequence[Box]], truths: Sequence[Sequence[Box]], threshold: float = 0.5
) -> float:
    """F1 over the whole set, of the hits that ``box_hits`` counts; 1 if there are no boxes at all."""
    hits = predicted_count = true_count = 0
    for predicted, true in zip(predictions, truths, strict=True):
        hits += box_hits(predicted, true, threshold)
        predicted_count += len(predicted)
        true_count += len(true)
    total = predicted_count + true_count
    return 2 * hits / total if total else 1.0


def box_hit(predicted: Sequence[Box], truth: Box, threshold: float = 0.5) -> bool:
    """Whether the first predicted box overlaps the true one at IoU >= threshold."""
    return bool(predicted) and iou(predicted[0], truth) >= threshold


def names_found(text: str, names: Sequence[str]) -> float:
    """Share of the names (as whole words, plural allowed) that the text contains."""
    text = text.casefold()
    return mean(bool(re.search(rf"\b{re.escape(name.casefold())}(?:e?s)?\b", text)) for name in names)


def same_answer(predicted: str, truth: str) -> bool:
    """Whether two answers are equal without case, articles and punctuation around words."""
    return _bare(predicted) == _bare(truth)


def _bare(text: str) -> str:
    text = normalise(text).casefold().replace('"', " ")
    words = [word.strip(".,;:!?'()[]") for word in text.split()]
    words = [word for word in words if word]
    return " ".join(word for word in words if word not in ("a", "an", "the")) or " ".join(words)


def markdown_tree_similarity(predicted: str, truth: str) -> float:
    """1 - tree edit distance / larger tree (KOSMOS-2.5's NTED for one page).

    Nodes are CommonMark's block and inline elements, leaves are words. Renaming a word costs its normalised
    edit distance, any other rename, insertion or deletion 1.
    """
    from apted import APTED

    first, second = _markdown_tree(predicted), _markdown_tree(truth)
    distance = APTED(first, second, _TreeCosts()).compute_edit_distance()
    return 1.0 - distance / max(_tree_size(first), _tree_size(second))


class _Node:
    def __init__(self, name: str, word: bool = False):
        self.name, self.word = name, word
        self.children: list[_Node] = []


class _TreeCosts:
    """Costs and children, with apted's configuration interface."""

    valuecls = float

    def delete(self, node: _Node) -> float:
        return 1.0

    insert = delete

    def rename(self, first: _Node, second: _Node) -> float:
        if first.word and second.word:
            return edit_distance(first.name, second.name) / max(len(first.name), len(second.name), 1)
        return float(first.word != second.word or first.name != second.name)

    def children(self, node: _Node) -> list[_Node]:
        return node.children


def _markdown_tree(text: str) -> _Node:
    from markdown_it import MarkdownIt

    root = _Node("document")
    stack = [root]

    def walk(tokens):
        for token in tokens:
            if token.nesting == 1 and len(stack) > _DEEPEST:
                stack.append(stack[-1])  # what is nested deeper is of the one above
            elif token.nesting == 1:
                stack[-1].children.append(_Node(token.tag or token.type))
                stack.append(stack[-1].children[-1])
            elif token.nesting == -1:
                stack.pop()
            elif token.type == "inline":
                walk(token.children)
            else:
                node = stack[-1]
                if token.tag not in ("", "br"):  # code, hr, img: elements of a single token
                    node = _Node(token.tag)
                    stack[-1].children.append(node)
                node.children.extend(_Node(word, True) for word in normalise(token.content).split())

    walk(MarkdownIt("commonmark").parse(text))
    return root


def _tree_size(node: _Node) -> int:
    return 1 + sum(_tree_size(child) for child in node.children)
