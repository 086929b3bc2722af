"""Stages of one run: the recipe of each, derived from the recipe of all, and their folders."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from annotated_types import Ge, Gt

from data_tools.mixture import DataSettings
from train.parts import PARTS, Part
from varytoy.settings import SettingsError

if TYPE_CHECKING:
    from train.recipe import Recipe

_FOLDER = re.compile(r"stage-([1-9]\d{0,5})")
_OF_TRAIN = ("learning_rate", "epochs", "max_steps", "batch_size", "accumulation", "max_length")


@dataclass
class StageSettings:
    """What a stage has of its own; the rest is the recipe's."""

    resolution: Annotated[int, Ge(0)] = 0
    """Side in pixels, as ``model.resolution``; 0: as in the stage before."""
    train: list[Part] | None = None
    """Parts that are trained, all others are frozen; by default all but the recipe's ``freeze``."""
    data: list[DataSettings] = field(default_factory=list)
    """By default the recipe's."""
    learning_rate: Annotated[float, Ge(0)] | None = None
    rates: dict[Part, Annotated[float, Ge(0)]] | None = None
    """Learning rates of single parts, in place of the recipe's ``train.lr_overrides``."""
    epochs: Annotated[float, Gt(0)] | None = None
    """In place of the recipe's ``train.epochs``, and of its ``train.max_steps``."""
    max_steps: int | None = None
    batch_size: Annotated[int, Gt(0)] | None = None
    accumulation: Annotated[int, Gt(0)] | None = None
    max_length: Annotated[int, Gt(0)] | None = None


def stage_recipes(recipe: "Recipe") -> list["Recipe"]:
    """The recipe of each stage, which begins from the finished model of the stage before; a recipe without stages
    itself."""
    if not recipe.stages:
        return [recipe]
    found: list[Recipe] = []
    for number, stage in enumerate(recipe.stages):
        model = recipe.model
        if found:
            model = replace(found[-1].model, preset="", init=[found[-1].output], tokenizer="", decoder="")
        own = {name: getattr(stage, name) for name in _OF_TRAIN if getattr(stage, name) is not None}
        if "epochs" in own:
            own = {"max_steps": -1, **own}
        frozen = recipe.freeze if stage.train is None else [part for part in PARTS if part not in stage.train]
        rates = stage.rates
        if rates is None:
            rates = {part: rate for part, rate in recipe.train.lr_overrides.items() if part not in frozen}
        found.append(
            replace(
                recipe,
                stages=[],
                output=str(stage_folder(Path(recipe.output), number)),
                model=replace(model, resolution=stage.resolution or model.resolution),
                data=stage.data or recipe.data,
                freeze=list(frozen),
                train=replace(recipe.train, lr_overrides=rates, **own),
            )
        )
    return found


def shape_recipes(recipe: "Recipe") -> list["Recipe"]:
    """As ``stage_recipes``, but each with the recipe's own preset and ``init``, which are there before any stage is."""
    return [
        replace(each, model=replace(recipe.model, resolution=each.model.resolution)) for each in stage_recipes(recipe)
    ]


def check_stages(recipe: "Recipe") -> None:
    """Raises SettingsError for stages that contradict the recipe or train nothing, naming the key."""
    for number, (stage, derived) in enumerate(zip(recipe.stages, stage_recipes(recipe), strict=True)):
        key = f"stages.{number}"
        if stage.train is not None and not stage.train:
            raise SettingsError(f"{key}.train: it names no part, so nothing is trained: name one, or leave it out")
        both = next((part for part in stage.train or () if part in recipe.freeze), None)
        if both:
            raise SettingsError(f"{key}.train: {both} is in freeze: take it out of one of the two")
        still = next((part for part in stage.rates or () if part in derived.freeze), None)
        if still:
            raise SettingsError(f"{key}.rates: {still} is not trained here: take it out, or add it to {key}.train")
        try:
            derived.check()
        except SettingsError as error:
            raise SettingsError(f"{key}: {error}") from error


def stage_folder(output: Path, number: int) -> Path:
    """The folder of a stage, counted from 0, of the run in ``output``."""
    return output / f"stage-{number + 1}"


def stage_folders(output: Path) -> list[Path]:
    """The folders of the stages of the run in ``output``, in order; none if its recipe has no stages."""
    try:
        tree = yaml.safe_load((output / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return []
    if not isinstance(tree, dict) or not tree.get("stages"):
        return []
    found = {int(match[1]): path for path in output.iterdir() if (match := _FOLDER.fullmatch(path.name))}
    return [found[number] for number in sorted(found)]


def titles(recipe: "Recipe") -> Sequence[str]:
    """What each stage is, in a phrase; one empty text for a recipe without stages."""
    found = []
    for number, each in enumerate(stage_recipes(recipe) if recipe.stages else ()):
        side = f"{each.model.resolution} pixels, " if each.model.resolution else ""
        named = recipe.stages[number].train
        trained = ", ".join(named) if named else f"all but {', '.join(each.freeze)}" if each.freeze else "all"
        found.append(f"stage {number + 1} of {len(recipe.stages)}: {side}trained: {trained}")
    return found or [""]
