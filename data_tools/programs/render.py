"""``blocks``, ``scenes`` and ``text-pictures``: rendered images with their samples."""

import argparse
import math
import sys
from pathlib import Path

from data_tools.assets import sources
from data_tools.program import Program, generation_options, output_of, register
from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.render.scenes import SceneRenderer
from data_tools.render.text_pictures import TextPictures
from data_tools.writer import Renderer, render_into
from varytoy.options import positive


def span(text: str, kind=int) -> tuple:
    """``3`` or ``1-8`` as a pair."""
    low, _, high = text.partition("-")
    try:
        pair = (kind(low), kind(high or low))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number or a range such as 1-8") from None
    if not 0 < pair[0] <= pair[1] < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}': give a number above 0, or a range from a lower to a higher one")
    return pair


def _span_of_floats(text: str) -> tuple:
    return span(text, float)


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share from 0 to 1")
    return number


class Rendering(Program):
    """Base of the programs that render images with a ``Renderer``."""

    def options(self, parser):
        generation_options(parser, "number of images")
        parser.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by `fetch`")
        parser.add_argument(
            "--split", choices=("train", "test"), default="train", help="test uses held-out fonts, texts and images"
        )
        parser.add_argument("--workers", type=positive, help="processes (default: all cores)")

    def renderer(self, options: argparse.Namespace) -> Renderer:
        raise NotImplementedError

    def run(self, options):
        render_into(output_of(options), options.count, self.renderer(options), options.workers)


@register
class Blocks(Rendering):
    name = "blocks"
    help = "render text blocks (OCR and markdown)"

    def options(self, parser):
        super().options(parser)
        defaults = BlockOptions()
        parser.add_argument("--lines", type=span, default=defaults.lines, help="e.g. 1-8, or 30")
        parser.add_argument("--columns", type=span, default=defaults.columns, help="characters per line")
        parser.add_argument(
            "--x-height", type=_span_of_floats, default=defaults.x_height, help="letter height in pixels"
        )
        parser.add_argument("--font-size", type=_span_of_floats, help="font sizes in pixels, instead of --x-height")
        parser.add_argument("--plain", action="store_true", help="no headings, lists or bold text")
        parser.add_argument(
            "--repeats", type=_share, default=0.0, help="share of blocks that repeat a few words, 0 to 1"
        )
        parser.add_argument("--texts", type=Path, nargs="+", default=[], metavar="FILE", help="your own texts, UTF-8")
        parser.add_argument("--fonts", type=Path, metavar="FOLDER", help="your own fonts, *.ttf and *.otf")

    def renderer(self, options):
        chosen = BlockOptions(
            lines=options.lines,
            columns=options.columns,
            x_height=options.x_height,
            font_size=options.font_size,
            formatted=not options.plain,
            repeats=options.repeats,
            texts=tuple(options.texts),
            fonts=options.fonts,
        )
        left_out = sources.unknown(options.texts)
        if left_out:
            counts = ", ".join(f"{character} ({count})" for character, count in left_out.most_common(10))
            print(f"words with characters that the small models do not know are left out: {counts}", file=sys.stderr)
        return BlockRenderer(options.source, options.seed, options.split, chosen)


@register
class Scenes(Rendering):
    name = "scenes"
    help = "render scenes (detection, grounding, captions, questions)"

    def options(self, parser):
        super().options(parser)
        parser.add_argument("--size", type=positive, default=224, help="longer side in pixels")

    def renderer(self, options):
        return SceneRenderer(options.source, options.seed, options.split, options.size)


@register
class PicturesOfText(Rendering):
    name = "text-pictures"
    help = "render pictures of text whose captions say that they are text"

    def renderer(self, options):
        return TextPictures(options.source, options.seed, options.split)
