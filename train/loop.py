"""One loop for every stage and size: transformers' Trainer with our data, losses and records."""

import os
import shutil
import socket
import time
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim import Optimizer
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from train import adapters
from train.checkpointing import not_written, resume_point
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset
from train.data.feature_cache import FeatureStore, check_all
from train.model import VaryForTraining, build, compile_parts, freeze
from train.optim.in_backward import InBackward
from train.predictions import Predictions
from train.recipe import EIGHT_BIT, Recipe, RecipeError
from train.run_folder import (
    alone,
    check_new,
    check_overwrite,
    clear,
    compare,
    is_first,
    last_checkpoint,
    quiet_writers,
    record_start,
    room,
    writing,
)
from train.stage_weights import is_whole
from train.trainer import OwnSteps, Progress, Records, VaryTrainer, Warmup
from varytoy.devices.precision import DTYPES, quantize
from varytoy.errors import first_line
from varytoy.processing.processor import VaryProcessor


def run(recipe: Recipe, resume: bool = False, say=print, overwrite: bool = False) -> Path:
    """Train as the recipe says. Returns the folder of the finished model.

    Args:
        resume: go on from the newest checkpoint of the output folder.
        overwrite: begin anew, and delete the run that the output folder holds.

    Raises:
        RecipeError, SampleError, MissingExtra: what is wrong and how to mend it.
        KeyboardInterrupt: with half a sentence on the last checkpoint.
    """
    check_machine(recipe)
    output = Path(recipe.output)
    try:
        with alone(output, say):
            _run(recipe, output, resume, overwrite, say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(last_checkpoint(output)) from None
    return output


def _run(recipe: Recipe, output: Path, resume: bool, overwrite: bool, say) -> None:
    if recipe.train.deepspeed:
        distributed_defaults()
        allow_old_cards(say)
        say_locks(say)
    checkpoint = None
    if resume:
        checkpoint = resume_point(output, say)
        compare(recipe, output, checkpoint, say if is_first() else lambda _: None)
    elif is_first() and not overwrite:  # the others wait for it before anything is written
        check_new(output)
    torch.manual_seed(recipe.train.seed)
    torch.set_flush_denormal(True)  # tiny optimizer states slow a CPU down
    bad = BadSamples(say)
    data = SampleDataset(recipe.data, recipe.train.seed, bad)
    model, processor, message = build(recipe, data.labels() if "objects" in recipe.objectives else [])
    say(f"stage {recipe.stage}: {message}")
    features = None
    if recipe.features:
        features = FeatureStore(Path(recipe.features), model.towers.digest(processor))
        check_all(features, data.samples)
    say(freeze(model, recipe.freeze))
    if overwrite:
        check_overwrite(recipe, output)
    strides = model.config.vocabulary_config.stride
    arguments = training_arguments(recipe)
    with arguments.main_process_first(desc="base of the adapters"):
        base = base_folder(model, recipe, processor, resume, writes=arguments.process_index == 0)
    objectives, clip = model.objectives, model.clip is not None
    model = extend(model, recipe, base)
    if recipe.lora.rank:
        say(adapters.describe(model))
    for source, count in zip(recipe.data, data.counts, strict=True):
        say(f"  {count:>9,} samples from {source.path}")
    collator = Collator(
        processor,
        recipe.train.max_length,
        bad,
        objectives=objectives,
        clip=clip,
        token_corruption=recipe.train.token_corruption,
        names=True,
        features=features,
    )
    trainer = VaryTrainer(
        model=model,
        args=arguments,
        optimizer_cls_and_kwargs=choose_optimizer(recipe, arguments),
        processing_class=processor,
        train_dataset=data,
        data_collator=collator,
        sizes=data.shapes(strides) if recipe.train.group_by_size else None,
        rates=recipe.train.rates,
        most_not_finite=recipe.train.most_not_finite,
        say=say,
        callbacks=[
            Records(output / "metrics.jsonl", bad),
            OwnSteps(),
            Warmup(recipe.train.heads_warmup),
            Predictions(output / "predictions", data, processor, recipe.train.predict_steps, compute_type(recipe)),
        ],
    )
    progress = show_progress(trainer)
    if overwrite and is_first():
        clear(output, keep_base=bool(recipe.lora.rank))
    record_start(recipe, output, data.counts, checkpoint)
    try:
        with quiet_writers():
            trainer.train(resume_from_checkpoint=checkpoint)
    except (OSError, SafetensorError) as error:
        step = trainer.state.global_step
        raise RecipeError(
            f"the run ended at step {step}: {first_line(error)} ({room(output)}); {last_checkpoint(output)}"
        ) from error
    finally:
        progress.close()
    say(describe_optimizer(trainer))
    try:
        trainer.save_model(str(output))
    except (OSError, SafetensorError) as error:
        raise not_written(error, output, "the finished model") from error
    if trainer.not_finite:
        say(f"{trainer.not_finite} batches skipped, whose loss was not finite")
    say(f"{bad.count} bad samples; the model is in {output}")
    if torch.distributed.is_initialized():  # two processes sometimes abort at exit without this
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def show_progress(trainer: VaryTrainer) -> Progress:
    """Our bar in place of the Trainer's."""
    hide_progress(trainer)
    progress = Progress(trainer)
    trainer.add_callback(progress)
    return progress


def hide_progress(trainer: Trainer) -> None:
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)


