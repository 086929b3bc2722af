"""``mix``: the samples of a mixture in one folder or in shards."""

import heapq
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_tools.mixture import DataSettings, choose, counts, read_mixture, reworded
from data_tools.output import MANIFEST, Unit
from data_tools.program import Program, output_of, output_options, register, workers_option
from data_tools.writer import inside, produce
from varytoy.data.sample import Sample, SampleError, image_file
from varytoy.data.samples import read_samples
from varytoy.data.shards import SUFFIX


@dataclass
class Group:
    """Samples about the same images that follow each other in a source.

    Attributes:
        source: its number in the mixture.
        round: how often the source was read to its end before.
    """

    source: int
    round: int
    samples: list[Sample]


@register
class Mix(Program):
    name = "mix"
    help = "write the samples of a mixture (YAML: weights, caps, prompts, replay) to a folder or shards"

    def options(self, parser):
        parser.add_argument("mixture", type=Path, help="YAML file; data_tools/README.md has an example")
        output_options(parser)
        workers_option(parser)
        parser.add_argument("--seed", type=int, default=0)

    def run(self, options):
        sources = read_mixture(options.mixture)
        for source in sources:
            if Path(source.path).resolve().is_relative_to(options.out.resolve()):
                raise ValueError(f"{options.out} holds the source {source.path}: name another folder for the mixture")
        bad: list[SampleError] = []
        available = [sum(1 for _ in _samples(source, bad)) for source in sources]
        for source, number in zip(sources, available, strict=True):
            if not number:
                of = f" of {', '.join(source.tasks)}" if source.tasks else ""
                raise ValueError(f"{source.path}: no usable samples{of}")
        wanted = counts(sources, available)
        picks = []
        for place, (source, number, count) in enumerate(zip(sources, available, wanted, strict=True)):
            print(f"{count:>9,} samples, of {number:,} in {source.path}")
            picks.append(choose(count, number, source.cap, random.Random(f"{options.seed}:{place}")))
        origins: dict[str, str] = {}
        for source in sources:
            origins |= _origins(Path(source.path))
        output = output_of(options, origins)
        make = partial(_unit, sources, options.seed)
        items = itertools.chain([bad], _merged(sources, picks))
        produce(output, make, items, None, options.workers, "image", chunk=16)
        print(output.summary())


def _samples(source: DataSettings, bad: list[SampleError]) -> Iterator[Sample]:
    return filter(source.takes, read_samples(source.path, on_error=bad.append))


def _merged(sources: Sequence[DataSettings], picks: Sequence[Sequence[int]]) -> Iterator[Group]:
    """Groups of all sources, those of each spread evenly from the beginning to the end. Sources are read as they are
    needed: samples do not pile up in memory."""
    streams = [_groups(*entry) for entry in zip(itertools.count(), sources, picks)]  # noqa: B905 (the first is endless)
    return (group for _, _, group in heapq.merge(*streams, key=lambda entry: entry[:2]))


def _groups(number: int, source: DataSettings, picks: Sequence[int]) -> Iterator[tuple[float, int, Group]]:
    """(place from 0 to 1, number of the source, group), in order of the places."""
    left, done = sorted(picks), 0
    for round in itertools.count():
        wanted, later = set(), []
        for index in left:
            if index in wanted:
                later.append(index)
            wanted.add(index)
        if not wanted:
            return
        kept = ((index, sample) for index, sample in enumerate(_samples(source, [])) if index in wanted)
        for _, group in itertools.groupby(kept, _images_of):
            samples = [sample for _, sample in group]
            yield (done + 0.5) / len(picks), number, Group(number, round, samples)
            done += len(samples)
        left = later


def _images_of(pair: tuple[int, Sample]) -> object:
    index, sample = pair
    return (sample.folder, sample.images) if sample.images else index


def _unit(sources: Sequence[DataSettings], seed: int, group: Group | list[SampleError]) -> Unit:
    """``group``: or samples that are not valid."""
    unit = Unit()
    if isinstance(group, list):
        for error in group:
            unit.drop("not a valid sample", error)
        return unit
    prompts = sources[group.source].prompts
    for sample in group.samples:
        try:
            sample.open_images()
            sample.open_target_images()
        except SampleError as error:
            unit.drop("image cannot be read", error)
            continue
        if prompts:
            sample = reworded(sample, prompts, random.Random(f"{seed}:{group.source}:{group.round}:{sample.id}"))
        row = sample.to_json()
        for key in ("images", "target_images"):
            if row.get(key):
                row[key] = [_add(unit, group.source, sample.folder, name) for name in row[key]]
        if group.round:
            row["id"] = f"{sample.id}-{group.round}"
        unit.rows.append(row)
    return unit


def _add(unit: Unit, source: int, folder: Path, name: str) -> str:
    """Add an image to the unit. Returns its name there, which holds no ``..``."""
    shard = f"{folder.stem}/" if folder.suffix == SUFFIX else ""  # names in different shards may be equal
    new = f"images/{source}/{shard}{inside(folder, name)}"
    if new not in unit.images:
        file = image_file(folder / name)
        unit.images[new] = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    return new


def _origins(folder: Path) -> dict[str, str]:
    """What a folder of samples was made of, as its manifest says."""
    try:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sources"])
    except (OSError, ValueError, KeyError, TypeError):
        return {str(folder): "unknown"}
