"""``python -m train run RECIPE.yaml [key=value …] [--resume]``"""

import argparse
import sys

import varytoy  # noqa: F401  (first: it repairs mismatched torchvision builds)
from train.recipe import RecipeError, load_recipe
from varytoy.samples import SampleError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and measure.")
    programs = parser.add_subparsers(dest="program", required=True, metavar="NAME")
    run = programs.add_parser("run", help="train as a recipe says")
    run.add_argument("recipe")
    run.add_argument("overrides", nargs="*", metavar="key=value")
    run.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the output folder")
    run.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    run.set_defaults(run=_run)
    return parser


def _run(options) -> None:
    from train.loop import run

    run(load_recipe(options.recipe, options.overrides), options.resume)


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (RecipeError, SampleError, FileNotFoundError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
