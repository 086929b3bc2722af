"""Importer: third-party data -> samples with copies of the images."""

import argparse
import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from data_tools.program import Program, output_options
from data_tools.writer import samples_file
from varytoy.data.sample import SampleError
from varytoy.data.samples import parse_sample
from varytoy.options import positive

_REPORTED = 10
"""Number of dropped samples that are reported one by one."""


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
        """A row that breaks the schema, or whose image cannot be read, is reported and dropped."""
        images = options.images or options.file.parent
        if images.resolve() == options.out.resolve():
            raise ValueError(f"{options.out} holds the images: name another folder for the samples")
        rows = self.rows(options)
        rows = itertools.chain(list(itertools.islice(rows, 1)), rows)  # an unreadable file replaces no samples
        kept = dropped = 0
        with samples_file(options.out, options.overwrite) as add:
            for number, row in enumerate(tqdm(rows, unit="sample", desc=options.out.name), 1):
                try:
                    sample = parse_sample(row, images, f"{options.file} entry {number}")
                    sample.id = sample.id or f"{options.file.stem}-{number}"
                    sample.open_images()
                except SampleError as error:
                    dropped += 1
                    if dropped <= _REPORTED:
                        print(f"dropped: {error}", file=sys.stderr)
                    continue
                for path, name in zip(sample.image_paths(), sample.images, strict=True):
                    _copy(path, options.out / "images" / name)
                sample.images = [f"images/{name}" for name in sample.images]
                add(sample.to_json())
                kept += 1
                if kept == options.limit:
                    break
        print(f"{kept} samples in {options.out}" + (f", {dropped} dropped" if dropped else ""))
        return None if kept else 2


def _copy(path: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