def base_folder(
    model: VaryForTraining, recipe: Recipe, processor: VaryProcessor, resume: bool, writes: bool = True
) -> Path | None:
    """The model below the recipe's adapters, if it asks for any, as a folder that can be loaded: the one of ``init`` if
    that is the whole model, else written anew at the beginning of a run."""
    if not recipe.lora.rank:
        return None
    base = Path(recipe.model.init[0]) if len(recipe.model.init) == 1 else None
    if base is None or not is_whole(model, base):
        base = Path(recipe.output) / "base"
        if writes and not resume:
            aside = base.with_name("base.part")
            shutil.rmtree(aside, ignore_errors=True)
            shutil.rmtree(base, ignore_errors=True)
            with writing(base):
                model.save_pretrained(aside)
                processor.save_pretrained(aside)
                aside.rename(base)
        if not base.is_dir():
            raise RecipeError(f"--resume: {base}, which the adapters were trained on, is gone")
    return base


def extend(model: VaryForTraining, recipe: Recipe, base: Path | None = None) -> nn.Module:
    """The model as it is trained: its decoder packed, with adapters and compiled, where the recipe says so."""
    if recipe.lora.quantize:
        quantize(model, recipe.lora.quantize, compute_type(recipe))
    if recipe.lora.rank:
        model = adapters.add_adapters(model, recipe, base)
    if recipe.train.compile:
        compile_parts(model.language_model)
    return model


def compute_type(recipe: Recipe) -> torch.dtype:
    """What products are computed in."""
    return DTYPES[recipe.train.precision if recipe.train.precision != "fp32" else recipe.train.weights]


def choose_optimizer(recipe: Recipe, arguments: TrainingArguments) -> tuple[type[Optimizer], dict] | None:
    """Class and arguments of the recipe's optimizer where it is not the Trainer's own."""
    chosen, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    eight_bit = recipe.train.optimizer in EIGHT_BIT
    if recipe.train.deepspeed or not (eight_bit or recipe.train.in_backward):
        return None
    if eight_bit:  # the Trainer's would keep the embeddings' state in 32 bits
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
    """Class and state types of the optimizer that really stepped, whatever wraps it."""
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
        for kept in state.values()
        for value in kept.values()
        if torch.is_tensor(value) and value.numel() > 1
    }
    name = f"{type(optimizer).__module__.split('.')[0]}.{type(optimizer).__name__}"
    return f"optimizer: {name}, state in {', '.join(sorted(states)) or 'nothing'}{note}"


def distributed_defaults() -> None:
    """DeepSpeed wants to be told its rank; a plain ``python -m train run`` is a group of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    defaults = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if "RANK" not in os.environ:
        os.environ.update({name: str(value) for name, value in defaults.items()})
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def allow_old_cards(say) -> None:
    """DeepSpeed refuses fp16 below compute capability 7 (a GTX 10-series card has 6.1) unless it is told otherwise."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < (7, 0):
        os.environ["DS_ALLOW_DEPRECATED_FP16"] = "1"
        say(f"{torch.cuda.get_device_name()}: DS_ALLOW_DEPRECATED_FP16=1 is set, for DeepSpeed to take fp16 on it")


def say_locks(say) -> None:
    """A compilation that was killed leaves a lock behind, for which DeepSpeed's next one waits without a word."""
    from torch.utils.cpp_extension import get_default_build_root  # needs setuptools, as DeepSpeed does

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob("**/lock"):
        minutes = (time.time() - lock.stat().st_mtime) / 60
        if minutes > 2:
            say(f"DeepSpeed waits for {lock}, {minutes:.0f} minutes old: delete it if nobody is compiling any more")


def check_machine(recipe: Recipe) -> None:
    """Raises RecipeError for what a recipe cannot do on this machine, or in so many processes."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if recipe.train.precision == "fp16" and not cards:
        raise RecipeError("train.precision=fp16 needs a card: on a CPU set it, and train.weights if fp16, to bf16")
    if recipe.train.in_backward and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "train.in_backward steps before processes could share their gradients: start one process, or use DeepSpeed"
        )
    if cards > 1 and "LOCAL_RANK" not in os.environ:
        raise RecipeError(
            f"one process sees {cards} cards: start torchrun --nproc_per_node {cards} -m train run RECIPE, or name one "
            "card in CUDA_VISIBLE_DEVICES"
        )


def training_arguments(recipe: Recipe) -> TrainingArguments:
    settings = recipe.train
    return TrainingArguments(
        output_dir=recipe.output,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        optim=settings.optimizer,
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
        report_to=["tensorboard"],
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        logging_nan_inf_filter=False,  # VaryTrainer skips and says what is not finite
    )
