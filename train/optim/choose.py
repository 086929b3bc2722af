"""Translate a recipe's settings for the Trainer: its arguments, the optimizer and the compute dtype."""

from functools import partial

import torch
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments

from train.optim.in_backward import InBackward
from train.optim.muon import Muon
from train.recipe import EIGHT_BIT, Recipe
from varytoy.devices.precision import DTYPES


def compute_type(recipe: Recipe) -> torch.dtype:
    """The compute dtype."""
    return DTYPES[recipe.train.precision if recipe.train.precision != "fp32" else recipe.train.weights]


def choose_optimizer(recipe: Recipe, arguments: TrainingArguments) -> tuple[type[Optimizer], dict] | None:
    """Class and arguments of the recipe's optimizer, or None for the Trainer's own."""
    chosen, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    if recipe.train.optimizer == "muon":
        return Muon, options
    eight_bit = recipe.train.optimizer in EIGHT_BIT
    if recipe.train.deepspeed or not (eight_bit or recipe.train.in_backward):
        return None
    if eight_bit:  # the Trainer's optimizer would keep the embeddings' state in 32 bits
        from train.optim.stochastic_rounding import (
            RoundingAdamW8bit,  # imports bitsandbytes, which other optimizers need not
        )

        options.pop("optim_bits")
        options["nearest"] = recipe.train.rounding == "nearest"
        chosen = RoundingAdamW8bit
    if not recipe.train.in_backward:
        return chosen, options
    scale, rate = recipe.train.loss_scale, options["lr"]
    return InBackward, {"make": partial(chosen, **options), "scale": scale, "lr": rate}


def describe_optimizer(trainer: Trainer) -> str:
    """Class and state dtypes of the innermost optimizer, whatever wraps it."""
    optimizer = getattr(trainer.model_wrapped, "optimizer", None) or trainer.optimizer
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    state = optimizer.state
    note = ""
    if isinstance(optimizer, InBackward):
        note = f", stepped inside backward, {optimizer.skipped} gradients skipped that were not finite"
        state = {parameter: inner.state[parameter] for parameter, inner in optimizer.inner.items()}
        optimizer = next(iter(optimizer.inner.values()))
    states = {
        str(value.dtype).removeprefix("torch.")
        for slots in state.values()
        for value in slots.values()
        if torch.is_tensor(value) and value.numel() > 1
    }
    name = f"{type(optimizer).__module__.split('.')[0]}.{type(optimizer).__name__}"
    return f"optimizer: {name}, state in {', '.join(sorted(states)) or 'nothing'}{note}"


def training_arguments(recipe: Recipe) -> TrainingArguments:
    settings = recipe.train
    evaluates = settings.evaluate_steps > 0
    return TrainingArguments(
        output_dir=recipe.output,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="cosine_with_min_lr" if settings.end_rate else settings.schedule,
        lr_scheduler_kwargs={"min_lr_rate": settings.end_rate} if settings.end_rate else None,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        optim="adamw_torch" if settings.optimizer == "muon" else settings.optimizer,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        deepspeed=settings.deepspeed or None,
        gradient_checkpointing=settings.gradient_checkpointing,
        dataloader_num_workers=settings.workers,
        seed=settings.seed,
        save_steps=settings.save_steps,
        save_total_limit=settings.keep,
        logging_steps=settings.log_steps,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.evaluate_steps or None,
        eval_on_start=evaluates,
        report_to=["tensorboard"],
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        logging_nan_inf_filter=False,  # VaryTrainer skips and reports non-finite losses
    )
