"""The folders of a run of stages: which stages are finished, and the model of the last one in the run's own folder."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from train.checkpointing import checkpoints
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.data.lengths import check_images
from train.model import assemble, processor_of
from train.parts import PARTS
from train.recipe import Recipe, RecipeError
from train.replay import with_replay
from train.run_folder import FINISHED, changes, clear_model, not_of_the_model, write_aside, writing
from train.stages import shape_recipes, stage_folder, stage_folders, stage_recipes

_LENGTH = ("train.epochs", "train.max_steps")


def finish(recipe: Recipe) -> None:
    """Note that the stage with this recipe is finished. Raises RecipeError if that cannot be written."""
    write_aside(Path(recipe.output) / FINISHED, time.strftime("%Y-%m-%dT%H:%M:%S%z\n"))


def count_finished(recipe: Recipe) -> int:
    """How many stages of the run in ``recipe.output`` are finished, to resume it.

    Raises:
        RecipeError: there is no run of stages; a finished stage had other settings, or is not in the recipe; a later
            stage began from one that is not finished.
    """
    output, stages = Path(recipe.output), stage_recipes(recipe)
    there = stage_folders(output)
    if not there:
        raise RecipeError(f"--resume: {output} holds no run of stages: leave --resume out to begin one")
    finished = 0
    while finished < len(there) and (stage_folder(output, finished) / FINISHED).is_file():
        finished += 1
    begun = next((path for path in there if path not in _first(output, finished + 1) and _has_run(path)), None)
    if begun:
        raise RecipeError(
            f"--resume: {begun} began from {stage_folder(output, finished)}, which is not finished: delete {begun.name}"
        )
    if finished > len(stages):
        raise RecipeError(
            f"--resume: {there[finished - 1]} is finished, but the recipe has {len(stages)} stages: put the others "
            "back, or choose another output=FOLDER"
        )
    for number, stage in enumerate(stages[:finished]):
        accepted, refused = changes(with_replay(stage, True), Path(stage.output))
        refused += [change for change in accepted if change.partition("=")[0] in _LENGTH]
        if refused:
            raise RecipeError(
                f"--resume: stage {number + 1} is finished, and {stage.output} was trained with other settings: "
                f"{', '.join(refused)}: change them back, or begin anew with --overwrite or another output=FOLDER"
            )
    return finished


def _first(output: Path, count: int) -> Sequence[Path]:
    return [stage_folder(output, number) for number in range(count)]


def _has_run(folder: Path) -> bool:
    return bool(checkpoints(folder)) or (folder / FINISHED).is_file()


def check_before(recipe: Recipe, finished: int) -> None:
    """Check what all stages after the first ``finished`` ones need, before one of them is trained.

    Raises:
        RecipeError: a stage names a part that the model lacks, trains nothing, has a resolution that the model does
            not take, or images that ``max_length`` would cut.
        SampleError: a stage's data cannot be read.
    """
    shapes = shape_recipes(recipe)
    with torch.device("meta"):
        model = assemble(replace(recipe, stages=[], freeze=[], objectives={}, lora=replace(recipe.lora, rank=0)))
    has = [part for part in PARTS if getattr(model, part, None) is not None]
    images = processor_of(recipe.model).image_processor
    for number, (stage, shape) in enumerate(zip(recipe.stages, shapes, strict=True)):
        missing = next((part for part in stage.train or () if part not in has), None)
        if missing:
            raise RecipeError(
                f"stages.{number}.train: this model has no {missing}: take it out; it has {', '.join(has)}"
            )
        if set(has) <= set(shape.freeze):
            raise RecipeError(f"stages.{number} trains nothing: freeze has every part of this model: take one out")
        if stage.resolution:
            try:
                images.check_side(stage.resolution)
                with torch.device("meta"):
                    model.vision_vocabulary(torch.zeros(1, 3, stage.resolution, stage.resolution))
            except ValueError as error:
                raise RecipeError(f"stages.{number}.resolution: {error}") from error
    read: dict[str, SampleDataset] = {}
    for number, shape in enumerate(shapes[finished:], finished):
        key = str(shape.data)
        if key not in read:
            read[key] = SampleDataset(shape.data, shape.train.seed, BadSamples(lambda _: None), shape.train.held_out)
        try:
            check_images(read[key].samples, processor_of(shape.model), shape.train.max_length)
        except RecipeError as error:
            raise RecipeError(f"stages.{number}: {error}") from error


def publish(recipe: Recipe, report: Callable[[str], None]) -> None:
    """Put the finished model of the last stage into the run's own folder, where possible as links to the same files.

    Raises:
        RecipeError: it cannot be written.
    """
    output, last = Path(recipe.output), stage_folder(Path(recipe.output), len(recipe.stages) - 1)
    with writing(output):
        clear_model(output)
        shutil.copytree(
            last, output, copy_function=_link, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*not_of_the_model())
        )
    report(f"all stages are finished; the model of the last is in {output}")


def _link(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
