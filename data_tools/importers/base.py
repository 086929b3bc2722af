"""Importer: third-party data -> samples with copies of the images."""

import argparse
import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from data_tools.output import Unit
from data_tools.program import Program, licence_option, output_of, output_options, workers_option
from data_tools.writer import produce
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import parse_sample
from varytoy.options import positive

INVALID, UNREADABLE = "not a valid sample", "image cannot be read"


class Entry(NamedTuple):
    """A record of the source: its place, for errors (``FILE entry 3``), and the record itself."""

    where: str
    record: Any


class Dropped(ValueError):
    """A record that gives no sample; ``reason`` is what the summary counts, the message says more."""

    def __init__(self, reason: str, message: str = ""):
        super().__init__(message or reason)
        self.reason = reason


def evaluation_options(parser: argparse.ArgumentParser) -> None:
    """``--seed`` and ``--evaluate``, of importers of photographs with captions."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true", help="one caption a photograph, and standard prompts only")


class Importer(Program):
    """Base of the importers: a subclass reads records and makes rows of each. Rows are validated and written with
    copies of their images.

    Attributes:
        licence: of the source, as its makers state it.
    """

    licence: ClassVar[str] = "unknown"

    def options(self, parser):
        parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="the source's own file")
        self.import_options(parser)

    def import_options(self, parser: argparse.ArgumentParser) -> None:
        """The options of all importers but the file."""
        output_options(parser)
        parser.add_argument("--images", type=Path, help="folder of the images (default: that of the file)")
        parser.add_argument("--limit", type=positive, help="maximum number of samples")
        workers_option(parser)
        licence_option(parser)

    def groups(self, options: argparse.Namespace) -> Iterable[Sequence[Entry]]:
        """Entries about the same image, together. A list or another sized object lets the progress bar know the end.

        Raises:
            ValueError, OSError: the importer cannot read the file.
        """
        raise NotImplementedError

    def rows(self, entry: Entry, options: argparse.Namespace) -> Iterator[object]:
        """Samples as ``parse_sample`` takes them, with image paths inside the folder of the images.

        Raises:
            Dropped: there is no sample in it. A KeyError, TypeError, ValueError, AttributeError or IndexError says that
                the record is not of the source's form.
        """
        raise NotImplementedError

    def run(self, options):
        """Drop rows that break the schema or whose image cannot be read, and name the first ones. If nothing can be
        imported, samples that are there stay."""
        images = options.images or options.annotations.parent
        if images.resolve() == (options.out / "images").resolve():
            raise ValueError(f"{options.out} holds the images: name another folder for the samples")
        groups = self.groups(options)
        total = len(groups) if hasattr(groups, "__len__") else None
        if options.overwrite:
            units = (
                self._unit(options, images, group) for group in (self.groups(options) if total is None else groups)
            )
            if not any(unit.rows for unit in units):
                print(f"0 samples in {options.annotations}; {options.out} is unchanged")
                return 2
        output = output_of(options, {str(options.annotations): options.licence or self.licence})
        make = partial(self._unit, options, images)
        produce(output, make, groups, total, options.workers, limit=options.limit, chunk=16)
        print(output.summary())
        return None if output.kept else 2

    def _unit(self, options: argparse.Namespace, images: Path, group: Sequence[Entry]) -> Unit:
        unit = Unit()
        for entry in group:
            try:
                for number, row in enumerate(self.rows(entry, options), 1):
                    self._add(unit, row, images, entry.where, f"{options.annotations.stem}-{number}")
            except Dropped as error:
                unit.drop(error.reason, f"{entry.where}: {error}")
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                reason = f"no key {error}" if isinstance(error, KeyError) else error
                unit.drop(INVALID, f"{entry.where}: {reason}")
        return unit

    def _add(self, unit: Unit, row: object, images: Path, where: str, name: str) -> None:
        reason = INVALID
        try:
            sample = parse_sample(row, images, where)
            sample.id = sample.id or name
            reason = UNREADABLE
            self._take(unit, sample, images)
        except SampleError as error:
            unit.drop(reason, error)

    def _take(self, unit: Unit, sample: Sample, images: Path) -> None:
        """Add a sample and its images. Raises SampleError for one that cannot be read."""
        renamed = {name: _name(images, name) for name in (*sample.images, *sample.target_images)}
        if not unit.images.keys() >= set(renamed.values()):
            sample.open_images()
            sample.open_target_images()
            unit.images |= {new: (images / name).read_bytes() for name, new in renamed.items()}
        sample.images, sample.target_images = (
            [renamed[name] for name in names] for names in (sample.images, sample.target_images)
        )
        unit.rows.append(sample.to_json())


def read_json(file: Path, form: str) -> Any:
    """The content of a JSON file; ``form``: what it should hold, for the error. Raises ValueError, OSError."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): give {form}") from error


def read_json_lines(file: Path) -> Iterator[Entry]:
    """An entry a line; the record of a line that is not JSON is None. Raises OSError."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            yield Entry(f"{file} line {number}", record)


def grouped(entries: Iterable[Entry], key: str) -> list[list[Entry]]:
    """Entries whose records have the same value of ``key``, together, in the order of the first of each; those without
    one stand alone."""
    groups: dict[Hashable, list[Entry]] = {}
    for number, entry in enumerate(entries):
        value = entry.record.get(key) if isinstance(entry.record, dict) else None
        groups.setdefault((key, value) if isinstance(value, (str, int)) else number, []).append(entry)
    return list(groups.values())


def _name(images: Path, name: str) -> str:
    """The name of an image in the output, which holds no ``..``."""
    return f"images/{(images / name).resolve().relative_to(images.resolve()).as_posix()}"
