"""Run: a recipe put together, for every program that needs some of it; each part is made when first asked for."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from torch import nn
from transformers import TrainingArguments

from train import adapters
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset
from train.data.feature_cache import FeatureStore, check_all
from train.model import VaryForTraining, assemble, build, compile_parts, freeze, processor_of
from train.optim.choose import compute_type, training_arguments
from train.recipe import Recipe
from varytoy.devices.precision import quantize
from varytoy.processing.processor import VaryProcessor


class Run:
    """Data, model and settings of a recipe.

    Args:
        say: called with what the user should know, a line at a time.
        weights: take over the weights of ``model.init``; without it they are random.
        with_towers: have the vision branches even if the recipe takes their features from a folder.

    Raises:
        RecipeError, SampleError: when a part is made that cannot be.
    """

    def __init__(
        self, recipe: Recipe, say: Callable[[str], None] = print, *, weights: bool = True, with_towers: bool = False
    ):
        self.recipe, self.say, self.weights, self.with_towers = recipe, say, weights, with_towers

    @cached_property
    def bad(self) -> BadSamples:
        return BadSamples(self.say)

    @cached_property
    def data(self) -> SampleDataset:
        return SampleDataset(self.recipe.data, self.recipe.train.seed, self.bad)

    @cached_property
    def _built(self) -> tuple[VaryForTraining, VaryProcessor | None, str]:
        if not self.weights:
            return assemble(self.recipe, with_towers=self.with_towers), None, "random weights"
        return build(self.recipe, self.data, self.with_towers)

    @property
    def model(self) -> VaryForTraining:
        """As the recipe's ``init`` and preset make it; ``freeze`` and ``extend`` bring it to what is trained."""
        return self._built[0]

    @property
    def origin(self) -> str:
        """Where the weights came from, in a sentence."""
        return self._built[2]

    @cached_property
    def processor(self) -> VaryProcessor:
        """Without a model, where none was made yet."""
        made = self.__dict__.get("_built")
        return made[1] if made and made[1] is not None else processor_of(self.recipe.model)

    @cached_property
    def features(self) -> FeatureStore | None:
        """Of the frozen towers, checked against the data."""
        if not self.recipe.features:
            return None
        store = FeatureStore(Path(self.recipe.features), self.model.towers.digest(self.processor))
        check_all(store, self.data.samples)
        return store

    @cached_property
    def arguments(self) -> TrainingArguments:
        return training_arguments(self.recipe)

    def freeze(self) -> str:
        """Freeze what the recipe freezes; returns a table of what is trained."""
        return freeze(self.model, self.recipe.freeze)

    def extend(self, base: Path | None = None) -> nn.Module:
        """The model as it is trained: its decoder quantized, with adapters and compiled, where the recipe says so."""
        recipe, model = self.recipe, self.model
        if recipe.lora.quantize:
            quantize(model, recipe.lora.quantize, compute_type(recipe))
        if recipe.lora.rank:
            model = adapters.add_adapters(model, recipe, base)
        if recipe.train.compile:
            compile_parts(model.language_model)
        return model

    def collator(self, with_model: bool = True) -> Collator:
        """``with_model``: with all that the model takes and its objectives' targets; else tokens and labels, for which
        no model is made."""
        inputs = {}
        if with_model:
            model = self.model
            clip = model.clip is not None
            inputs = {"objectives": model.objectives, "clip": clip, "names": True, "features": self.features}
        train = self.recipe.train
        return Collator(self.processor, train.max_length, self.bad, token_corruption=train.token_corruption, **inputs)
