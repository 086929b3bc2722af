"""Objectives: training losses beside the text loss, each in one file with its settings, targets, head and loss.

A new objective is a class that registers itself (``@register``) and is imported in ``__init__.py``. A recipe enables it
by name: ``objectives: {letters: {weight: 0.5}}``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn

from varytoy.processing.processor import IGNORED, VaryProcessor

if TYPE_CHECKING:
    from train.data.dataset import SampleDataset
    from train.data.item import Item
    from train.model import VaryForTraining
    from train.recipe import Recipe

OBJECTIVES: dict[str, type["Objective"]] = {}
"""Name in a recipe -> class."""


@dataclass
class Settings:
    """Settings that all objectives have."""

    weight: Annotated[float, Ge(0)] = 0.0
    """Weight of its loss relative to the text loss; 0 disables it."""


@dataclass
class State:
    """Outputs of a forward pass that objectives use.

    Attributes:
        labels: [B, T], -100 where not supervised.
        features: of the vision branches by name, [I, h, w, D]; in a warm-up only those that objectives need.
        hidden: last hidden states of the decoder [B, T, D]; None in a warm-up.
        image_sizes: [I, 2] height and width in pixels of each image in the padded batch.
        targets: of all objectives, by name.
        image_rows: the connector's output [N, D]; None in a warm-up.
    """

    labels: Tensor
    features: dict[str, Tensor]
    hidden: Tensor | None = None
    image_sizes: Tensor | None = None
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    image_rows: Tensor | None = None


class Objective:
    """Base class of the objectives; it holds no weights, so that data loader workers can use it.

    Attributes:
        settings: from the recipe.
        branches: names of the vision branches whose features it uses.
        has_head: whether it trains a head, and with it a vision branch.
        tokenizer: of the run's processor, in the process that trains too, where ``targets`` is not called if there are
            loader processes.
    """

    name: ClassVar[str]
    has_head: ClassVar[bool] = False
    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self, settings: Settings):
        self.settings, self.branches, self.tokenizer = settings, (), None

    @classmethod
    def check(cls, settings: Settings, recipe: "Recipe") -> None:
        """Raises RecipeError if a recipe cannot use this objective."""

    @property
    def weight(self) -> float:
        return self.settings.weight

    @property
    def warmup_weight(self) -> float:
        """Its weight during the warm-up of the heads (``train.heads_warmup``); 0 if it is not trained then."""
        return 0.0

    def read_data(self, data: "SampleDataset") -> None:
        """Read what the head's shape depends on from the run's data; called before ``setup``."""

    def setup(self, model: "VaryForTraining", frozen: Sequence[str]) -> nn.Module | None:
        """Prepare the model; returns the head to train, if it needs one."""
        return None

    def targets(self, items: Sequence["Item"], batch: Mapping[str, Tensor], processor: VaryProcessor) -> dict:
        """Target tensors by name for the samples of a batch, whose other tensors are in ``batch``; empty if the samples
        lack the annotations."""
        return {}

    def has_targets(self, targets: Mapping[str, Tensor]) -> bool:
        """Whether a batch has targets for this objective."""
        return any(name.partition(".")[0] == self.name for name in targets)

    def begin(self, targets: Mapping[str, Tensor]) -> None:
        """Called before a forward pass in which it computes a loss."""

    def losses(self, model: "VaryForTraining", head: nn.Module | None, state: State) -> dict[str, Tensor]:
        """Unweighted losses by name."""
        raise NotImplementedError


def answer_starts(labels: Tensor) -> list[int]:
    """Positions at which the answers of one row [T] begin."""
    supervised = labels != IGNORED
    return (supervised & ~supervised.roll(1)).nonzero().flatten().tolist()


def register(objective: type[Objective]) -> type[Objective]:
    """Class decorator: makes an objective available to recipes."""
    OBJECTIVES[objective.name] = objective
    return objective
