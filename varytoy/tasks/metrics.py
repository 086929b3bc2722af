"""Metrics, each with its definition. Error rates are jiwer's, other Levenshtein distances rapidfuzz's, tree distances
apted's, the overlap of boxes and average precision COCO's (pycocotools)."""

import contextlib
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from varytoy.data.boxes import Box

_PLAIN = str.maketrans("\u2018\u2019\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212", "''\"\"------")


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; 0 of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def normalise(text: str) -> str:
    """NFKC, curly quotes and dashes to ASCII, runs of white space to one space."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_PLAIN).split())


def edit_distance(first: str, second: str) -> int:
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(first, second)


def normalised_edit_distance(predicted: str, truth: str) -> float:
    """Levenshtein distance of the normalised texts over the longer length: 0 equal, 1 nothing in common."""
    predicted, truth = normalise(predicted), normalise(truth)
    return edit_distance(predicted, truth) / max(len(predicted), len(truth), 1)


def character_error_rate(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """Edits over true characters, of the whole set (normalised texts), by jiwer. Can exceed 1."""
    import jiwer

    return float(jiwer.cer(list(map(normalise, truths)), list(map(normalise, predictions))))


def word_error_rate(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """As ``character_error_rate``, of words."""
    import jiwer

    return float(jiwer.wer(list(map(normalise, truths)), list(map(normalise, predictions))))


def iou(first: Box, second: Box) -> float:
    """Intersection over union as pycocotools computes it; 0 where both are empty."""
    from pycocotools import mask

    return float(mask.iou([_xywh(first)], [_xywh(second)], [0])[0, 0])


def _xywh(box: Box) -> list[float]:
    x1, y1, x2, y2 = map(float, box.xyxy)
    return [x1, y1, x2 - x1, y2 - y1]


def average_precision(
    predictions: Sequence[Sequence[Box]], truths: Sequence[Sequence[Box]]
) -> tuple[float, float] | None:
    """COCO's AP@[.50:.95] and AP50, the mean over the labels of the truth (without case), by COCOeval on boxes in
    thousandths of the picture. None where nothing is there to be found.

    The models give no scores, so the place in the answer is the score: all first boxes come before all second ones, and
    among equals those of earlier pictures. Only the first 100 boxes of an answer count, as in COCO.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not any(truths):
        return None
    boxes = [box for group in (*predictions, *truths) for box in group]
    labels = {label: number for number, label in enumerate(sorted({box.label.casefold() for box in boxes}), 1)}

    def dataset(groups: Sequence[Sequence[Box]]) -> COCO:
        rows: list[dict] = []
        for picture, group in enumerate(groups):
            for place, box in enumerate(group):
                x, y, width, height = _xywh(box)
                row: dict = {"id": len(rows) + 1, "image_id": picture, "category_id": labels[box.label.casefold()]}
                row |= {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0, "score": 1 / (1 + place)}
                rows.append(row)
        made = COCO()
        images = [{"id": picture} for picture in range(len(groups))]
        categories = [{"id": number, "name": label} for label, number in labels.items()]
        made.dataset = {"images": images, "annotations": rows, "categories": categories}
        made.createIndex()
        return made

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress and a table
        scored = COCOeval(dataset(truths), dataset(predictions), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return float(scored.stats[0]), float(scored.stats[1])


def detection_f1(
    predictions: Sequence[Sequence[Box]], truths: Sequence[Sequence[Box]], threshold: float = 0.5
) -> float:
    """F1 over the whole set; a box counts when its label is right and it pairs one to one at IoU >= threshold."""
    hits = found = wanted = 0
    for predicted, true in zip(predictions, truths, strict=True):
        left = list(true)
        for box in predicted:
            same = [other for other in left if other.label.casefold() == box.label.casefold()]
            best = max(same, key=lambda other: iou(other, box), default=None)
            if best is not None and iou(best, box) >= threshold:
                left.remove(best)
                hits += 1
        found += len(predicted)
        wanted += len(true)
    return 2 * hits / (found + wanted) if found + wanted else 1.0


def box_hit(predicted: Sequence[Box], truth: Box, threshold: float = 0.5) -> bool:
    """Whether the first predicted box overlaps the true one at IoU >= threshold."""
    return bool(predicted) and iou(predicted[0], truth) >= threshold


def names_found(text: str, names: Sequence[str]) -> float:
    """Share of the names (as whole words, plural allowed) that the text holds."""
    text = text.casefold()
    return mean(bool(re.search(rf"\b{re.escape(name.casefold())}(?:e?s)?\b", text)) for name in names)


def same_answer(predicted: str, truth: str) -> bool:
    """Equal after case, articles and closing punctuation are dropped."""
    return _bare(predicted) == _bare(truth)


def _bare(text: str) -> str:
    text = normalise(text).casefold().replace('"', " ")
    words = [word.strip(".,;:!?'()[]") for word in text.split()]
    words = [word for word in words if word]
    return " ".join(word for word in words if word not in ("a", "an", "the")) or " ".join(words)


def markdown_tree_similarity(predicted: str, truth: str) -> float:
    """1 - tree edit distance / larger tree (KOSMOS-2.5's NTED for one page).

    The trees are CommonMark's: a node a block or inline mark, a leaf a word. Renaming a word costs its normalised
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
    """Costs and children, in the shape apted asks for."""

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
            if token.nesting == 1:
                stack[-1].children.append(_Node(token.tag or token.type))
                stack.append(stack[-1].children[-1])
            elif token.nesting == -1:
                stack.pop()
            elif token.type == "inline":
                walk(token.children)
            else:
                node = stack[-1]
                if token.tag not in ("", "br"):  # code, hr, img: marks that open and close in one
                    node = _Node(token.tag)
                    stack[-1].children.append(node)
                node.children.extend(_Node(word, True) for word in normalise(token.content).split())

    walk(MarkdownIt("commonmark").parse(text))
    return root


def _tree_size(node: _Node) -> int:
    return 1 + sum(_tree_size(child) for child in node.children)
