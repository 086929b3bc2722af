"""Before the first step: does the run's evaluation fit in memory, and do its checkpoints fit on the disk?"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from train.memory.budget import disk_needs, sizes_of, total
from train.memory.plan import GIB, RESERVE, evaluated, plan
from train.recipe import Recipe, RecipeError, read_zero


def warn(recipe: Recipe, model: nn.Module, report: Callable[[str], None]) -> None:
    """``report`` what does not fit, each in a sentence with the settings that lower it."""
    evaluates, answer = evaluated(recipe)
    if evaluates:
        try:
            if recipe.train.deepspeed and read_zero(recipe.train.deepspeed).get("stage") == 3:
                raise RecipeError(f"{recipe.train.deepspeed}: memory does not predict ZeRO-3")
            found = plan(recipe, steps=False)
        except RecipeError as error:
            report(f"whether the evaluation fits in memory is not known: {error}")
        else:
            free, where = memory(found.kinds.get("weights", 0))
            if found.peak + RESERVE > free:
                report(
                    f"the evaluation will not fit: answers of {answer} tokens to {evaluates} samples need "
                    f"{found.peak / GIB:.2f} + {RESERVE / GIB:.1f} GiB reserve of {free / GIB:.1f} GiB {where}: lower "
                    "train.evaluate_batch or train.evaluate_tokens, or set train.evaluate_steps=0"
                )
    needed = total(disk_needs(recipe, sizes_of(recipe, model), 0), "disk")
    free = shutil.disk_usage(_existing(Path(recipe.output))).free
    if needed > free:
        report(
            f"the run needs {needed / GIB:.1f} GiB of disk for its checkpoints and its model, and {recipe.output} has "
            f"{free / GIB:.1f} GiB free: train.keep=1, an 8-bit optimizer or --overlay lora need less"
        )


def memory(weights: float) -> tuple[float, str]:
    """Free bytes of the GPU, and where; without a GPU of this machine, with ``weights`` that it holds already."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0]), "on the card"
    import psutil  # accelerate needs it too

    return psutil.virtual_memory().available + weights, "of this machine"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
