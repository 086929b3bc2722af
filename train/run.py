"""Run: the data, model and settings of a recipe, for all programs that need some of them; built on first use."""

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
        report: called with each message for the user.
        weights: load the weights of ``model.init``; otherwise they are random.
        with_towers: build the vision branches even if the recipe uses precomputed features.

    Raises:
        RecipeError, SampleError: when a part is accessed that cannot be built.
    """

    def __init__(
        self, recipe: Recipe, report: Callable[[str], None] = print, *, weights: bool = True, with_towers: bool = False
    ):
        self.recipe, self.report, self.weights, self.with_towers = recipe, report, weights, with_towers

    @cached_property
    def bad(self) -> BadSamples:
        return BadSamples(self.report)

    @cached_property
    def data(self) -> SampleDataset:
        return SampleDataset(self.recipe.data, self.recipe.train.seed, self.bad, self.recipe.train.held_out)

    @cached_property
    def _built(self) -> tuple[VaryForTraining, VaryProcessor | None, str]:
        if not self.weights:
            return assemble(self.recipe, with_towers=self.with_towers), None, "random weights"
        return build(self.recipe, self.data, self.with_towers)

    @property
    def model(self) -> VaryForTraining:
        """The model of the recipe's ``init`` and preset; ``freeze`` and ``extend`` prepare it for training."""
        return self._built[0]

    @property
    def origin(self) -> str:
        """The origin of the weights, in a sentence."""
        return self._built[2]

    @cached_property
    def processor(self) -> VaryProcessor:
        """The processor; does not build the model if it is not built yet."""
        built = self.__dict__.get("_built")
        return built[1] if built and built[1] is not None else processor_of(self.recipe.model)

    @cached_property
    def features(self) -> FeatureStore | None:
        """Precomputed features of the frozen towers, checked against the data."""
        if not self.recipe.features:
            return None
        store = FeatureStore(Path(self.recipe.features), self.model.towers.digest(self.processor))
        check_all(store, self.data.samples)
        return store

    @cached_property
    def arguments(self) -> TrainingArguments:
        return training_arguments(self.recipe)

    def freeze(self) -> str:
        """Freeze the parts that the recipe freezes; returns a table of trained and frozen parts."""
        return freeze(self.model, self.recipe.freeze)

    def extend(self, base: Path | None = None) -> nn.Module:
        """The model for training, with its decoder quantized, with adapters and compiled, if the recipe sets these."""
        recipe, model = self.recipe, self.model
        if recipe.lora.quantize:
            quantize(model, recipe.lora.quantize, compute_type(recipe))
            adapters.keep_unpacked(model)
        if recipe.lora.rank:
            model = adapters.add_adapters(model, recipe, base)
        if recipe.train.compile:
            compile_parts(model.language_model)
        return model

    def collator(self, with_model: bool = True) -> Collator:
        """``with_model``: all inputs of the model and its objectives' targets; otherwise tokens and labels, and the
        model is not built."""
        inputs = {}
        if with_model:
            model = self.model
            clip = model.clip is not None and not model.config.serial
            inputs = {"objectives": model.objectives, "clip": clip, "names": True, "features": self.features}
        train = self.recipe.train
        return Collator(self.processor, train.max_length, self.bad, token_corruption=train.token_corruption, **inputs)
