"""``bench``: how fast data is made, beside the bare libraries in the same run."""

from data_tools import bench_render
from data_tools.program import Program, register

PARTS = {"render": (bench_render, "images a second and core of the renderers")}
"""Name on the command line -> module with ``options`` and ``run``, and its help."""


@register
class Bench(Program):
    name = "bench"
    help = "measure how fast samples are made, beside the bare libraries"

    def options(self, parser):
        parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
        for name, (module, help) in PARTS.items():
            module.options(parts.add_parser(name, help=help))

    def run(self, options):
        PARTS[options.part][0].run(options)
