"""transformers' Trainer with size-grouped batches, skipping of non-finite losses, and atomic checkpoints."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from train.checkpointing import not_written, seal
from train.data.bad_samples import BadSamples
from train.data.sampler import SizeSampler
from train.model import VaryForTraining
from train.optim.in_backward import InBackward
from train.optim.muon import MATRICES, Muon, is_matrix
from train.parts import PARTS
from train.recipe import RecipeError
from train.run_folder import writing
from train.stage_weights import load_stage


class _NotFinite(Exception):
    """The loss of a batch is infinite or NaN."""


class VaryTrainer(Trainer):
    """The Trainer with batches of similarly sized images.

    Args:
        sizes: of the samples, or None to shuffle regardless of size.
        lr_overrides: learning rates of parts that have their own.
        max_nonfinite_batches: number of batches with a non-finite loss before the run fails.
        report: called with each message for the user.
        ask: gives the scores of the model as it is after so many steps (train.evaluations), in place of a loss on
            other data.

    Attributes:
        tokens: number of tokens processed so far.
        not_finite: number of skipped batches.
    """

    def __init__(
        self,
        sizes: list[tuple[int, int]] | None = None,
        lr_overrides: dict[str, float] | None = None,
        max_nonfinite_batches: int = 10,
        report: Callable[[str], None] = print,
        ask: Callable[[nn.Module, int], dict[str, float]] | None = None,
        **kwargs,
    ):
        self.sizes, self.lr_overrides, self.max_nonfinite_batches, self.report = (
            sizes,
            lr_overrides or {},
            max_nonfinite_batches,
            report,
        )
        self.ask = ask
        self.tokens = self.not_finite = 0
        self._temporary: str | None = None
        self._names: list[str] = []
        super().__init__(**kwargs)

    def create_optimizer(self, model=None):
        model = self.model if model is None else model
        kind, settings = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, model)
        if self.optimizer is not None or not (self.lr_overrides or kind is Muon):
            return super().create_optimizer(model)
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[str, bool, bool], list] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = next((part for part in PARTS if part in name.split(".")), "")
                matrix = kind is Muon and is_matrix(model, part, parameter)
                groups.setdefault((part, name in decayed, matrix), []).append(parameter)
        rows = [
            {
                "params": parameters,
                "weight_decay": self.args.weight_decay if decays else 0.0,
                "lr": self.lr_overrides.get(part, self.args.learning_rate),
                **({MATRICES: True} if matrix else {}),
            }
            for (part, decays, matrix), parameters in groups.items()
        ]
        self.optimizer = kind(rows, **settings)
        return self.optimizer

    def evaluate(self, *arguments, **options) -> dict[str, float]:
        """Ask the model, and log the scores. Each process of several asks all samples, so that none waits for another's
        answers longer than for its own."""
        scores = self.ask(self.model, self.state.global_step)
        self.log(dict(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def training_step(self, model, inputs, num_items_in_batch=None):
        self._names = inputs.pop("names", [])
        self.tokens += inputs["input_ids"].numel()
        before = self.not_finite
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except _NotFinite:
            loss = None
        if self.not_finite == before:
            return loss
        getattr(self.model, "loss_parts", {}).clear()
        return torch.zeros((), device=self.args.device)  # the logged mean must not stay NaN

    def compute_loss(self, model, inputs, *arguments, **options):
        loss = super().compute_loss(model, inputs, *arguments, **options)
        if not self._finite_everywhere(loss):
            self._count()
            if not self.args.fp16:  # a GradScaler needs the backward pass and then skips the step itself
                raise _NotFinite
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        return inner.scaled(loss) if isinstance(inner, InBackward) else loss

    def _finite_everywhere(self, loss: torch.Tensor) -> bool:
        """Whether the loss is finite in all processes, which skip a batch together or not at all."""
        finite = torch.isfinite(loss.detach()).all().float()
        if self.args.world_size > 1:
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def _count(self) -> None:
        self.not_finite += 1
        where = f"step {self.state.global_step + 1}: the loss is not finite; samples: {', '.join(self._names)}"
        if self.is_deepspeed_enabled:
            raise RecipeError(f"{where}. DeepSpeed cannot skip a batch")
        self.report(f"{where}; skipped")
        if self.not_finite > self.max_nonfinite_batches:
            raise RecipeError(
                f"{self.not_finite} batches without a finite loss, more than train.max_nonfinite_batches: a lower "
                "train.learning_rate, a longer train.warmup, or a check of these samples may help"
            )

    def _get_output_dir(self, trial):
        return self._temporary or super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial) -> None:
        """Write to a temporary folder and rename it, so that a killed run leaves the last checkpoint intact."""
        output, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        temporary = output / "unfinished"
        if self.args.should_save:
            shutil.rmtree(temporary, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._temporary = str(temporary)
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(temporary / name)
        except (OSError, SafetensorError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, RuntimeError) and "writ" not in str(error):  # torch's archive writer raises these
                raise
            raise not_written(error, output, f"the checkpoint of step {self.state.global_step}") from error
        finally:
            self._temporary = None
        if self.args.should_save:
            shutil.rmtree(output / name, ignore_errors=True)
            os.replace(temporary / name, output / name)
            temporary.rmdir()
            rotate_checkpoints(output_dir=str(output), save_total_limit=self.args.save_total_limit, use_mtime=True)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Load the stock weights, and the heads from their own file."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if isinstance(model or self.model, VaryForTraining):  # otherwise adapters, which PEFT has loaded
            load_stage(model or self.model, Path(resume_from_checkpoint))

    def _get_train_sampler(self, train_dataset=None):
        if self.sizes is None:
            return super()._get_train_sampler(train_dataset)
        batch = self.args.per_device_train_batch_size * max(self.args.world_size, 1)
        return SizeSampler(self.sizes, self.train_dataset.spans, batch, self.args.seed)


class OwnSteps(TrainerCallback):
    """Use the recipe's intervals after a resume, where the Trainer would use the checkpoint's."""

    def on_train_begin(self, args, state, control, **kwargs):
        state.save_steps, state.logging_steps = int(args.save_steps), int(args.logging_steps)
        state.eval_steps = int(args.eval_steps or 0)


class Warmup(TrainerCallback):
    """Ends the heads' warm-up after ``steps`` optimizer steps, so that resuming is exact."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_step_begin(self, args, state, control, model: nn.Module, **kwargs):
        model.heads_only = state.global_step < self.steps


