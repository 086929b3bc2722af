"""``pdf``: samples of pages from PDFs with a text layer."""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from data_tools.output import SAMPLES, Output, check_free
from data_tools.pdf import quality
from data_tools.pdf.duplicates import Duplicates
from data_tools.pdf.guard import STOPPED, Guard, Guarded, guarded
from data_tools.pdf.on_ray import ray_mapped
from data_tools.pdf.pages import (
    PAGE_TASKS,
    Counter,
    PageMaker,
    PageOptions,
    PageUnit,
    find_files,
    page_items,
    root_of,
    stopped,
)
from data_tools.program import Program, licence_option, output_of, output_options, register, share, span, workers_option
from data_tools.writer import IMAGE_FORMATS, produce
from varytoy.data.samples import read_samples
from varytoy.extras import require
from varytoy.options import positive

_CHUNK = 16
"""Pages that a process takes at once: a file is opened once for so many."""


def page_options(parser: argparse.ArgumentParser) -> None:
    """What a page becomes."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size", type=positive, default=1024, help="pixels of the longer side (default: 1024)")
    size.add_argument("--dpi", type=float, help="resolution instead of a size")
    parser.add_argument("--format", choices=sorted(IMAGE_FORMATS), default="jpeg", help="of the images (default: jpeg)")
    parser.add_argument("--tasks", nargs="+", choices=PAGE_TASKS, default=list(PAGE_TASKS), help="samples of a page")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts' wording")
    parser.add_argument("--language", nargs="+", default=[], metavar="CODE", help="keep these only, e.g. en de")
    help = "share of a page's runs of three words from which a later page is dropped; 0: keep all (default: 0.8)"
    parser.add_argument("--duplicates", type=share, default=0.8, metavar="SHARE", help=help)
    help = "share of characters without meaning that a text layer may have (default: 0.01)"
    parser.add_argument("--unreadable", type=share, default=0.01, metavar="SHARE", help=help)
    parser.add_argument("--characters", type=positive, default=20, help="of a page, at least (default: 20)")
    help = "size in pixels that most letters have at least (default: 5)"
    parser.add_argument("--letter-size", type=float, default=5.0, metavar="PIXELS", help=help)
    parser.add_argument("--scans", action="store_true", help="keep pages whose text layer is that of a scan")


def page_options_of(options: argparse.Namespace) -> PageOptions:
    """Raises MissingExtra, ValueError."""
    if options.dpi is not None and not options.dpi > 0:
        raise ValueError(f"--dpi {options.dpi:g}: give more than 0")
    quality.check_languages(options.language)
    if options.duplicates:
        require("data", "datasketch", by="pdf (or pdf --duplicates 0, which keeps them)")
    limits = quality.Limits(
        options.unreadable, options.characters, options.letter_size, tuple(options.language), options.scans
    )
    return PageOptions(
        tuple(dict.fromkeys(options.tasks)),
        None if options.dpi else options.size,
        options.dpi or 100.0,
        options.format,
        options.seed,
        bool(options.duplicates),
        limits,
    )


def _uncounted(file: str, what: str) -> tuple[int, str, str]:
    return 0, STOPPED, f"{file} {what}"


@register
class Pdf(Program):
    name = "pdf"
    help = "make samples of the pages of PDFs: text in reading order and markdown, with boxes of lines and words"

    def options(self, parser):
        parser.add_argument("folder", type=Path, help="folder with PDFs, at any depth, or one PDF")
        output_options(parser)
        page_options(parser)
        parser.add_argument("--pages", type=span, metavar="FIRST-LAST", help="of each file, e.g. 1-3")
        parser.add_argument("--slice", type=_slice, metavar="N/M", help="one of M parts of the files, e.g. 3/16")
        parser.add_argument("--limit", type=positive, help="maximum number of samples")
        help = "for a page, or it is dropped (default: 60)"
        parser.add_argument("--seconds", type=positive, default=60, help=help)
        workers_option(parser)
        licence_option(parser)
        help = "make the pages on a Ray cluster: local, auto or HOST:PORT"
        parser.add_argument("--ray", metavar="ADDRESS", help=help)

    def run(self, options):
        wanted = page_options_of(options)
        root, workers = root_of(options.folder), options.workers or os.cpu_count() or 1
        files = find_files(options.folder)
        if options.slice:
            part, parts = options.slice
            files = files[part - 1 :: parts]
        check_free(options.out, options.resume, options.overwrite)  # before files are counted
        counting = guarded(Guard(_uncounted, options.seconds))
        with counting(Counter(root), files, workers, _CHUNK) as counts:
            counts = list(tqdm(counts, "counting pages", len(files), unit="file"))
        options.files = hashlib.sha256(repr([*zip(files, counts, strict=True)]).encode()).hexdigest()  # to resume with
        output = output_of(options, {str(options.folder): options.licence or "unknown"})
        items = list(page_items(files, counts, options.pages))
        guard = Guard(stopped, options.seconds)
        make, mapped = PageMaker(root, wanted), guarded(guard)
        if options.ray:
            make, mapped = Guarded(make, guard), ray_mapped(options.ray)
        review = _Review(output, options.duplicates) if options.duplicates else None
        produce(output, make, items, len(items), workers, "page", options.limit, _CHUNK, review, mapped)
        print(output.summary())
        return None if output.kept else 2


class _Review:
    """Drops pages that are nearly the same as one before, in the order of the pages: the first is kept."""

    def __init__(self, output: Output, threshold: float):
        self.kept = Duplicates(threshold)
        self.kept.add_written(_written(output))

    def __call__(self, unit: PageUnit) -> None:
        if unit.signature is None or not unit.rows:
            return
        first = self.kept.find(unit.signature)
        if first is None:
            self.kept.add(unit.place, unit.signature)
        else:
            unit.images, unit.rows = {}, []
            unit.drop(quality.DUPLICATE, f"{unit.place}: {quality.DUPLICATE} of {first}")


def _written(output: Output) -> Iterator[tuple[str, Sequence[str]]]:
    """Place and words of the samples that are there from an interrupted run."""
    if not output.units:
        return
    if output.shard_size:
        for sample in read_samples(output.out):
            yield _place(sample.metadata), sample.annotations.words
    else:
        with (output.out / f"{SAMPLES}.part").open("rb") as lines:
            for row in map(json.loads, lines):
                yield _place(row["metadata"]), row["annotations"]["words"]


def _place(metadata: dict) -> str:
    return f"{metadata['file']} page {metadata['page']}"


def _slice(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a part such as 3/16")
    return int(part), int(parts)
