"""One loop for every stage and size: transformers' Trainer with our data, losses and records."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, ProgressCallback, Trainer

from train import adapters
from train.checkpointing import not_written, resume_point
from train.machine import allow_old_cards, check_machine, distributed_defaults, say_locks
from train.model import VaryForTraining
from train.optim.choose import choose_optimizer, compute_type, describe_optimizer
from train.predictions import Predictions
from train.recipe import Recipe, RecipeError
from train.run import Run
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
    writing,
)
from train.stage_weights import is_whole
from train.trainer import OwnSteps, Progress, Records, VaryTrainer, Warmup
from varytoy.errors import first_line, room
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
    run = Run(recipe, say)
    data, model = run.data, run.model
    say(f"stage {recipe.stage}: {run.origin}")
    collator = run.collator()
    say(run.freeze())
    if overwrite:
        check_overwrite(recipe, output)
    strides = model.config.vocabulary_config.stride
    processor, arguments = run.processor, run.arguments
    with arguments.main_process_first(desc="base of the adapters"):
        base = base_folder(model, recipe, processor, resume, writes=arguments.process_index == 0)
    model = run.extend(base)
    if recipe.lora.rank:
        say(adapters.describe(model))
    for source, count in zip(recipe.data, data.counts, strict=True):
        say(f"  {count:>9,} samples from {source.path}")
    trainer = VaryTrainer(
        model=model,
        args=arguments,
        optimizer_cls_and_kwargs=choose_optimizer(recipe, arguments),
        processing_class=processor,
        train_dataset=data,
        data_collator=collator,
        sizes=data.shapes(strides) if recipe.train.group_by_size else None,
        lr_overrides=recipe.train.lr_overrides,
        max_nonfinite_batches=recipe.train.max_nonfinite_batches,
        say=say,
        callbacks=[
            Records(output / "metrics.jsonl", run.bad),
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
    say(f"{run.bad.count} bad samples; the model is in {output}")
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
