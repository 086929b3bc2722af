"""Mixtures: which samples of which folders, how often and with which prompts, as YAML that ``train`` reads too::

data:
  - {path: data/pages, weight: 3, cap: 20000}
  - {path: data/coco, weight: 1, tasks: [detect]}
  - {path: data/earlier, replay: 0.1}
prompts:
  ocr: [Read this page., What is written here?]
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from varytoy.data.sample import IMAGE_PLACEHOLDER, Sample
from varytoy.settings import SettingsError, fill, read_tree
from varytoy.tasks import TASKS, find_prompt


@dataclass
class DataSettings:
    """A source of samples. The settings after ``prompts`` are for training alone."""

    path: str = ""
    share: Annotated[float, Ge(0)] = 1.0
    """How often each sample is used in an epoch: 0.5 for every other sample, 2 for each sample twice."""
    weight: Annotated[float, Ge(0)] = 0.0
    """Instead of ``share``, for all sources: samples of this source relative to those of the others. An epoch uses each
    sample at least once; sources with fewer samples than their weight asks for repeat theirs."""
    replay: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Instead of ``share`` or ``weight``: the fraction of an epoch's samples from this source, e.g. 0.1 from an earlier
    stage."""
    cap: Annotated[int, Ge(0)] = 0
    """Use at most so many samples of this source, chosen at random; 0 for all."""
    tasks: list[str] = field(default_factory=list)
    """Only samples of these tasks; empty for all."""
    longest: Annotated[int, Ge(0)] = 0
    """Maximum length of an answer in characters; longer samples are left out. 0 for no limit."""
    prompts: dict[str, list[str]] = field(default_factory=dict)
    """Task -> wordings, one of which takes the place of each prompt that has one of the task's own wordings; ``{}``
    stands for the argument of tasks that take one."""
    turns: Annotated[int, Ge(1)] = 1
    """Merge up to this many samples about one image into one conversation, which costs little more than one sample."""
    mirror: bool = False
    """Use each sample of a picture mirrored too: boxes and the words left and right exchange their sides."""
    crop: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Show a random part of each picture, with at least this share of each side, another in each epoch; boxes move
    along, and most of each stays in the part. 1 for the whole picture."""
    bins: Annotated[int, Ge(0)] = 0
    """Write sides of boxes as the middles of so many bins, e.g. 64 for a decoder with a token for each; 0 for all."""
    dialect: Literal["lines", "tokens"] = "lines"
    """How lines with boxes are written (``varytoy.data.spots``): ``tokens`` for a tokenizer with location tokens
    (``data_tools tokenizer --locations``), whose number then is ``bins``."""
    isolated: bool = False
    """With ``turns``: the samples of a conversation share the image but do not see each other, as if each was asked
    first. For decoders with rotary positions."""
    as_text: bool = False
    """Put each picture's text (``annotations``: ``plain_text`` or ``lines``) in its place: for a decoder that answers
    from what a reader has read. Samples whose picture has no text are left out."""
    text_piece: Annotated[int, Ge(0)] = 0
    """With ``as_text``: of longer texts a piece of so many characters, in whole rows. Answers that stand elsewhere in
    the text become "Unanswerable"; samples whose answer does not stand in the text are left out. 0 for whole texts."""

    def takes(self, sample: Sample) -> bool:
        """Whether a sample is of the wanted tasks and lengths."""
        wanted = not self.tasks or sample.task in self.tasks
        return wanted and (not self.longest or len(sample.answer) <= self.longest)


@dataclass
class Mixture:
    data: list[DataSettings] = field(default_factory=list)
    prompts: dict[str, list[str]] = field(default_factory=dict)
    """Those of all sources that have none of their own for the task."""


def read_mixture(path: Path) -> list[DataSettings]:
    """The sources of a YAML file. Raises SettingsError, naming the file and the key."""
    mixture = fill(Mixture, read_tree(path), str(path))
    sources = [replace(source, prompts={**mixture.prompts, **source.prompts}) for source in mixture.data]
    check_sources(sources, str(path))
    return sources


def sample_paths(path: Path) -> list[str]:
    """The path of samples, or those of a mixture's sources, each once. Raises as ``read_mixture``."""
    if path.suffix not in (".yaml", ".yml"):
        return [str(path)]
    return list(dict.fromkeys(source.path for source in read_mixture(path)))


