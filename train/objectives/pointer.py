"""Pointer: trains the model's pointer (varytoy.models.pointer) to find each box that an answer contains."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from train.objectives import base
from varytoy.data.boxes import SCALE, written_boxes
from varytoy.models.pointer import coverage, generalised_iou
from varytoy.processing.chat_template import content_pieces
from varytoy.processing.processor import VaryProcessor


@base.register
class PointerObjective(base.Objective):
    """Targets: ``pointer.positions`` [N, 2] (row, position), where a number of a box is predicted, and
    ``pointer.boxes`` [N, 4], fractions of the image. For samples with one image each."""

    name = "pointer"

    def setup(self, model, frozen):
        if model.pointer is None:
            raise ValueError("objectives.pointer: this model has no pointer: use a preset with one, or leave it out")

    def targets(self, items, batch, processor):
        if not items or any(len(item.images) != 1 for item in items):
            return {}
        positions, boxes = [], []
        for row, item in enumerate(items):
            for position, box in _boxes(item, batch["labels"][row], processor):
                positions.append((row, position))
                boxes.append(box)
        if not boxes:
            return {}
        return {"pointer.positions": torch.tensor(positions), "pointer.boxes": torch.tensor(boxes) / SCALE}

    def losses(self, model, head, state):
        (rows, positions), boxes = state.targets["pointer.positions"].T, state.targets["pointer.boxes"]
        image_rows = state.image_rows.view(len(state.labels), -1, state.image_rows.shape[-1])
        pointed = model.pointer(state.hidden[rows, positions], image_rows, rows)
        cells = coverage(boxes, model.grid)
        attention = -(cells * pointed.scores.float().log_softmax(-1)).sum(-1).mean()
        found = pointed.boxes.float()
        distance, overlap = F.l1_loss(found, boxes), generalised_iou(found, boxes).mean()
        return {"pointer": 0.5 * attention + 3 * distance + (1 - overlap)}


def _boxes(item, labels: Tensor, processor: VaryProcessor) -> list[tuple[int, list[int]]]:
    """(position that predicts a number, the box that it belongs to) of one row."""
    starts = base.answer_starts(labels)
    answers = [each["content"] for part in item.parts for each in part if each["role"] == "assistant"]
    found = []
    for start, answer in zip(starts, answers, strict=True):
        if not isinstance(answer, str):
            answer = "".join(content_pieces(answer))
        boxes = list(written_boxes(answer))
        if not boxes:
            continue
        spans = processor.tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for box in boxes:
            sides = box.numbers(answer)
            found += [(start + _token(spans, first) - 1, sides) for first, _ in box.sides]
    return found


def _token(spans: Sequence[tuple[int, int]], character: int) -> int:
    return next(number for number, (begin, end) in enumerate(spans) if begin <= character < end)
