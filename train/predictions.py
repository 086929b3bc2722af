"""Write the model's answers to a few samples, as images and text, at intervals during training."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import TrainerCallback

from train.data.bad_samples import open_sample
from train.data.dataset import SampleDataset
from train.run_folder import writing
from varytoy.data.sample import Sample, SampleError
from varytoy.errors import first_line
from varytoy.inference.engine import Engine, Request, TransformersEngine
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS

DRAWN = 400
"""Longest answer that is drawn, in tokens."""


class Predictions(TrainerCallback):
    """Writes ``FOLDER/step-N/``: the images with the predicted boxes, and ``predictions.jsonl`` with
    ``sample``, ``task``, ``question``, ``wanted`` and ``said``.

    Args:
        steps: interval in steps; 0 for never.
        dtype: dtype of the run's computations.
        count: number of samples, spread evenly over the data; the first question of each is used.
    """

    def __init__(
        self,
        folder: Path,
        data: SampleDataset,
        processor: VaryProcessor,
        steps: int,
        dtype: torch.dtype = torch.float32,
        count: int = 4,
    ):
        self.folder, self.processor, self.steps, self.dtype = folder, processor, steps, dtype
        fitting = [sample for sample in data.samples if len(sample.images) == 1 and sample.task in TASKS]
        self.samples = fitting[:: max(len(fitting) // count, 1)][:count]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self.steps and state.global_step % self.steps == 0 and state.is_world_process_zero:
            was_training = model.training
            model.eval()
            with torch.autocast(args.device.type, self.dtype, enabled=self.dtype != torch.float32):
                folder = self.folder / f"step-{state.global_step:06d}"
                with writing(folder):
                    write(folder, TransformersEngine(model, self.processor), self.samples)
            model.remember_images(0)  # which the engine asks for, and which would keep training's tensors
            model.train(was_training)


def write(folder: Path, engine: Engine, samples: Sequence[Sample], max_new_tokens: int = DRAWN) -> None:
    """Ask the first question of each sample and write the answers."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as lines:
        for number, sample in enumerate(samples):
            try:
                image = open_sample(sample)[0]
            except SampleError:
                continue  # counted when it is trained on
            try:
                row, drawn = _predict(engine, sample, image, max_new_tokens)
            except Exception as error:  # e.g. too long for the model; it must not end the run
                row, drawn = {"said": f"({type(error).__name__}: {first_line(error)})"}, image
            name = f"{number:02d}.png"
            drawn.save(folder / name)
            row = {"picture": name, "sample": sample.id, "task": sample.task, **row}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _predict(engine: Engine, sample: Sample, image: Image.Image, max_new_tokens: int) -> tuple[dict, Image.Image]:
    first = next(index for index, message in enumerate(sample.messages) if message["role"] == "assistant")
    task = TASKS[sample.task]
    text = engine.generate([Request.of(task, sample.messages[:first], [image], max_new_tokens)])[0].text
    question, target = (sample.messages[index]["content"] for index in (first - 1, first))
    return {"question": question, "wanted": target, "said": text}, task.draw(image, task.parse(text, image.size))
