"""Replay of old data by default: a model that is adapted also sees some of what it was trained on before."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_tools.mixture import DataSettings
from train.recipe import Recipe, RecipeError, read_recipe
from train.stages import stage_folders
from varytoy.data.samples import sample_files


def is_adapting(recipe: Recipe) -> bool:
    """Whether a run teaches a finished model something new."""
    return bool(recipe.model.init) and (recipe.stage == "sft" or bool(recipe.lora.rank))


def with_replay(recipe: Recipe, resume: bool = False, report: Callable[[str], None] = print) -> Recipe:
    """The recipe with sources that replay what ``model.init`` was trained on, a fraction ``recipe.replay`` of each
    epoch in all, unless it names replayed sources of its own; ``report`` is told what is replayed, or how to add it.

    A resumed run goes on with the sources that it began with.
    """
    if resume:
        return replace(recipe, data=[*recipe.data, *_added_before(recipe)])
    own = [source for source in recipe.data if source.replay]
    for source in own:
        report(f"replayed: {source.replay:.0%} of each epoch from {source.path}")
    if own or not recipe.replay or not is_adapting(recipe):
        return recipe
    here = {_absolute(source) for source in recipe.data}
    old = [(source, count) for folder in recipe.model.init for source, count in _trained_on(Path(folder))]
    if old and all(_absolute(source) in here for source, _ in old):
        return recipe  # it goes on with the same data
    old = [(source, count) for source, count in old if _absolute(source) not in here]
    there = [(source, count) for source, count in old if _is_there(Path(source.path))]
    if not there:
        known = ", ".join(source.path for source, _ in old)
        why = f"{known}, which it was trained on, is gone" if known else "no record of what it was trained on"
        report(
            f"nothing is replayed, so {' and '.join(recipe.model.init)} may forget what it knows ({why}): add "
            "{path: FOLDER, replay: 0.1} to data, or set replay=0 if that does not matter"
        )
        return recipe
    total = sum(count for _, count in there)
    shares = [round(recipe.replay * count / total, 6) for _, count in there]
    added = [replace(old, share=1.0, weight=0.0, replay=share) for (old, _), share in zip(there, shares, strict=True)]
    for source in added:
        report(
            f"replayed: {source.replay:.1%} of each epoch from {source.path}, which "
            f"{' and '.join(recipe.model.init)} was trained on (replay=0 for none)"
        )
    return replace(recipe, data=[*recipe.data, *added])


def _is_there(path: Path) -> bool:
    return all(file.is_file() for file in sample_files(path))


def _absolute(source: DataSettings) -> Path:
    return Path(source.path).resolve()


def _added_before(recipe: Recipe) -> list[DataSettings]:
    """Sources that the run was begun with beside those of the recipe."""
    stored = Path(recipe.output) / "recipe.yaml"
    if not stored.is_file() or any(source.replay for source in recipe.data):
        return []
    rest = read_recipe(stored).data[len(recipe.data) :]
    return rest if all(source.replay for source in rest) else []


def _trained_on(folder: Path) -> list[tuple[DataSettings, int]]:
    """The sources of the run in a folder, and how many samples of each an epoch had; empty if it is no run's."""
    stages = [pair for stage in stage_folders(folder) for pair in _trained_on(stage)]
    if stages:
        return list({_absolute(source): (source, count) for source, count in stages}.values())
    try:
        sources = read_recipe(folder / "recipe.yaml").data
        rows = [json.loads(line) for line in (folder / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
        counts = {row["path"]: row["samples"] for row in rows[-1]["data"]}
        return [(source, int(counts[source.path])) for source in sources]
    except (OSError, RecipeError, ValueError, KeyError, IndexError, TypeError):
        return []
