"""The training loop of all stages and sizes: transformers' Trainer with our data, losses and logs."""

import gc
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, ProgressCallback, Trainer

from train import adapters
from train.checkpointing import checkpoints, not_written, resume_point
from train.data.dataset import view_of
from train.data.lengths import check_images
from train.evaluations import Evaluations, choose_samples
from train.machine import allow_old_cards, check_machine, distributed_defaults, remove_stale_locks, report_slow_bf16
from train.memory.room import warn
from train.model import VaryForTraining
from train.optim.choose import choose_optimizer, compute_type, describe_optimizer
from train.predictions import Predictions
from train.recipe import Recipe, RecipeError, to_yaml
from train.replay import with_replay
from train.run import Run
from train.run_folder import (
    alone,
    carry_parts,
    check_new,
    check_overwrite,
    clear,
    compare,
    is_first,
    last_checkpoint,
    quiet_writers,
    record_start,
    write_aside,
    writing,
)
from train.stage_runs import check_before, count_finished, finish, publish
from train.stage_weights import is_whole
from train.stages import stage_recipes, titles
from train.trainer import OwnSteps, Progress, Records, VaryTrainer, Warmup
from varytoy.errors import first_line, room
from varytoy.processing.processor import VaryProcessor


def run(recipe: Recipe, resume: bool = False, say=print, overwrite: bool = False) -> Path:
    """Train according to the recipe, all its stages one after another. Returns the folder of the finished model.

    Args:
        resume: resume from the newest checkpoint of the output folder.
        say: called with each message for the user.
        overwrite: start from the beginning, and delete the run in the output folder.

    Raises:
        RecipeError, SampleError, MissingExtra: with the cause and how to fix it.
        KeyboardInterrupt: its message names the last checkpoint.
    """
    check_machine(recipe)
    output = Path(recipe.output)
    try:
        with alone(output, say):
            (_run_stages if recipe.stages else _run)(recipe, output, resume, overwrite, say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(last_checkpoint(output)) from None
    if torch.distributed.is_initialized():  # two processes sometimes abort at exit without this
        torch.distributed.destroy_process_group()
    return output


def _run_stages(recipe: Recipe, output: Path, resume: bool, overwrite: bool, report) -> None:
    """Each stage is a run of its own in a folder of its own, with a new optimizer."""
    finished = count_finished(recipe) if resume else 0
    if not resume and not overwrite and is_first():
        check_new(output)
    check_before(recipe, finished)
    if is_first():
        if overwrite:
            check_overwrite(recipe, output)
            clear(output, keep_base=False)
        write_aside(output / "recipe.yaml", to_yaml(recipe))
    for number, (title, stage) in enumerate(zip(titles(recipe), stage_recipes(recipe), strict=True)):
        folder = Path(stage.output)
        report(f"{title}; {'finished' if number < finished else 'begins'} in {folder}")
        if number < finished:
            continue
        goes_on = resume and number == finished and (number == 0 or bool(checkpoints(folder)))
        with alone(folder, report):
            _run(stage, folder, goes_on, False, report)
        if is_first():
            finish(stage)
        gc.collect()  # the model and the optimizer of the stage before refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if is_first():
        publish(recipe, report)


def _run(recipe: Recipe, output: Path, resume: bool, overwrite: bool, report) -> None:
    if recipe.train.deepspeed:
        distributed_defaults()
        allow_old_cards(report)
        remove_stale_locks(report)
    report_slow_bf16(recipe, report)
    recipe = with_replay(recipe, resume, report)
    checkpoint = None
    if resume:
        checkpoint = resume_point(output, report)
        compare(recipe, output, checkpoint, report if is_first() else lambda _: None)
    elif is_first() and not overwrite:  # other processes wait for this one before anything is written
        check_new(output)
    torch.manual_seed(recipe.train.seed)
    torch.set_flush_denormal(True)  # denormal optimizer states are slow on a CPU
    run = Run(recipe, report)
    data, model = run.data, run.model
    report(f"stage {recipe.stage}: {run.origin}")
    collator = run.collator()
    report(run.freeze())
    if overwrite:
        check_overwrite(recipe, output)
    strides, pixels = model.config.vocabulary_config.stride, run.processor.image_processor
    plan = pixels.plan if pixels.mode == "patches" else None
    check_images(data.samples, run.processor, recipe.train.max_length)
    processor, arguments = run.processor, run.arguments
    with arguments.main_process_first(desc="base of the adapters"):
        base = base_folder(model, recipe, processor, resume, writes=arguments.process_index == 0)
    model = run.extend(base)
    if recipe.lora.rank:
        report(adapters.describe(model))
    for source, count in zip(recipe.data, data.counts, strict=True):
        report(f"  {count:>9,} samples from {source.path}" + (", replayed" if source.replay else ""))
    if recipe.train.held_out:
        report(f"  {sum(map(len, data.held_out)):>9,} samples are held out (train.held_out={recipe.train.held_out:g})")
    if is_first():
        warn(recipe, model, report)
    asked = choose_samples(recipe, data, report) if recipe.train.evaluate_steps else []
    if resume:
        arguments.eval_on_start = False  # the run that goes on has begun before
    trainer = VaryTrainer(
        model=model,
        args=arguments,
        optimizer_cls_and_kwargs=choose_optimizer(recipe, arguments),
        processing_class=processor,
        train_dataset=data,
        data_collator=collator,
        sizes=data.shapes(strides, plan) if recipe.train.group_by_size else None,
        lr_overrides=recipe.train.lr_overrides,
        max_nonfinite_batches=recipe.train.max_nonfinite_batches,
        report=report,
        eval_dataset=asked or None,
        ask=Evaluations(asked, processor, recipe, report if is_first() else lambda _: None),
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
    report(describe_optimizer(trainer))
    try:
        trainer.save_model(str(output))
    except (OSError, SafetensorError) as error:
        raise not_written(error, output, "the finished model") from error
    if is_first():
        carry_parts(recipe.model.init, output, {view_of(sample) for sample in data.samples})
    if trainer.not_finite:
        report(f"{trainer.not_finite} batches skipped, whose loss was not finite")
    report(f"{run.bad.count} bad samples; the model is in {output}")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def show_progress(trainer: VaryTrainer) -> Progress:
    """Replace the Trainer's progress bar by ours."""
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
    """The folder of the model that the recipe's adapters are trained on, None without adapters: that of ``init`` if it
    is the whole model, else one that is written at the start of a run."""
    if not recipe.lora.rank:
        return None
    base = Path(recipe.model.init[0]) if len(recipe.model.init) == 1 else None
    if base is None or not is_whole(model, base):
        base = Path(recipe.output) / "base"
        if writes and not resume:
            temporary = base.with_name("base.part")
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(base, ignore_errors=True)
            with writing(base):
                model.save_pretrained(temporary)
                processor.save_pretrained(temporary)
                temporary.rename(base)
        if not base.is_dir():
            raise RecipeError(f"--resume: {base}, which the adapters were trained on, is gone")
    return base