def check_sources(sources: Sequence[DataSettings], where: str = "") -> None:
    """Raises SettingsError for sources that cannot be mixed; ``where`` begins its message."""
    start = f"{where}: " if where else ""
    if not sources or not all(source.path for source in sources):
        raise SettingsError(f"{start}data: name at least one folder of samples, e.g. data.0.path=data/blocks")
    replayed = sum(source.replay for source in sources)
    if replayed >= 1:
        raise SettingsError(f"{start}data.replay: parts of an epoch, together below 1, not {replayed}")
    others = [source for source in sources if not source.replay]
    if any(source.weight for source in others) and not all(source.weight for source in others):
        raise SettingsError(f"{start}data.weight: give one to every source without replay, or to none")
    for source in sources:
        if source.weight and (source.share != 1 or source.replay):
            raise SettingsError(f"{start}{source.path}: give one of weight, share and replay")
        if source.text_piece and not source.as_text:
            raise SettingsError(f"{start}{source.path}: text_piece cuts texts in place of pictures: add as_text: true")
        if source.as_text and source.turns > 1 and not source.isolated:
            raise SettingsError(f"{start}{source.path}: as_text with turns shares the text alone: add isolated: true")
        for task, wordings in source.prompts.items():
            _check_wordings(task, wordings, start)


def _check_wordings(task: str, wordings: Sequence[str], start: str) -> None:
    if task not in TASKS:
        raise SettingsError(f"{start}prompts: no task '{task}'; the tasks are {', '.join(TASKS)}")
    slots = 1 if TASKS[task].takes else 0
    wrong = next(
        (wording for wording in wordings if wording.count("{}") != slots or IMAGE_PLACEHOLDER in wording), None
    )
    if not wordings or wrong is not None:
        takes = f"each with one {{}} for {TASKS[task].takes}" if slots else "without {}"
        raise SettingsError(f"{start}prompts.{task}: give wordings {takes}" + (f", not {wrong!r}" if wrong else ""))


def counts(sources: Sequence[DataSettings], available: Sequence[int]) -> list[int]:
    """How many samples of each source an epoch has, of so many that are available."""
    caps = [min(source.cap or number, number) for source, number in zip(sources, available, strict=True)]
    pairs = list(zip(sources, caps, strict=True))
    most = max((number / source.weight for source, number in pairs if source.weight), default=0)
    wanted = [source.weight * most if source.weight else source.share * number for source, number in pairs]
    fresh = sum(number for source, number in zip(sources, wanted, strict=True) if not source.replay)
    replayed = sum(source.replay for source in sources)
    old = [round(source.replay / (1 - replayed) * fresh) for source in sources]
    return [
        max(number, 1 if fresh else 0) if source.replay else round(own)  # of little data, too, something is replayed
        for source, number, own in zip(sources, old, wanted, strict=True)
    ]


def choose(count: int, available: int, cap: int, rng: random.Random) -> list[int]:
    """``count`` numbers below ``available``, of at most ``cap`` different ones: each as often as the others, and some
    once more."""
    own = sorted(rng.sample(range(available), cap)) if 0 < cap < available else list(range(available))
    whole, rest = divmod(count, len(own)) if own else (0, 0)
    return own * whole + rng.sample(own, rest)


def reworded(sample: Sample, prompts: dict[str, list[str]], rng: random.Random) -> Sample:
    """The sample with wordings of ``prompts`` in the place of its tasks' own; other prompts stay."""
    messages = [
        {**message, "content": _reworded(message["content"], prompts, rng)} if message["role"] == "user" else message
        for message in sample.messages
    ]
    return replace(sample, messages=messages)


def _reworded(text: str, prompts: dict[str, list[str]], rng: random.Random) -> str:
    prompt = text.replace(IMAGE_PLACEHOLDER, "").strip()
    found = find_prompt(prompt)
    if found is None or found[0].name not in prompts or not prompt or text.count(prompt) != 1:
        return text
    task, argument = found
    if bool(argument) != bool(task.takes):
        return text  # a detection of named classes: the wordings are for all objects
    return text.replace(prompt, rng.choice(prompts[task.name]).replace("{}", argument))
