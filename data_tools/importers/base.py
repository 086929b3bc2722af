"""Importer: third-party data -> samples with copies of the images."""

import argparse
import codecs
import itertools
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from data_tools.output import Unit
from data_tools.program import Program, licence_option, output_of, output_options, workers_option
from data_tools.writer import inside, produce
from varytoy.data.coco_file import INVALID
from varytoy.data.json_stream import stream_json
from varytoy.data.sample import Sample, SampleError, open_image
from varytoy.data.samples import parse_sample
from varytoy.options import positive

UNREADABLE = "image cannot be read"


class Entry(NamedTuple):
    """A record of the source: its place, for errors (``FILE entry 3``), and the record itself, or in its place a
    ``Dropped`` that says why there is none."""

    where: str
    record: Any


class Dropped(ValueError):
    """A record that gives no sample; ``reason`` is what the summary counts, the message says more. ``quiet``: it is
    counted, and never among those that are named: nothing is wrong with it."""

    def __init__(self, reason: str, message: str = "", quiet: bool = False):
        super().__init__(message or reason)
        self.reason, self.quiet = reason, quiet


def evaluation_options(
    parser: argparse.ArgumentParser, help: str = "one caption a photograph, and standard prompts only"
) -> None:
    """``--seed`` and ``--evaluate``."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true", help=help)


class Importer(Program):
    """Base of the importers: a subclass reads records and makes rows of each. Rows are validated and written with
    copies of their images.

    Attributes:
        licence: of the source, as its makers state it.
        takes: what ``--annotations`` is, for ``--help``.
        images: what the folder ``--images`` holds; empty for a source without images.
    """

    licence: ClassVar[str] = "unknown"
    takes: ClassVar[str] = "the source's own file"
    images: ClassVar[str] = "images"

    def options(self, parser):
        parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help=self.takes)
        self.import_options(parser)

    def import_options(self, parser: argparse.ArgumentParser) -> None:
        """The options of all importers but the file."""
        output_options(parser)
        if self.images:
            help = f"folder of the {self.images} (default: that of the file)"
            parser.add_argument("--images", type=Path, metavar="FOLDER", help=help)
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
        """Samples as ``parse_sample`` takes them, with image paths inside the folder of the images; a ``Dropped`` for
        what is left out beside them.

        Raises:
            Dropped: there is no sample in it. A KeyError, TypeError, ValueError, AttributeError or IndexError says that
                the record is not of the source's form.
        """
        raise NotImplementedError

    def read_image(self, folder: Path, name: str, options: argparse.Namespace) -> bytes:
        """The file of an image of a row. Raises SampleError, OSError."""
        open_image(folder / name)
        return (folder / name).read_bytes()

    def run(self, options):
        """Drop rows that break the schema or whose image cannot be read, and name the first ones. If nothing can be
        imported, samples that are there stay."""
        images = folder_of(options)
        if getattr(options, "images", None) and not images.is_dir():
            raise FileNotFoundError(f"there is no folder {images}: give --images that of the {self.images}")
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
        if total is None:  # a file of another form is found out before the output begins
            rest = iter(groups)
            groups = itertools.chain(list(itertools.islice(rest, 1)), rest)
        output = output_of(options, {str(options.annotations): options.licence or self.licence})
        make = partial(self._unit, options, images)
        produce(output, make, groups, total, options.workers, limit=options.limit, chunk=16)
        print(output.summary())
        return None if output.kept else 2

    def _unit(self, options: argparse.Namespace, images: Path, group: Sequence[Entry]) -> Unit:
        unit = Unit()
        for entry in group:
            number = 0
            try:
                if isinstance(entry.record, Dropped):
                    raise entry.record
                for row in self.rows(entry, options):
                    if isinstance(row, Dropped):
                        _drop(unit, row, entry.where)
                        continue
                    number += 1
                    place = entry.where.rpartition(" ")[2]
                    name = f"{options.annotations.stem}-{place}" + f"-{number}" * (number > 1)
                    self._add(unit, row, images, options, entry.where, name)
            except Dropped as error:
                _drop(unit, error, entry.where)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
                reason = f"no key {error}" if isinstance(error, KeyError) else error
                unit.drop(INVALID, f"{entry.where}: {reason}")
        return unit

    def _add(self, unit: Unit, row: object, images: Path, options: argparse.Namespace, where: str, name: str) -> None:
        reason = INVALID
        try:
            sample = parse_sample(row, images, where)
            sample.id = sample.id or name
            reason = UNREADABLE
            self._take(unit, sample, images, options)
        except SampleError as error:
            unit.drop(reason, error)

    def _take(self, unit: Unit, sample: Sample, images: Path, options: argparse.Namespace) -> None:
        """Add a sample and its images. Raises SampleError for one that cannot be read."""
        renamed = {name: _name(images, name) for name in (*sample.images, *sample.target_images)}
        try:
            read = {
                new: self.read_image(images, name, options) for name, new in renamed.items() if new not in unit.images
            }
        except (SampleError, OSError) as error:
            raise SampleError(f"{sample.name}: {error}") from error
        unit.images |= read
        sample.images, sample.target_images = (
            [renamed[name] for name in names] for names in (sample.images, sample.target_images)
        )
        unit.rows.append(sample.to_json())


def _drop(unit: Unit, error: Dropped, where: str) -> None:
    unit.drop(error.reason, "" if error.quiet else f"{where}: {error}")


def folder_of(options: argparse.Namespace) -> Path:
    """The folder of the images."""
    return getattr(options, "images", None) or options.annotations.parent


def read_json(file: Path, form: str) -> Any:
    """The content of a JSON file; ``form``: what it should hold, for the error. Raises ValueError, OSError."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): give {form}") from error


