"""Scores by generation while a model is trained: it answers samples that it is not trained on, as for users."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from train.answers import answered, metric_name, scorable
from train.data.bad_samples import BadSamples
from train.data.dataset import SampleDataset
from train.optim.choose import compute_type
from train.recipe import Recipe, RecipeError
from varytoy.data.sample import Sample
from varytoy.data.samples import read_samples
from varytoy.errors import first_line
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.engine import ModelEngine, TransformersEngine
from varytoy.inference.reader import Reader
from varytoy.processing.processor import VaryProcessor
from varytoy.tasks import TASKS


class Evaluations:
    """Asks the same samples each time and scores the answers by task; nothing that fails in it ends the run.

    Args:
        report: called with one sentence for each evaluation, and for what went wrong in it.
    """

    def __init__(
        self, samples: Sequence[Sample], processor: VaryProcessor, recipe: Recipe, report: Callable[[str], None] = print
    ):
        self.samples, self.processor, self.settings, self.report = list(samples), processor, recipe.train, report
        self.dtype, self.batch = compute_type(recipe), recipe.train.evaluate_batch

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """``eval_TASK_METRIC`` of each task, the numbers ``eval_samples`` and ``eval_failed``, ``eval_seconds``."""
        start, scores, failed, retries = time.monotonic(), {}, [], []
        was_training, count = model.training, 0
        eager = torch.compiler.set_stance("force_eager") if self.settings.compile else nullcontext()
        casts = torch.autocast(model.device.type, self.dtype, enabled=self.dtype != torch.float32)
        model.eval()
        try:
            with eager, casts:
                reader = Reader(self._engine(model))
                for name in sorted({sample.task for sample in self.samples}):
                    chosen = [sample for sample in self.samples if sample.task == name]
                    pairs = self._ask(reader, chosen, failed, retries)
                    count += len(pairs)
                    scores |= _score(name, pairs, failed)
        except Exception as error:  # of any kind: an evaluation must not end a run of days
            failed.append(error)
        finally:
            model.remember_images(0)  # which the engine asks for, and which would keep training's tensors
            model.train(was_training)
        self._say(step, scores, count, failed, retries, time.monotonic() - start)
        measured = {f"eval_{name.replace(' ', '_')}": value for name, value in scores.items()}
        rest = {"eval_samples": count, "eval_failed": len(self.samples) - count}
        return measured | rest | {"eval_seconds": round(time.monotonic() - start, 1)}

    def _engine(self, model: nn.Module) -> ModelEngine:
        """On a CPU the fast one, if it can; on a GPU that whose cache is no larger than its answers."""
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters are in its layers
        fast = model.device.type == "cpu" and self.dtype == torch.float32 and BatchingEngine.supports(plain)
        return (BatchingEngine if fast else TransformersEngine)(plain, self.processor, self.batch)

    def _ask(self, reader: Reader, samples: Sequence[Sample], failed: list, retries: list) -> list:
        limit = self.settings.evaluate_tokens
        pairs = []
        for start in range(0, len(samples), 4 * self.batch):  # not all pictures in memory at once
            part = samples[start : start + 4 * self.batch]
            pairs += answered(reader, part, failed.append, limit, self.batch, False, retries.append)
        return pairs

    def _say(self, step: int, scores: dict, count: int, failed: list, retries: list, seconds: float) -> None:
        table = ", ".join(f"{name} {value:.4f}" for name, value in scores.items()) or "no score"
        self.report(f"step {step}: {table} ({count} samples answered in {seconds:.1f} s)")
        fuller = [error for error in retries if isinstance(error, torch.OutOfMemoryError)]
        if fuller and self.batch > 1:
            self.batch = max(self.batch // 2, 1)
            self.report(
                f"step {step}: the evaluation was out of memory, and answers {self.batch} samples at a time from "
                "now on: a lower train.evaluate_batch or train.evaluate_tokens avoids this"
            )
        if failed:
            self.report(
                f"step {step}: {len(self.samples) - count} of {len(self.samples)} samples could not be asked or scored "
                f"and are left out, the first because: {first_line(failed[0])}"
            )


def _score(name: str, pairs: list, failed: list) -> dict[str, float]:
    if not pairs:
        return {}
    texts, samples = [answer.text for answer, _ in pairs], [sample for _, sample in pairs]
    reasons = Counter(answer.stop_reason for answer, _ in pairs)
    try:
        score = TASKS[name].score(texts, samples)
    except Exception as error:
        failed.append(error)
        return {}
    cut = {f"{name} cut at the limit": reasons["length"] / len(pairs)} if reasons["length"] else {}
    return {metric_name(TASKS[name], samples): round(score, 4)} | cut


def choose_samples(recipe: Recipe, data: SampleDataset, report: Callable[[str], None] = print) -> list[Sample]:
    """The samples that a run's evaluations ask: those of ``train.evaluate_on``, or what the data holds out.

    Raises:
        RecipeError: there are none.
    """
    train, bad = recipe.train, BadSamples(report)
    if train.evaluate_on:
        found, where = list(read_samples(train.evaluate_on, on_error=bad)), f"train.evaluate_on={train.evaluate_on}"
    else:
        parts = {(sample.where, sample.id): sample for part in data.held_out for sample in part}
        found, where = list(parts.values()), f"train.held_out={train.held_out:g}"
    found = list(scorable(found, bad))
    if not found:
        raise RecipeError(f"train.evaluate_steps: {where} has no samples with one image that could be scored")
    count = min(train.evaluate_count, len(found))
    chosen = random.Random(f"evaluate:{train.seed}").sample(found, count)
    report(
        f"every {train.evaluate_steps} steps {count} of {len(found)} samples of {where} are asked, at most "
        f"{train.evaluate_tokens} tokens each"
    )
    return chosen
