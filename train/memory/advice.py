"""A memory plan as a table, whether it fits, and which settings to change if it does not."""

from dataclasses import replace

from train.memory.budget import rows
from train.memory.plan import GIB, RESERVE, Plan, plan
from train.recipe import EIGHT_BIT, Recipe, RecipeError

LOWER = {
    "weights": "train.weights=bf16, --overlay lora or qlora",
    "optimizer state": "train.optimizer=adamw_bnb_8bit, freeze",
    "gradients": "train.in_backward=true, freeze",
    "keys and values": "train.evaluate_batch, train.evaluate_tokens",
    "activations": "train.batch_size, train.gradient_checkpointing=true, train.max_length",
    "pictures and prompts": "train.evaluate_batch",
    "DeepSpeed's buffers": "reduce_bucket_size of the DeepSpeed file",
}
"""Kind of memory -> the settings that lower it."""


def report(estimate: Plan) -> str:
    """The plan as a table."""
    lines = [f"peak {estimate.peak / GIB:.2f} GiB, at {estimate.phase}"]
    for part, kinds in estimate.parts.items():
        lines += ["", f"peak of the {part}" if len(estimate.parts) > 1 else "of which"]
        for kind, size in kinds.items():
            lower = f"   lower: {LOWER[kind]}" if kind in LOWER else ""
            lines.append(f"  {kind:<20} {size / GIB:6.2f} GiB{lower}")
    lines += ["", "peak of each phase"]
    lines += [f"  {phase:<32} {size / GIB:6.2f} GiB" for phase, size in estimate.phases.items()]
    lines += [f"stand-in: {text}" for text in estimate.approximations]
    for where, title in (("host", "on the host, computed"), ("disk", "on the disk, computed")):
        lines += ["", title, *rows(estimate.needs, where)]
    return "\n".join(lines)


def verdict(estimate: Plan, recipe: Recipe, card: float, tokens: int = 0, images: int = 1) -> str:
    """One line: whether it fits a GPU of ``card`` GiB, and if not, which settings to change."""
    sums = f"{estimate.peak / GIB:.2f} + {RESERVE / GIB:.1f} GiB reserve of {card:g} GiB"
    if estimate.fits(card):
        return f"fits: {sums}"
    return f"does not fit: {sums}; {advice(estimate, recipe, card, tokens, images)}"


def advice(estimate: Plan, recipe: Recipe, card: float, tokens: int = 0, images: int = 1) -> str:
    """Settings to change, largest part of the peak first, among those the recipe allows, until the plan fits."""
    changed: dict[str, object] = {}
    while not estimate.fits(card) and (change := _change(estimate, recipe)):
        changed |= change
        recipe = replace(recipe, train=replace(recipe.train, **change))
        estimate = plan(recipe, tokens, images)
    settings = " ".join(f"train.{key}={value}".lower() for key, value in changed.items())
    sentences = [f"with {settings} it is {estimate.peak / GIB:.2f} GiB"] if changed else []
    if not estimate.fits(card):
        sentences.append("freeze more of the model" if recipe.lora.quantize else "try --overlay lora or qlora")
    return ", ".join(sentences)


def _change(estimate: Plan, recipe: Recipe) -> dict[str, object]:
    """Settings that reduce the largest part of the plan; empty if all are in use already."""
    train = recipe.train
    small = {} if train.optimizer in EIGHT_BIT else {"optimizer": "adamw_bnb_8bit"}
    at_once = {"in_backward": True, "clip_norm": 0.0, "accumulation": 1}
    narrow = {"weights": "fp16", "precision": "fp16"}  # not bf16, which GPUs of the 10 series do not support
    if not recipe.lora.rank:
        narrow |= {"precision": "fp32", "loss_scale": 0.0, **small, **at_once}
    changes = {
        "activations": [{"gradient_checkpointing": True}, {"batch_size": max(train.batch_size // 2, 1)}],
        "optimizer state": [small],
        "gradients": [at_once],
        "weights": [narrow] if train.weights == "fp32" else [],
        "pictures and prompts": [{"evaluate_batch": max(train.evaluate_batch // 2, 1)}],
        "keys and values": [
            {"evaluate_batch": max(train.evaluate_batch // 2, 1)},
            {"evaluate_tokens": max(train.evaluate_tokens // 2, 64)},
        ],
    }
    for kind in sorted(estimate.kinds, key=estimate.kinds.get, reverse=True):
        for change in changes.get(kind, []):
            changed = replace(recipe, train=replace(train, **change))
            if changed != recipe and _allowed(changed):
                return change
    return {}


def _allowed(recipe: Recipe) -> bool:
    try:
        recipe.check()
    except RecipeError:
        return False
    return True