def read_json_lines(file: Path) -> Iterator[Entry]:
    """An entry a line. Raises OSError."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield Entry(f"{file} line {number}", _decoded(line))


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Dropped("not UTF-8", f"not UTF-8 ({error.reason} at byte {error.start})")
    except (ValueError, RecursionError) as error:
        return Dropped("not JSON", f"not JSON ({error})")


def read_json_list(file: Path, form: str) -> Iterator[Entry]:
    """An entry for each of a JSON list, one at a time. Raises ValueError, OSError."""
    if _first(file, form) == b"{":
        raise ValueError(f"{file} is not a list: give {form}")
    for _, number, record in stream_json(file, form):
        yield Entry(f"{file} entry {number}", record)


def read_records(file: Path, form: str) -> Iterator[Entry]:
    """The entries of a JSON list or of JSON lines. Raises as both."""
    return read_json_list(file, form) if _first(file, form) == b"[" else read_json_lines(file)


def _first(file: Path, form: str) -> bytes:
    """The first byte that is no white space. Raises ValueError for an empty file."""
    with file.open("rb") as data:
        start = data.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise ValueError(f"{file} is empty: give {form}")
    return start[:1]


class Groups:
    """Groups that ``make`` makes one at a time; their number is known."""

    def __init__(self, count: int, make: Callable[[], Iterator[list[Entry]]]):
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[Entry]]:
        return self._make()


class Grouped:
    """Entries whose records have the same value of ``key``, together, in the order of the first of each; those without
    one stand alone. Records are kept as JSON text, which takes a third of the memory of their objects."""

    def __init__(self, entries: Iterable[Entry], key: str):
        groups: dict[Hashable, list[tuple[str, str | Dropped]]] = {}
        for number, (where, record) in enumerate(entries):
            value = record.get(key) if isinstance(record, dict) else None
            text = record if isinstance(record, Dropped) else json.dumps(record)
            groups.setdefault((key, value) if isinstance(value, (str, int)) else number, []).append((where, text))
        self._groups = list(groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[list[Entry]]:
        for group in self._groups:
            yield [Entry(where, text if isinstance(text, Dropped) else json.loads(text)) for where, text in group]


def _name(images: Path, name: str) -> str:
    """The name of an image in the output, which holds no ``..``."""
    return f"images/{inside(images, name)}"
