"""Objects: a head on each vision branch's tokens that classifies the object at each token, and one each for the first
and the last corner of a box, trained on the samples' boxes (corners as in CornerNet, arXiv 1808.01244)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from train.objectives import base
from train.objectives.balanced import balanced_loss
from varytoy.data.boxes import SCALE
from varytoy.data.sample import Sample
from varytoy.processing.plan import Grid
from varytoy.processing.processor import IGNORED


@base.register
class Objects(base.Objective):
    """Targets: ``objects.vocabulary`` [I, h, w, 3] and ``objects.clip`` [I, h2, w2, 3]: the number of the object at a
    token, and of the ones whose first and last corner are there; 0 for none, -100 for unknown.

    Attributes:
        labels: object names in the data.
    """

    name, has_head = "objects", True

    def __init__(self, settings):
        super().__init__(settings)
        self.labels: Sequence[str] = ()
        self.numbers: dict[str, int] = {}
        self.clip_grid: Grid | None = None

    def read_data(self, data):
        self.name_labels(data.labels())

    def name_labels(self, labels: Sequence[str]) -> None:
        self.labels, self.numbers = labels, {label: number for number, label in enumerate(labels, 1)}

    @property
    def warmup_weight(self):
        return self.weight

    def setup(self, model, frozen):
        outputs = 3 * (len(self.labels) + 1)
        heads = {}
        if "vision_vocabulary" not in frozen:
            heads["vocabulary"] = nn.Linear(model.config.vocabulary_config.output_size, outputs)
        if model.clip is not None:
            self.clip_grid = None if model.config.serial else Grid(*model.clip.grid)
            heads["clip"] = nn.Linear(model.connector.clip_width, outputs)
        self.branches = tuple(heads)
        return nn.ModuleDict(heads)

    def targets(self, items, batch, processor):
        images = [(item.sample, plan) for item in items for plan in item.plans]
        if not images or not self.numbers:
            return {}
        (down, across), (height, width) = images[0][1].stride, batch["pixel_values"].shape[-2:]
        samples = [sample for sample, _ in images]
        vocabulary = self._map(samples, [plan.grid for _, plan in images], Grid(height // down, width // across))
        if not bool((vocabulary >= 0).any()):
            return {}
        targets = {"objects.vocabulary": vocabulary}
        if self.clip_grid is not None:
            targets["objects.clip"] = self._map(samples, [self.clip_grid] * len(images), self.clip_grid)
        return targets

    def _map(self, samples: Sequence[Sample], grids: Sequence[Grid], whole: Grid) -> Tensor:
        """[I, *whole, 3]; -100 near the edges of a box, beside a corner, in padding and for images without boxes."""
        targets = torch.full((len(samples), *whole, 3), IGNORED)
        for target, sample, (height, width) in zip(targets, samples, grids, strict=True):
            if not is_complete(sample):
                continue
            x = (torch.arange(width) + 0.5)[None] / width * SCALE
            y = (torch.arange(height) + 0.5)[:, None] / height * SCALE
            grid = target[:height, :width]
            grid.fill_(0)
            for shrink, inner in ((0.0, False), (0.15, True)):
                for box in sample.boxes:
                    x1, y1, x2, y2 = box.xyxy
                    dx, dy = shrink * (x2 - x1), shrink * (y2 - y1)
                    inside = (x > x1 + dx) & (x < x2 - dx) & (y > y1 + dy) & (y < y2 - dy)
                    grid[..., 0][inside] = self.numbers.get(box.label, IGNORED) if inner else IGNORED
            corners = [
                (number, _token_at(x, y, height, width), self.numbers.get(box.label, IGNORED))
                for box in sample.boxes
                for number, (x, y) in enumerate((box.xyxy[:2], box.xyxy[2:]), 1)
            ]
            for number, (row, column), _ in corners:
                grid[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, number] = IGNORED
            for number, (row, column), label in corners:
                grid[row, column, number] = label
        return targets

    def losses(self, model, head, state):
        losses = {}
        for branch in self.branches:
            grid = "vocabulary" if model.config.serial else branch
            targets = state.targets.get(f"objects.{grid}")
            if targets is None or branch not in state.features:
                continue
            features = state.features[branch]
            if branch == "clip":  # after the connector, so that its output encodes the objects too
                features = model.connector.of_clip(features)
            scores = head[branch](features).unflatten(-1, (3, -1))
            objects, first, last = (balanced_loss(scores[..., n, :], targets[..., n]) for n in range(3))
            prefix = "clip_" if branch == "clip" else ""
            losses |= {f"{prefix}objects": objects, f"{prefix}corners": (first + last) / 2}
        return losses


def is_complete(sample: Sample) -> bool:
    """Whether the sample has boxes of all objects in the image."""
    known = sample.annotations.all_objects
    return known if known is not None else sample.task == "detect" and not sample.annotations.classes


def _token_at(x: float, y: float, height: int, width: int) -> tuple[int, int]:
    """Row and column of a point (0-1000) in a grid of tokens."""
    return min(int(y * height / SCALE), height - 1), min(int(x * width / SCALE), width - 1)
