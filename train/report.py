"""``python -m train report RUN``: a tuned model beside its base, by generation, on new samples and on old ones."""

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from train import contact_sheet
from train.answers import answered, metric_name, scorable
from train.data.bad_samples import BadSamples
from train.data.held_out import picture_of, split
from train.intervals import Interval, paired, sums_of
from train.merge_check import MergeCheck, check_merge
from train.recipe import Recipe, RecipeError, read_recipe
from train.run_folder import writing
from train.stages import stage_folders, stage_recipes
from varytoy.checkpoints.loading import base_of
from varytoy.data.answer import Answer
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import read_samples
from varytoy.inference.reader import Reader
from varytoy.tasks import TASKS

CHECKED = 4
"""Samples on which scores and answers of the merged model are compared."""
_DRAWN = 10


@dataclass
class SampleSet:
    """Samples that both models answer.

    Attributes:
        name: ``new`` or ``old``.
        source: a phrase that says where they are from; ``warning``: a sentence on what that means; may be empty.
    """

    name: str
    samples: list[Sample]
    source: str
    warning: str = ""


@dataclass
class Pair:
    """A sample with the answers of both models, and their scores by themselves."""

    sample: Sample
    base: str
    tuned: str
    scores: tuple[float, float] = (0.0, 0.0)
    gain: float = 0.0
    """By how much the tuned model's score is better."""


@dataclass
class TaskResult:
    """Both models' scores on a task of one set of samples. ``metric``: ``metric_name``."""

    set: str
    task: str
    metric: str
    is_error: bool
    base: Interval
    tuned: Interval
    difference: Interval
    pairs: list[Pair] = field(repr=False)

    @property
    def worse_by(self) -> float:
        """By how much the tuned model's score is worse; negative if it is better."""
        return self.difference.value if self.is_error else -self.difference.value

    @property
    def is_better(self) -> bool:
        """Whether the whole interval of the difference is on the better side."""
        return self.difference.high < 0 if self.is_error else self.difference.low > 0

    @property
    def is_worse(self) -> bool:
        return self.difference.low > 0 if self.is_error else self.difference.high < 0

    @property
    def won(self) -> list[Pair]:
        """The samples that the tuned model answers better, the most improved first."""
        return sorted((pair for pair in self.pairs if pair.gain > 1e-9), key=lambda pair: -pair.gain)

    @property
    def lost(self) -> list[Pair]:
        return sorted((pair for pair in self.pairs if pair.gain < -1e-9), key=lambda pair: pair.gain)


@dataclass
class Report:
    """What ``compare`` finds.

    Attributes:
        decision: ``keep``, ``do not keep`` or ``undecided``; ``sentence`` says it with the reason.
        failed: samples that one of the models could not be asked.
    """

    run: str
    base: str
    sets: list[SampleSet]
    results: list[TaskResult]
    merge: MergeCheck | None
    tolerance: float
    failed: int
    decision: str = ""
    sentence: str = ""


@dataclass
class Options:
    """See ``python -m train report --help``."""

    new: Path | None = None
    old: Path | None = None
    base: str = ""
    count: int = 100
    seed: int = 0
    tolerance: float = 0.02
    max_new_tokens: int = 512
    device: str = "auto"
    dtype: str = "auto"
    quantize: str = ""
    runtime: str = "torch"


def compare(run: Path, options: Options, say=print) -> Report:
    """Let both models answer, and check the merge of adapters; ``say`` is called with what is used.

    Raises:
        RecipeError, SampleError, ModelError: ``run`` holds no model, its base is not known, there are no samples.
    """
    recipe = _recipe_of(run)
    is_adapter = (run / "adapter_config.json").is_file()
    if not is_adapter and not any(run.glob("model*.safetensors")):
        raise RecipeError(f"{run} holds no finished model and no adapter: give the output folder of a run")
    base = options.base or _base_of(run, recipe, is_adapter)
    bad = BadSamples(say)
    sets = [chosen for chosen in (_new(recipe, options, bad), _old(recipe, options, bad)) if chosen is not None]
    for chosen in sets:
        say(f"{chosen.name}: {len(chosen.samples)} samples of {chosen.source}")
        if chosen.warning:
            say(f"  note: {chosen.warning}")
    first = Reader.from_pretrained(base, options.device, options.dtype, options.quantize, options.runtime)
    dtype = first.precision.storage  # the same for both, or rounding would be compared
    said = [_ask(first, chosen.samples, bad, options) for chosen in sets]
    del first
    second = Reader.from_pretrained(str(run), options.device, dtype, options.quantize, options.runtime)
    now = [_ask(second, chosen.samples, bad, options) for chosen in sets]
    del second
    results = [
        result
        for chosen, before, after in zip(sets, said, now, strict=True)
        for result in _results(chosen, before, after, options.seed)
    ]
    if not results:
        raise SampleError(f"no sample could be asked and scored ({bad.count} bad ones)")
    merge = None
    if is_adapter:
        say("merging, and comparing the merged model with base + adapters")
        checked = [result.pairs[0].sample for result in results]
        checked += [pair.sample for pair in results[0].pairs[1:]]
        with tempfile.TemporaryDirectory() as work:
            four_bits = recipe.lora.quantize if recipe else ""
            merge = check_merge(run, checked[:CHECKED], Path(work), four_bits)
    found = Report(str(run), base, sets, results, merge, options.tolerance, bad.count)
    found.decision, found.sentence = decide(found)
    return found


