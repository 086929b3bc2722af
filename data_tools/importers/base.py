"""Importer: third-party data -> samples with copies of the images."""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from data_tools.output import Unit
from data_tools.program import Program, output_of, output_options
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import parse_sample
from varytoy.options import positive

_REPORTED = 10
"""Number of dropped samples that are reported one by one."""
_INVALID, _UNREADABLE = "not a valid sample", "image cannot be read"


def evaluation_options(parser: argparse.ArgumentParser) -> None:
    """``--seed`` and ``--evaluate``, of importers of photographs with captions."""
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", action="store_true", help="one caption a photograph, and standard prompts only")


class Importer(Program):
    """Base of the importers: a subclass yields rows, which are validated and written with copies of their images."""

    def options(self, parser):
        parser.add_argument("file", type=Path, help="file with the annotations")
        output_options(parser)
        parser.add_argument("--images", type=Path, help="folder of the images (default: that of the file)")
        parser.add_argument("--limit", type=positive, help="maximum number of samples")

    def rows(self, options: argparse.Namespace) -> Iterator[object]:
        """Samples as ``parse_sample`` takes them, with image paths inside the folder of the images.

        Raises:
            ValueError, OSError: the importer cannot read the file.
        """
        raise NotImplementedError

    def run(self, options):
        """Drop rows that break the schema or whose image cannot be read, and name the first ones. If nothing can be
        imported, samples that are there stay."""
        images = options.images or options.file.parent
        if images.resolve() == (options.out / "images").resolve():
            raise ValueError(f"{options.out} holds the images: name another folder for the samples")
        units = self._units(options, images)
        waiting: list[Unit] = []  # until one has samples
        if not options.resume:
            for unit in units:
                waiting.append(unit)
                if unit.rows:
                    break
            else:
                print(f"0 samples in {options.out}{_counted(waiting)}")
                return 2
        with output_of(options) as output:
            rest = itertools.islice(itertools.chain(waiting, units), output.units, None)
            for unit in tqdm(rest, initial=output.units, unit="image", desc=options.out.name):
                if options.limit:
                    unit.rows = unit.rows[: options.limit - output.kept]
                output.add(unit)
                if output.kept == options.limit:
                    break
        print(output.summary())
        return None if output.kept else 2

    def _units(self, options: argparse.Namespace, images: Path) -> Iterator[Unit]:
        """A unit for each image, whose rows follow each other."""
        reported = 0
        rows = enumerate(self.rows(options), 1)
        for _, group in itertools.groupby(rows, lambda pair: _images_of(*pair)):
            unit = Unit()
            for number, row in group:
                reason = _INVALID
                try:
                    sample = parse_sample(row, images, f"{options.file} entry {number}")
                    sample.id = sample.id or f"{options.file.stem}-{number}"
                    reason = _UNREADABLE
                    self._take(unit, sample, images)
                except SampleError as error:
                    unit.dropped[reason] += 1
                    reported += 1
                    if reported <= _REPORTED:
                        print(f"dropped: {error}", file=sys.stderr)
            yield unit

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


def _images_of(number: int, row: object) -> object:
    """What rows of one unit have in common: the images, or of a row without any its number."""
    images = [row.get(key) for key in ("images", "target_images") if row.get(key)] if isinstance(row, dict) else []
    return str(images) if images else number


def _name(images: Path, name: str) -> str:
    """The name of an image in the output, which holds no ``..``."""
    return f"images/{(images / name).resolve().relative_to(images.resolve()).as_posix()}"


def _counted(units: Sequence[Unit]) -> str:
    total = sum(sum(unit.dropped.values()) for unit in units)
    return f", {total} dropped" if total else ""
