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
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import parse_sample
from varytoy.options import positive

_REPORTED = 10
"""Number of dropped samples that are reported one by one."""


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
        dropped: list[SampleError] = []
        samples = self._samples(options, images, dropped)
        first = list(itertools.islice(samples, 1))
        kept, copied = 0, set()
        if first:
            with samples_file(options.out, options.overwrite) as add:
                for sample in tqdm(itertools.chain(first, samples), unit="sample", desc=options.out.name):
                    sample.images, sample.target_images = (
                        [_copy(images, name, options.out, copied) for name in names]
                        for names in (sample.images, sample.target_images)
                    )
                    add(sample.to_json())
                    kept += 1
                    if kept == options.limit:
                        break
        print(f"{kept} samples in {options.out}" + (f", {len(dropped)} dropped" if dropped else ""))
        return None if kept else 2

    def _samples(self, options: argparse.Namespace, images: Path, dropped: list[SampleError]) -> Iterator[Sample]:
        opened: set[str] = set()  # rows about one image follow each other, often thirty of them
        for number, row in enumerate(self.rows(options), 1):
            try:
                sample = parse_sample(row, images, f"{options.file} entry {number}")
                sample.id = sample.id or f"{options.file.stem}-{number}"
                if not opened.issuperset((*sample.images, *sample.target_images)):
                    sample.open_images()
                    sample.open_target_images()
                    opened.update((*sample.images, *sample.target_images))
            except SampleError as error:
                dropped.append(error)
                if len(dropped) <= _REPORTED:
                    print(f"dropped: {error}", file=sys.stderr)
                continue
            yield sample


def _copy(images: Path, name: str, out: Path, copied: set[str]) -> str:
    """Copy an image once. Returns its path in ``out``; the name in it holds no ``..``."""
    path = (images / name).resolve()
    name = f"images/{path.relative_to(images.resolve()).as_posix()}"
    if name not in copied:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)
        copied.add(name)
    return name