def _recipe_of(run: Path) -> Recipe | None:
    """The recipe of a run or of the run that a checkpoint belongs to."""
    file = next((folder / "recipe.yaml" for folder in (run, run.parent) if (folder / "recipe.yaml").is_file()), None)
    recipe = read_recipe(file) if file else None
    if recipe and recipe.stages:  # the base is that of the first stage, what was taught is the last one's
        last = next(reversed(stage_folders(file.parent)), None)
        data = read_recipe(last / "recipe.yaml").data if last else stage_recipes(recipe)[-1].data
        recipe = replace(recipe, data=data)
    return recipe


def _base_of(run: Path, recipe: Recipe | None, is_adapter: bool) -> str:
    if is_adapter:
        return base_of(run)
    init = recipe.model.init if recipe else []
    if len(init) == 1 and (Path(init[0]) / "config.json").is_file():
        return init[0]
    if not recipe:
        why = "has no recipe.yaml that names its base"
    elif not init:
        why = "was trained from random weights"
    else:
        why = f"began with {' and '.join(init)}, which {'is' if len(init) == 1 else 'are'} not a whole model here"
    raise RecipeError(f"{run} {why}: name the model to compare it with, --base MODEL")


def _new(recipe: Recipe | None, options: Options, bad: BadSamples) -> SampleSet:
    """The samples of what was to be learned."""
    sources = [source for source in recipe.data if not source.replay] if recipe else []
    if options.new is not None:
        taught = {Path(source.path).resolve() for source in sources}
        warning = f"{options.new} is the run's training data" if options.new.resolve() in taught else ""
        return _chosen("new", list(read_samples(options.new, on_error=bad)), str(options.new), warning, options, bad)
    if recipe is None:
        raise SampleError("there is no recipe.yaml that names samples: name some, --new SAMPLES")
    if recipe.train.evaluate_on:
        where = recipe.train.evaluate_on
        return _chosen("new", list(read_samples(where, on_error=bad)), f"{where} (train.evaluate_on)", "", options, bad)
    samples, held = _of_sources(sources, recipe.train.held_out, bad)
    where = " and ".join(source.path for source in sources)
    if held:
        return _chosen("new", samples, f"{where}, held out of training", "", options, bad)
    warning = (
        "the run was TRAINED ON these samples, so the scores say what it has memorised, not what it has learned: name "
        "others with --new, or train with train.held_out=0.05"
    )
    return _chosen("new", samples, where, warning, options, bad)


def _old(recipe: Recipe | None, options: Options, bad: BadSamples) -> SampleSet | None:
    """The samples of what must not be forgotten."""
    if options.old is not None:
        return _chosen("old", list(read_samples(options.old, on_error=bad)), str(options.old), "", options, bad)
    sources = [source for source in recipe.data if source.replay] if recipe else []
    if not sources:
        return None
    samples, held = _of_sources(sources, recipe.train.held_out, bad)
    where = " and ".join(source.path for source in sources)
    if held:
        return _chosen("old", samples, f"{where}, held out of the replay", "", options, bad)
    warning = "part of these samples was replayed in training: --old names others"
    return _chosen("old", samples, f"{where}, which the run replays", warning, options, bad)


def _of_sources(sources, held_out: float, bad: BadSamples) -> tuple[list[Sample], bool]:
    """The samples of a run's sources, or those that were held out, if any were."""
    taught: list[Sample] = []
    asked: list[Sample] = []
    for source in sources:
        kept, held = split(list(read_samples(source.path, on_error=bad)), held_out)
        taught += [sample for sample in kept if source.takes(sample)]
        asked += [sample for sample in held if source.takes(sample)]
    return (asked, True) if asked else (taught, False)


def _chosen(
    name: str, samples: list[Sample], source: str, warning: str, options: Options, bad: BadSamples
) -> SampleSet:
    unique = {(sample.folder, sample.where, sample.id): sample for sample in samples}
    order = list(unique.values())
    random.Random(f"report:{options.seed}").shuffle(order)
    found = []
    for sample in scorable(order, bad):
        found.append(sample)
        if len(found) == options.count:
            break
    if not found:
        raise SampleError(f"--{name}: {source} has no samples with one image that could be scored")
    return SampleSet(name, found, source, warning)


