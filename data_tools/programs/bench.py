"""``bench WHAT``: rates, beside those of the bare library. A benchmark is a class here, in ``BENCHMARKS``."""

import argparse
from pathlib import Path
from typing import ClassVar

from data_tools import bench_render
from data_tools.program import Program, register
from data_tools.writer import IMAGE_FORMATS
from varytoy.options import positive


class Benchmark:
    """``name`` and ``help``: on the command line."""

    name: ClassVar[str]
    help: ClassVar[str]

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Add the benchmark's options."""

    def run(self, options: argparse.Namespace) -> None:
        """Print rates. Raises as ``Program.run``."""
        raise NotImplementedError


class PdfBenchmark(Benchmark):
    name = "pdf"
    help = "pages of PDFs, beside pypdfium2's picture and text and the same image file"

    def options(self, parser):
        parser.add_argument("folder", type=Path, help="folder with PDFs, or one PDF")
        parser.add_argument("--count", type=positive, default=200, help="number of pages, three of a file at most")
        parser.add_argument("--size", type=positive, default=1024, help="pixels of the longer side")
        parser.add_argument("--format", choices=sorted(IMAGE_FORMATS), default="jpeg")
        parser.add_argument("--processes", type=positive, nargs="+", default=[1, 2])
        parser.add_argument("--rounds", type=positive, default=3, help="of which the median counts")

    def run(self, options):
        from data_tools.pdf.bench import measure, pages_of, shares
        from data_tools.pdf.pages import PageOptions

        wanted = PageOptions(size=options.size, image_format=options.format)
        pages = pages_of(options.folder, options.count)
        print(f"{len(pages)} pages, {options.size} px, {options.format}; pages a second of each process:")
        print("processes   pypdfium2   data_tools pdf   ratio")
        for processes in options.processes:
            rates = measure(options.folder, pages, processes, wanted, options.rounds)
            ratio = rates.ours / rates.bare
            print(f"{processes:9}   {rates.bare:9.1f}   {rates.ours:14.1f}   {ratio:5.2f}")
        print("\nmilliseconds a page in one process:")
        for step, spent in shares(options.folder, pages, wanted):
            print(f"{spent:6.2f}  {step}")


class RenderBenchmark(Benchmark):
    name = "render"
    help = "images of the renderers, beside the bare libraries"

    def options(self, parser):
        bench_render.options(parser)

    def run(self, options):
        bench_render.run(options)


BENCHMARKS = {each.name: each for each in (PdfBenchmark(), RenderBenchmark())}


@register
class Bench(Program):
    name = "bench"
    help = "measure rates; `bench --help` lists what"

    def options(self, parser):
        commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
        for name, benchmark in sorted(BENCHMARKS.items()):
            benchmark.options(commands.add_parser(name, help=benchmark.help))

    def run(self, options):
        BENCHMARKS[options.what].run(options)
