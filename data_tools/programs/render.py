"""``render KIND``: images with their samples; ``gallery KIND``: a sheet of them to look at."""

import argparse
from pathlib import Path

from data_tools.program import Program, generation_options, output_of, register, workers_option
from data_tools.render.gallery import draw_gallery
from data_tools.render.kinds import KINDS
from data_tools.writer import IMAGE_FORMATS, render_into
from varytoy.options import positive


class _OfKinds(Program):
    """Base of the programs with a command for each kind."""

    def options(self, parser):
        kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
        for name, kind in sorted(KINDS.items()):
            command = kinds.add_parser(name, help=kind.help)
            self.own_options(command, kind.image_format)
            command.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by `fetch`")
            help = "test uses held-out fonts, texts and images"
            command.add_argument("--split", choices=("train", "test"), default="train", help=help)
            kind.options(command)

    def own_options(self, parser: argparse.ArgumentParser, image_format: str) -> None:
        raise NotImplementedError


@register
class Render(_OfKinds):
    name = "render"
    help = "render images with their samples; `render --help` lists the kinds"

    def own_options(self, parser, image_format):
        generation_options(parser, "number of images")
        workers_option(parser)
        help = f"of the images (default: {image_format})"
        parser.add_argument("--format", choices=sorted(IMAGE_FORMATS), default=image_format, help=help)

    def run(self, options):
        kind = KINDS[options.kind]
        renderer = kind.renderer(options)
        output = output_of(options, kind.sources(options))
        render_into(output, options.count, renderer, options.workers, options.format)
        print(output.summary())


@register
class Gallery(_OfKinds):
    name = "gallery"
    help = "draw a sheet of rendered images with their boxes, questions and answers"

    def own_options(self, parser, image_format):
        parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="picture to write, e.g. sheet.png")
        parser.add_argument("--count", type=positive, default=12, help="number of images")
        parser.add_argument("--across", type=positive, default=4, help="images side by side")
        parser.add_argument("--side", type=positive, default=420, help="longest side of an image on the sheet, pixels")
        parser.add_argument("--words", action="store_true", help="draw the boxes of the printed words")
        parser.add_argument("--seed", type=int, default=0)

    def run(self, options):
        renderer = KINDS[options.kind].renderer(options)
        images = (renderer(index) for index in range(options.count))
        draw_gallery(images, options.out, options.across, options.words, options.side)
        print(f"{options.count} images in {options.out}")
