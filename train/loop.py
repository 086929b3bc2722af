"""One loop for every stage and size: transformers' Trainer with our data, losses and records."""

import json
import os
import socket
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from train import adapters
from train.data import BadSamples, Collator, SampleDataset, SizeSampler
from train.in_backward import InBackward
from train.model import VaryForTraining, build, compile_parts, freeze, is_whole, load_stage
from train.recipe import EIGHT_BIT, Recipe, RecipeError, to_yaml
from train.rounding import RoundingAdamW8bit
from varytoy.processing import VaryProcessor


def run(recipe: Recipe, resume: bool = False, say=print) -> Path:
    """Train as the recipe says. Returns the folder of the finished model.

    Raises:
        RecipeError, SampleError: what is wrong and how to mend it.
    """
    if recipe.train.deepspeed:
        _distributed_defaults()
    output = Path(recipe.output)
    checkpoint = _resume_point(output, resume)
    output.mkdir(parents=True, exist_ok=True)
    (output / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    torch.manual_seed(recipe.train.seed)
    torch.set_flush_denormal(True)  # tiny optimizer states slow a CPU down
    bad = BadSamples(say)
    data = SampleDataset(recipe.data, recipe.train.seed, bad)
    objects = data.labels() if recipe.objects.weight else []
    model, processor, message = build(recipe, objects)
    say(f"stage {recipe.stage}: {message}")
    say(freeze(model, recipe.freeze))
    strides = model.config.vocabulary_config.stride
    model = with_adapters(model, recipe, processor)
    if recipe.lora.rank:
        say(adapters.describe(model))
    if recipe.train.compile:
        compile_parts(model.language_model)
    for path, count in data.counts.items():
        say(f"  {count:>9,} samples from {path}")
    collator = Collator(
        processor,
        recipe.train.max_length,
        bad,
        characters=recipe.ctc.characters if hasattr(model, "ctc_head") else "",
        frames=recipe.ctc.frames if recipe.ctc.aligned else 0,
        clip=model.clip.grid if model.clip is not None else None,
        guide=recipe.guide.weight > 0,
        objects=objects,
        token_corruption=recipe.train.token_corruption,
    )
    arguments = training_arguments(recipe)
    trainer = VaryTrainer(
        model=model,
        args=arguments,
        optimizer_cls_and_kwargs=choose_optimizer(recipe, arguments),
        processing_class=processor,
        train_dataset=data,
        data_collator=collator,
        sizes=data.shapes(strides) if recipe.train.group_by_size else None,
        callbacks=[Records(output / "metrics.jsonl", bad), Warmup(recipe.ctc.warmup_steps)],
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    say(describe_optimizer(trainer))
    trainer.save_model(str(output))
    say(f"{bad.count} bad samples; the model is in {output}")
    if torch.distributed.is_initialized():  # two processes sometimes abort at exit without this
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return output


def with_adapters(model: VaryForTraining, recipe: Recipe, processor: VaryProcessor) -> nn.Module:
    """The model with the adapters that the recipe asks for, if it does; their base is a folder that can be loaded."""
    if not recipe.lora.rank:
        return model
    base = Path(recipe.model.init[0]) if len(recipe.model.init) == 1 else None
    if base is None or not is_whole(model, base):
        base = Path(recipe.output) / "base"
        if not (base / "config.json").is_file():
            model.save_pretrained(base)
            processor.save_pretrained(base)
    if recipe.lora.quantize:
        adapters.quantize(model.language_model, compute_type(recipe))
    return adapters.add_adapters(model, recipe, base)


def compute_type(recipe: Recipe) -> torch.dtype:
    """What products are computed in."""
    lower = recipe.train.precision if recipe.train.precision != "fp32" else recipe.train.weights
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(lower, torch.float32)


def choose_optimizer(recipe: Recipe, arguments: TrainingArguments) -> tuple[type[Optimizer], dict] | None:
    """Class and arguments of the recipe's optimizer where it is not the Trainer's own."""
    chosen, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    eight_bit = recipe.train.optimizer in EIGHT_BIT
    if recipe.train.deepspeed or not (eight_bit or recipe.train.in_backward):
        return None
    if eight_bit:  # the Trainer's would keep the embeddings' state in 32 bits
        options.pop("optim_bits")
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


def _distributed_defaults() -> None:
    """DeepSpeed wants to be told its rank; a plain ``python -m train run`` is a group of one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    defaults = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if "RANK" not in os.environ:
        os.environ.update({name: str(value) for name, value in defaults.items()})
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


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
    )


def _resume_point(output: Path, resume: bool) -> str | None:
    last = get_last_checkpoint(str(output)) if output.is_dir() else None
    if resume and last is None:
        raise RecipeError(f"--resume: {output} holds no checkpoint")
    if not resume and last is not None:
        raise RecipeError(f"{output} holds a run: continue it with --resume or choose another output=FOLDER")
    return last if resume else None


class VaryTrainer(Trainer):
    """The Trainer with batches of like-sized pictures."""

    def __init__(self, sizes: list[tuple[int, int]] | None = None, **kwargs):
        self.sizes = sizes
        super().__init__(**kwargs)

    def compute_loss(self, model, inputs, *arguments, **options):
        loss = super().compute_loss(model, inputs, *arguments, **options)
        inner = getattr(self.optimizer, "optimizer", self.optimizer)
        return inner.scaled(loss) if isinstance(inner, InBackward) else loss

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """The stock weights, and the CTC head from its own file."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if not isinstance(model or self.model, VaryForTraining):
            return  # adapters, which PEFT has loaded
        load_stage(model or self.model, Path(resume_from_checkpoint))

    def _get_train_sampler(self, train_dataset=None):
        if self.sizes is None:
            return super()._get_train_sampler(train_dataset)
        batch = self.args.per_device_train_batch_size * max(self.args.world_size, 1)
        return SizeSampler(self.sizes, batch, self.args.seed)


class Warmup(TrainerCallback):
    """Lets the decoder join when the heads' warm-up is over; counts optimizer steps, so that resuming is exact."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_step_begin(self, args, state, control, model: VaryForTraining, **kwargs):
        model.heads_only = state.global_step < self.steps


class Records(TrainerCallback):
    """Every log as a JSON line, with the seconds since the start and the bad samples so far."""

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
        row |= {name: round(torch.stack(values).float().mean().item(), 4) for name, values in self.parts.items()}
        self.parts = {}
        row["bad_samples"] = self.bad.count
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
