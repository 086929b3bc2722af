"""``python -m train memory RECIPE --measure``: run the planned step with random weights and measure its memory.

The model, the optimizer and the Trainer are those of ``python -m train run``; the samples are synthetic. On a GPU the
process is limited to the planned GPU's memory. Without one the step runs on the CPU, and its memory is the growth of
the process: other kernels than on a GPU, but the same tensors.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainerCallback

from train.loop import hide_progress
from train.machine import allow_old_cards, check_machine, distributed_defaults
from train.memory.plan import GIB, dummy_batch
from train.optim.choose import choose_optimizer
from train.recipe import Recipe, RecipeError
from train.run import Run
from train.trainer import VaryTrainer
from varytoy.errors import first_line


@dataclass
class Measured:
    """Measured memory and time of a recipe's steps.

    Attributes:
        device: name of the GPU, or "CPU" and its threads; ``on_card``: whether it is a GPU.
        peak: peak memory in bytes after the first step.
        seconds: per step (median, without the first); ``tokens``: per step.
        skipped: steps and gradients that were skipped because they were not finite; these cost less.
    """

    device: str
    on_card: bool
    peak: int
    seconds: float
    tokens: int
    skipped: int


class NoRoom(RecipeError):
    """Out of GPU memory."""


class _Watch(TrainerCallback):
    """Times steps; excludes the first one, in which states are allocated and kernels chosen, from time and peak."""

    def __init__(self):
        self.started, self.seconds, self.skipped, self.trainer = 0.0, [], 0, None

    def on_step_begin(self, args, state, control, **kwargs):
        _wait()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        _wait()
        self.skipped += self.trainer.accelerator.optimizer_step_was_skipped
        if state.global_step > 1:
            self.seconds.append(time.perf_counter() - self.started)
        else:
            _forget_peak()


def _check(recipe: Recipe) -> None:
    """Raises RecipeError if a recipe's step cannot be run on this machine."""
    check_machine(recipe)
    if torch.cuda.is_available():
        return
    if not Path("/proc/self/status").is_file():
        raise RecipeError("memory --measure needs a card, or Linux")
    if recipe.train.deepspeed:
        raise RecipeError("memory --measure: DeepSpeed's GPU memory can only be measured on a GPU")


def measure(recipe: Recipe, tokens: int = 0, images: int = 1, steps: int = 4, card: float = 11.0) -> Measured:
    """Run ``steps`` steps of the recipe on samples of ``tokens`` (default: its ``train.max_length``) with ``images``
    images each. On a GPU PyTorch may use ``card`` GiB; with accumulation a step has two micro-batches.

    Raises:
        NoRoom: out of memory.
        RecipeError: the recipe cannot be run here.
    """
    _check(recipe)
    tokens = tokens or recipe.train.max_length
    on_card = torch.cuda.is_available()
    if on_card:
        torch.cuda.set_per_process_memory_fraction(min(card * GIB / torch.cuda.mem_get_info()[1], 1.0))
    if recipe.train.deepspeed:
        distributed_defaults()
        allow_old_cards(print)
    accumulation = min(recipe.train.accumulation, 2)
    settings = {"max_steps": steps, "accumulation": accumulation, "log_steps": 10**9, "warmup": 0}
    start = 0 if on_card else _resident("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        recipe = dataclasses.replace(recipe, output=folder, train=dataclasses.replace(recipe.train, **settings))
        try:
            watch = _train(recipe, tokens, images)
        except torch.cuda.OutOfMemoryError as error:
            raise NoRoom(f"out of memory within {card:g} GiB ({first_line(error)})") from error
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
    peak = torch.cuda.max_memory_allocated() if on_card else _resident("VmHWM") - start
    device = torch.cuda.get_device_name() if on_card else f"CPU, {torch.get_num_threads()} threads"
    tokens_per_step = recipe.train.batch_size * accumulation * tokens
    return Measured(device, on_card, peak, statistics.median(watch.seconds), tokens_per_step, watch.skipped)


def _train(recipe: Recipe, tokens: int, images: int) -> _Watch:
    run = Run(recipe, weights=False)
    run.freeze()
    batch = dummy_batch(run.model, recipe.train.batch_size, tokens, images, side=recipe.model.resolution)
    model, arguments = run.extend(), run.arguments
    arguments.report_to = []
    arguments.set_save(strategy="no")
    watch = _Watch()
    trainer = VaryTrainer(
        model=model,
        args=arguments,
        optimizer_cls_and_kwargs=choose_optimizer(recipe, arguments),
        train_dataset=list(range(recipe.train.max_steps * recipe.train.accumulation * recipe.train.batch_size)),
        data_collator=lambda _: dict(batch),
        lr_overrides=recipe.train.lr_overrides,
        callbacks=[watch],
    )
    watch.trainer = trainer
    hide_progress(trainer)
    trainer.train()
    inner = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    watch.skipped += trainer.not_finite + getattr(inner, "skipped", 0)
    return watch


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # not supported everywhere: the peak then counts from the start
            Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    """Resident memory of the process in bytes: ``VmRSS`` current, ``VmHWM`` peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def compare(measured: Measured, planned: int) -> str:
    """One sentence with the measured memory and time, and the deviation of the plan."""
    skipped = measured.skipped
    note = f"; {skipped} skipped, not finite: more memory and time are needed than this" if skipped else ""
    speed = f"{measured.tokens / measured.seconds:,.0f} tokens/s"
    return (
        f"measured on {measured.device}: peak {measured.peak / GIB:.2f} GiB (planned {planned / GIB:.2f}, "
        f"{planned / measured.peak - 1:+.0%}), {measured.seconds:.2f} s a step, {speed}{note}"
    )