class Records(TrainerCallback):
    """Writes every log as a JSON line, with the seconds since the start and the number of bad samples."""

    def __init__(self, path: Path, bad: BadSamples):
        self.path, self.bad, self.start = path, bad, time.time()
        self.parts: dict[str, list[torch.Tensor]] = {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero:
            for name, value in getattr(model, "loss_parts", {}).items():
                self.parts.setdefault(name, []).append(value)  # read when logged: reading waits for the device

    def on_log(self, args, state, control, logs=None, model=None, **kwargs):
        if not state.is_world_process_zero:
            return
        row = {"step": state.global_step, "seconds": round(time.time() - self.start, 1), **(logs or {})}
        if "eval_samples" not in row:
            row |= {name: round(torch.stack(values).float().mean().item(), 4) for name, values in self.parts.items()}
            self.parts = {}
        row["bad_samples"] = self.bad.count
        with writing(self.path), self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")


class Progress(ProgressCallback):
    """Progress bar with the last loss, tokens per second and peak memory."""

    def __init__(self, trainer: VaryTrainer):
        super().__init__()
        self.trainer, self.start = trainer, time.time()

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.start = time.time()

    def close(self) -> None:
        """Close the bar of a stopped run."""
        if self.training_bar is not None:
            self.training_bar.close()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None or "loss" not in (logs or {}):
            return
        speed = self.trainer.tokens / max(time.time() - self.start, 1e-9)
        self.training_bar.set_postfix_str(
            f"loss {float(logs['loss']):.3f}, {speed:,.0f} tokens/s, {peak_memory() / 2**30:.1f} GiB"
        )


def peak_memory() -> int:
    """Peak memory in bytes: allocated on the GPU, or without one, resident in the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
