"""What the model in training says of a few samples, every so many steps, as pictures and lines to look at."""

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


class Predictions(TrainerCallback):
    """Writes ``FOLDER/step-N/``: the pictures, with the boxes that the model gives, and ``predictions.jsonl`` with
    ``sample``, ``task``, ``question``, ``wanted`` and ``said``.

    Args:
        steps: how often; 0 for never.
        dtype: what the run computes in.
        count: samples, spread evenly over the data; the first question about each.
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
            model.train(was_training)


def write(folder: Path, engine: Engine, samples: Sequence[Sample], max_new_tokens: int = 400) -> None:
    """Ask the first question of each sample and write down what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "predictions.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as lines:
        for number, sample in enumerate(samples):
            try:
                image = open_sample(sample)[0]
            except SampleError:
                continue  # counted when it is trained on
            try:
                row, drawn = _asked(engine, sample, image, max_new_tokens)
            except Exception as error:  # too long for the model, or odd in any other way: no reason to end a run
                row, drawn = {"said": f"({type(error).__name__}: {first_line(error)})"}, image
            name = f"{number:02d}.png"
            drawn.save(folder / name)
            row = {"picture": name, "sample": sample.id, "task": sample.task, **row}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _asked(engine: Engine, sample: Sample, image: Image.Image, max_new_tokens: int) -> tuple[dict, Image.Image]:
    first = next(place for place, message in enumerate(sample.messages) if message["role"] == "assistant")
    task = TASKS[sample.task]
    said = engine.generate([Request(sample.messages[:first], [image], task.view, max_new_tokens)])[0].text
    question, wanted = (sample.messages[place]["content"] for place in (first - 1, first))
    return {"question": question, "wanted": wanted, "said": said}, task.draw(image, task.parse(said, image.size))
