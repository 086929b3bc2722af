"""Key maps: how the tensor names of a family's checkpoints correspond to ours, one JSON file a family in ``maps/``.

A rule is a pair [source, target] of key patterns, in which ``{n}`` stands for a number and ``{rest}`` for anything.
With several targets the tensor is split into equal parts along its first dimension, with several sources they are
concatenated along it. The inverse conversion applies the same rules in the other direction.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor

PARTS = ("vision_vocabulary.", "clip.", "language_model.")
_GROUPS = {"{n}": r"(?P<n>\d{1,6})", "{rest}": r"(?P<rest>.+)"}


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message names the file or the keys."""


@dataclass(frozen=True)
class Rule:
    """``sources`` and ``targets`` are key patterns; one of the two has one entry."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def inverse(self) -> "Rule":
        return Rule(self.targets, self.sources)

    def apply(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Source tensors -> target tensors. Also works on the meta device."""
        whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        return [whole] if len(self.targets) == 1 else list(whole.chunk(len(self.targets)))


@dataclass(frozen=True)
class Step:
    """The keys that one rule applies to."""

    rule: Rule
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """A layout of checkpoints.

    Attributes:
        signs: key patterns that identify this layout; a checkpoint must have all of them.
        part: the part of a model it holds (vision_vocabulary, clip or language_model), or empty for a whole model.
        preset: the preset whose processor it uses; ``processor``: settings that differ from it.
        model_type: transformers' name of the decoder.
        no_reader: why a whole model cannot be used for reading, or empty.
        ignored: key patterns that are not needed; ``lacks``: patterns of our keys that it never has.
    """

    name: str
    about: str
    signs: tuple[str, ...]
    rules: tuple[Rule, ...]
    part: str = ""
    preset: str = ""
    processor: dict = field(default_factory=dict, hash=False)
    model_type: str = ""
    no_reader: str = ""
    ignored: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def steps(self, keys: Iterable[str]) -> tuple[list[Step], list[str]]:
        """The steps that convert a checkpoint's keys, and the keys that no rule matches."""
        return _steps(self.rules, self.ignored, keys)

    def inverse(self, keys: Iterable[str]) -> tuple[list[Step], list[str]]:
        """As ``steps``, from our keys to the family's."""
        return _steps(tuple(rule.inverse() for rule in self.rules), self.lacks, keys)

    def never_has(self, target: str) -> bool:
        """Whether checkpoints of the family never hold this one of our tensors."""
        return any(_match(pattern, target) is not None for pattern in self.lacks)

    def source_of(self, target: str) -> str:
        """The family's name for one of our keys, for messages; our own name where it has none."""
        for rule in self.rules:
            for pattern in rule.targets:
                if values := _match(pattern, target):
                    return " + ".join(_fill(source, values) for source in rule.sources)
        return target


def _steps(rules: Sequence[Rule], ignored: Sequence[str], keys: Iterable[str]) -> tuple[list[Step], list[str]]:
    keys = list(keys)
    available = set(keys)
    steps: dict[Step, None] = {}
    left = []
    for key in keys:
        if any(_match(pattern, key) is not None for pattern in ignored):
            continue
        for rule in rules:
            values = next((values for pattern in rule.sources if (values := _match(pattern, key)) is not None), None)
            if values is None:
                continue
            sources = tuple(_fill(pattern, values) for pattern in rule.sources)
            if available.issuperset(sources):
                steps[Step(rule, sources, tuple(_fill(pattern, values) for pattern in rule.targets))] = None
            break
        else:
            left.append(key)
    return list(steps), left


def renamed(steps: Iterable[Step], get: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Pairs of target name and tensor; ``get`` returns the tensor of a source name."""
    for step in steps:
        yield from zip(step.targets, step.rule.apply([get(name) for name in step.sources]), strict=True)


@cache
def _pattern(pattern: str) -> re.Pattern:
    parts = re.split(r"(\{n\}|\{rest\})", pattern)
    return re.compile("".join(_GROUPS.get(part) or re.escape(part) for part in parts))


def _match(pattern: str, key: str) -> dict[str, str] | None:
    match = _pattern(pattern).fullmatch(key)
    return None if match is None else match.groupdict()


def _fill(pattern: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern


@cache
def families() -> dict[str, Family]:
    """All layouts by name."""
    folder = files("varytoy") / "checkpoints" / "maps"
    trees = {
        entry.name.removesuffix(".json"): json.loads(entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    }
    return {name: _family(name, trees) for name in sorted(trees)}


def _family(name: str, trees: dict[str, dict]) -> Family:
    tree = trees[name]
    rules, ignored = [], list(tree.get("ignored", []))
    for rule in tree.get("rules", []):
        sides = ((side,) if isinstance(side, str) else tuple(side) for side in rule)
        rules.append(Rule(*sides))
    for other in tree.get("include", []):
        take, instead = other.get("take", ""), other.get("as", "")
        inner = _family(other["map"], trees)

        def moved(pattern: str, take: str = take, instead: str = instead) -> str:
            return instead + pattern.removeprefix(take)

        chosen = [rule for rule in inner.rules if all(pattern.startswith(take) for pattern in rule.sources)]
        rules += [Rule(tuple(map(moved, rule.sources)), rule.targets) for rule in chosen]
        ignored += [moved(pattern) for pattern in inner.ignored if pattern.startswith(take)]
    tuples = {key: tuple(tree.get(key, ())) for key in ("signs", "lacks")}
    plain = {
        key: tree[key] for key in ("about", "part", "preset", "processor", "model_type", "no_reader") if key in tree
    }
    return Family(name, rules=tuple(rules), ignored=tuple(ignored), **tuples, **plain)


def recognise(keys: Iterable[str], where: str = "the checkpoint") -> Family:
    """The family whose signs are all among the keys; a whole model takes precedence over its parts.

    Raises:
        WeightsError: no family matches.
    """
    keys = list(keys)
    matches = [
        family
        for family in families().values()
        if all(any(_match(sign, key) is not None for key in keys) for sign in family.signs)
    ]
    if not matches and keys and all(key.startswith(PARTS) for key in keys):
        raise WeightsError(f"{where} is a part that varytoy convert has made: name it in model.init of a recipe")
    matches.sort(key=lambda family: (bool(family.part), -len(family.signs)))
    if not matches:
        known = ", ".join(families())
        raise WeightsError(f"{where}: no known layout of weights; first keys {brief(keys[:4])}; known are {known}")
    return matches[0]


def brief(names: Iterable[str]) -> str:
    """All names, with consecutive numbers as ranges: ``h.0-23.ln_1.weight``."""
    groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
    for name in names:
        parts = re.split(r"(?<=\.)(\d{1,6})(?=\.)", name)
        groups.setdefault(tuple(parts[::2]), []).append(tuple(map(int, parts[1::2])))
    ranges = []
    for words, numbers in groups.items():
        columns = [_runs(sorted(set(column))) for column in zip(*numbers, strict=True)]
        ranges.append("".join(word + number for word, number in zip(words, [*columns, ""], strict=True)))
    return ", ".join(ranges)


def _runs(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