def _ask(reader: Reader, samples: Sequence[Sample], bad: BadSamples, options: Options) -> dict[int, Answer]:
    """Number of a sample -> answer."""
    answers: dict[int, Answer] = {}
    for task in sorted({sample.task for sample in samples}):
        numbers = [number for number, sample in enumerate(samples) if sample.task == task]
        number_of = {id(samples[number]): number for number in numbers}
        pairs = answered(reader, [samples[number] for number in numbers], bad, options.max_new_tokens)
        answers |= {number_of[id(sample)]: answer for answer, sample in pairs}
    return answers


def _results(chosen: SampleSet, before: dict, after: dict, seed: int) -> list[TaskResult]:
    results = []
    both = sorted(before.keys() & after.keys())
    for name in sorted({chosen.samples[number].task for number in both}):
        task = TASKS[name]
        numbers = [number for number in both if chosen.samples[number].task == name]
        samples = [chosen.samples[number] for number in numbers]
        texts = [[answers[number].text for number in numbers] for answers in (before, after)]
        first, combine = sums_of(task, texts[0], samples)
        second, _ = sums_of(task, texts[1], samples)
        groups = [(sample.folder, picture_of(sample)) for sample in samples]
        base, tuned, difference = paired(first, second, combine, groups, seed=seed)
        scores = list(zip(*(task.scores(each, samples) for each in texts), strict=True))
        pairs = [
            Pair(sample, *said, pair, (pair[0] - pair[1]) if task.is_error else (pair[1] - pair[0]))
            for sample, said, pair in zip(samples, zip(*texts, strict=True), scores, strict=True)
        ]
        metric = metric_name(task, samples)
        results.append(TaskResult(chosen.name, name, metric, task.is_error, base, tuned, difference, pairs))
    return results


def rule(tolerance: float) -> str:
    return (
        "keep it, if a task of the new samples is better beyond its 95 % interval and none is worse beyond it, and no "
        f"task of the old samples is worse by more than {tolerance:g}; do not keep it, if a new task is worse beyond "
        f"its interval, or an old one by more than {tolerance:g} and beyond its interval, or if the adapters change "
        "nothing or are not what was merged; else it is undecided"
    )


def decide(found: Report) -> tuple[str, str]:
    """Whether to keep the tuned model, by ``rule``, and one sentence with the reason."""
    new, old = ([result for result in found.results if result.set == name] for name in ("new", "old"))
    if found.merge is not None and found.merge.is_nothing:
        return "do not keep", "Do not keep it: its adapters change nothing."
    if found.merge is not None and not found.merge.is_equal:
        return "do not keep", "Do not keep it: the merged model is not its base with the adapters."
    worse = next((result for result in new if result.is_worse), None)
    if worse is not None:
        return "do not keep", f"Do not keep it: on the new samples {_change(worse)}, beyond the interval."
    over = [result for result in old if result.worse_by > found.tolerance]
    lost = next((result for result in over if result.is_worse), None)
    if lost is not None:
        return "do not keep", (
            f"Do not keep it: on the old samples {_change(lost)}, which is worse by more than {found.tolerance:g}; "
            "more replay or a lower train.learning_rate keeps more."
        )
    if not new:
        return "undecided", "Undecided: no new sample could be asked and scored."
    better = next((result for result in new if result.is_better), None)
    if better is None:
        closest = min(new, key=lambda result: result.worse_by)
        return "undecided", (
            f"Undecided: on the new samples no difference is beyond its interval ({_change(closest)}); a higher "
            "--count or a longer training may show one."
        )
    if over:
        return "undecided", (
            f"Undecided: on the new samples {_change(better)}, but on the old ones {_change(over[0])}, which could be "
            "chance: a higher --count will tell."
        )
    if not old:
        return "keep", (
            f"Keep it, as far as the new samples say: {_change(better)}; what it has forgotten is not known without "
            "--old SAMPLES."
        )
    return "keep", (
        f"Keep it: on the new samples {_change(better)}, beyond the interval, and on the old ones nothing is worse by "
        f"more than {found.tolerance:g}."
    )


def _change(result: TaskResult) -> str:
    return f"{result.metric} goes from {result.base.value:.4f} to {result.tuned.value:.4f}"


def draw(found: Report, out: Path) -> list[str]:
    """Contact sheets of the answers that were won and lost, by set of samples; the names of their files."""
    names = []
    for chosen in found.sets:
        results = [result for result in found.results if result.set == chosen.name]
        for what in ("won", "lost"):
            pairs = [pair for result in results for pair in getattr(result, what)[:_DRAWN]]
            if pairs:
                names.append(f"{what}-{chosen.name}.png")
                rows = [(pair.sample, pair.tuned, pair.scores[1]) for pair in pairs]
                with writing(out):
                    contact_sheet.draw(rows, out / names[-1], [pair.base for pair in pairs])
    return names
