"""Objectives: what a run minimises beside the text, each in one file with its settings, targets, head and loss.

A new objective is a class that registers itself (``@register``) and is imported in ``__init__.py``. A recipe switches
it on under its name: ``objectives: {letters: {weight: 0.5}}``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge
from torch import Tensor, nn

from varytoy.processing.processor import VaryProcessor

if TYPE_CHECKING:
    from train.data.dataset import SampleDataset
    from train.data.item import Item
    from train.model import VaryForTraining
    from train.recipe import Recipe

OBJECTIVES: dict[str, type["Objective"]] = {}
"""Name in a recipe -> class."""


@dataclass
class Settings:
    """What every objective's settings have."""

    weight: Annotated[float, Ge(0)] = 0.0
    """Of its loss beside the text's; 0 leaves it out."""


@dataclass
class State:
    """What a forward pass has made of a batch.

    Attributes:
        labels: [B, T], -100 where nothing is taught.
        features: of the vision branches by name, [I, h, w, D]; those that no objective needs are missing in a warm-up.
        hidden: last hidden states of the decoder [B, T, D]; None in a warm-up.
        image_sizes: [I, 2] pixels of each image in the padded batch.
        targets: of all objectives, by name.
    """

    labels: Tensor
    features: dict[str, Tensor]
    hidden: Tensor | None = None
    image_sizes: Tensor | None = None
    targets: Mapping[str, Tensor] = field(default_factory=dict)


class Objective:
    """Base of the objectives; it holds no weights, so that workers of the data loader can have it.

    Attributes:
        settings: from the recipe.
        branches: names of the vision branches whose features it looks at.
        has_head: whether it trains a head, and with it a vision branch.
    """

    name: ClassVar[str]
    has_head: ClassVar[bool] = False
    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self, settings: Settings):
        self.settings, self.branches = settings, ()

    @classmethod
    def check(cls, settings: Settings, recipe: "Recipe") -> None:
        """Raises RecipeError where a recipe that uses it cannot."""

    @property
    def weight(self) -> float:
        return self.settings.weight

    @property
    def warmup_weight(self) -> float:
        """Its weight while the decoder waits (``train.heads_warmup``); 0 if it waits, too."""
        return 0.0

    def read_data(self, data: "SampleDataset") -> None:
        """Take from the run's data what the head's shape depends on; called before ``setup``."""

    def setup(self, model: "VaryForTraining", frozen: Sequence[str]) -> nn.Module | None:
        """Prepare the model; returns the head to train, if it needs one."""
        return None

    def targets(self, items: Sequence["Item"], batch: Mapping[str, Tensor], processor: VaryProcessor) -> dict:
        """Tensors by name for the samples of a batch, whose other tensors are in ``batch``; none where the samples do
        not say what it needs."""
        return {}

    def has_targets(self, targets: Mapping[str, Tensor]) -> bool:
        """Whether a batch's targets hold something for it."""
        return any(name.partition(".")[0] == self.name for name in targets)

    def begin(self, targets: Mapping[str, Tensor]) -> None:
        """Called before a forward pass that it takes a loss from."""

    def losses(self, model: "VaryForTraining", head: nn.Module | None, state: State) -> dict[str, Tensor]:
        """Loss by name, before the weight."""
        raise NotImplementedError


def register(objective: type[Objective]) -> type[Objective]:
    """Class decorator: recipes may name it."""
    OBJECTIVES[objective.name] = objective
    return objective
