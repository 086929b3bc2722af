"""``python -m train run RECIPE.yaml [--overlay NAME] [key=value …] [--resume]`` and the other training programs."""

import argparse
import functools
import math
import os
import sys
from pathlib import Path

import varytoy  # noqa: F401  (first: it repairs mismatched torchvision builds)
from data_tools.assets.packages import SourceError
from train.published import ResultsError
from train.recipe import EIGHT_BIT, Recipe, RecipeError, load_recipe, smoke_test
from varytoy.checkpoints.loading import ModelError
from varytoy.checkpoints.maps import WeightsError
from varytoy.data.documents import DocumentError
from varytoy.data.sample import SampleError
from varytoy.extras import MissingExtra, require
from varytoy.options import device_options, positive, reader_options

_SCORES = ("apted", "jiwer", "pycocotools", "rapidfuzz")
_TRAINER = ("accelerate", "rapidfuzz", "tensorboard")


def _gib(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of GiB above 0")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0")
    return number


def _to_write(text: str) -> Path:
    """The output file; its folder is checked before the work begins."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"'{text}' cannot be written: name a file in an existing folder")
    return path


def _figure_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"'{text}' does not end in .png, .svg or .pdf")
    return path


def _add_recipe(program: argparse.ArgumentParser) -> None:
    program.add_argument("recipe")
    program.add_argument("overrides", nargs="*", metavar="key=value")
    program.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="settings merged over the recipe: a name in train/recipes/overlays or a YAML file; may be repeated",
    )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and measure.")
    programs = parser.add_subparsers(dest="program", required=True, metavar="NAME")
    run = programs.add_parser("run", help="train with a recipe")
    _add_recipe(run)
    run.add_argument("--resume", action="store_true", help="resume from the latest checkpoint of the output folder")
    run.add_argument("--overwrite", action="store_true", help="replace the run that the output folder holds")
    run.add_argument("--smoke-test", metavar="FOLDER", help="run three small steps on the samples of FOLDER")
    run.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    run.set_defaults(run=_run, needs=_TRAINER)

    table = programs.add_parser("evaluate", help="print a model's table, on freshly rendered samples")
    table.add_argument("--model", default="nano", help="nano, a folder or a hub id")
    device_options(table)
    table.add_argument("--source", type=Path, help="folder filled by data_tools fetch (default: data/sources)")
    table.add_argument("--count", type=positive, help="images of each kind (default: 200)")
    table.add_argument("--seed", type=int, help="of the images (default: 1001)")
    table.add_argument("--text-only", action="store_true", help="without the scenes")
    table.add_argument("--samples", type=Path, help="score a folder of your own samples instead, by task")
    table.add_argument(
        "--baselines", type=Path, metavar="SAMPLES", help="with --samples: compare with guesses learned from SAMPLES"
    )
    table.add_argument(
        "--worst", type=Path, metavar="FOLDER", help="with --samples: draw the 20 worst answers of each task"
    )
    table.add_argument("--max-new-tokens", type=positive, help="with --samples: longest answer (default: 1024)")
    table.add_argument("--write", type=_to_write, help="save the table as JSON")
    table.set_defaults(run=_evaluate, needs=_SCORES)

    report = programs.add_parser("report", help="compare a tuned model with its base, and say whether to keep it")
    report.add_argument("tuned", metavar="RUN", type=Path, help="the folder of a run, of adapters or of a checkpoint")
    report.add_argument("--new", type=Path, metavar="SAMPLES", help="what it was to learn (default: see the recipe)")
    report.add_argument("--old", type=Path, metavar="SAMPLES", help="what it must not forget (default: its replay)")
    report.add_argument("--base", default="", metavar="MODEL", help="the model before (default: see the recipe)")
    report.add_argument("--count", type=positive, default=100, help="samples of each")
    report.add_argument("--seed", type=int, default=0, help="of the choice and of the intervals")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/report")
    report.add_argument("--tolerance", type=_share, default=0.02, help="by how much old tasks may be worse")
    report.add_argument("--max-new-tokens", type=positive, default=512, help="longest answer")
    device_options(report)
    report.set_defaults(run=_report, needs=_SCORES)

    scale = programs.add_parser("calibrate", help="fit a model's confidences to how often it is right, and draw both")
    scale.add_argument("--model", default="nano", help="nano, a folder or a hub id")
    scale.add_argument(
        "--pictures", type=Path, help="samples with questions and phrases about pictures (default: reading of blocks)"
    )
    scale.add_argument("--source", type=Path, default=Path("data/sources"), help="folder filled by data_tools fetch")
    scale.add_argument("--count", type=positive, default=200, help="rendered blocks")
    scale.add_argument("--seed", type=int, default=2001)
    scale.add_argument("--out", type=Path, required=True, help="folder for calibration.json and reliability.png")
    scale.set_defaults(run=_calibrate, needs=(*_SCORES, "matplotlib"))

    export = programs.add_parser("export", help="export a finished run in 16 bits")
    export.add_argument("source", metavar="RUN")
    export.add_argument("out", type=Path)
    export.add_argument(
        "--within",
        type=Path,
        metavar="CHECKPOINT",
        help="leave out what is the same in this one, in which OUT is",
    )
    export.add_argument("--drawing", action="store_true", help="export the image decoder alone, as OUT/drawing has it")
    export.set_defaults(run=_export)

    memory = programs.add_parser("memory", help="plan the GPU memory of a training step (no GPU needed)")
    _add_recipe(memory)
    memory.add_argument("--gpu", type=_gib, default=11.0, help="GiB of the card")
    memory.add_argument("--tokens", type=positive, default=0, help="tokens of a sample (default: train.max_length)")
    memory.add_argument("--images", type=positive, default=1, help="images of a sample")
    memory.add_argument("--measure", action="store_true", help="also run steps with random weights, on the card if any")
    memory.set_defaults(run=_memory, needs=("accelerate",))

    needs = programs.add_parser("needs", help="estimate inference GPU memory (no GPU needed)")
    needs.add_argument("--answer", type=positive, default=1024, help="tokens of an answer")
    needs.set_defaults(run=_needs)

    features = programs.add_parser("features", help="precompute frozen vision features")
    _add_recipe(features)
    features.set_defaults(run=_features)

    inspect = programs.add_parser("inspect", help="show samples as tokens, supervised ones marked")
    _add_recipe(inspect)
    inspect.add_argument("--count", type=positive, default=3, help="samples of each source")
    inspect.set_defaults(run=_inspect, needs=("rapidfuzz",))

    merge = programs.add_parser("merge", help="merge an adapter into its base")
    merge.add_argument("source", metavar="RUN")
    merge.add_argument("out", type=Path)
    merge.set_defaults(run=_merge, needs=("peft",))

    curve = programs.add_parser("curve", help="plot the losses of consecutive runs")
    curve.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    curve.add_argument("--out", type=_figure_file, default=Path("curve.png"), help="PNG, SVG or PDF")
    curve.set_defaults(run=_curve, needs=("matplotlib",))

    scaling = programs.add_parser("scaling", help="fit how loss and score depend on the number of training samples")
    scaling.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="folders of runs; .csv or .jsonl with n, seed, loss, score"
    )
    scaling.add_argument("--out", type=_figure_file, help="draw rows and laws: PNG, SVG or PDF")
    scaling.add_argument("--json", type=_to_write, metavar="FILE", help="write the figures and how they were made")
    scaling.add_argument("--seed", type=int, default=0, help="of the intervals")
    scaling.set_defaults(run=_scaling, needs=())

    study = programs.add_parser("study", help="run the missing runs of the convergence study")
    study.add_argument("--folder", type=Path, default=Path("runs/study"))
    study.add_argument("--seeds", type=positive, default=3)
    study.add_argument("--jobs", type=positive, default=2, help="runs at a time, one thread each")
    study.add_argument("--out", type=_figure_file, default=Path("runs/study/study.png"), help="the curves")
    study.set_defaults(run=_study, needs=(*_TRAINER, *_SCORES, "bitsandbytes", "matplotlib", "peft"))

    peers = programs.add_parser(
        "peers", help="measure nano beside Tesseract and RapidOCR on blocks, pages, scans, receipts"
    )
    peers.add_argument("data", type=Path, help="folder with print/blocks, print/pages, scans and receipts")
    peers.add_argument("--model", default="nano")
    peers.add_argument(
        "--out", type=Path, default=Path("runs/peers"), help="folder of the runs; finished ones are kept"
    )
    peers.add_argument("--engines", nargs="+", metavar="ENGINE", help="some of the readers (default: all)")
    peers.add_argument("--limit", type=positive, help="cases of each suite (default: all)")
    peers.add_argument("--publish", action="store_true", help="write the figures to train/results")
    peers.set_defaults(run=_peers, needs=("rapidfuzz",))

    structured = programs.add_parser("structured", help="measure lines with boxes, parts, markdown, tables, formulas")
    structured.add_argument("--source", type=Path, default=Path("data/sources"), help="filled by `data_tools fetch`")
    structured.add_argument("--model", default="nano")
    structured.add_argument("--out", type=Path, default=Path("runs/structured"), help="finished parts of it are kept")
    structured.add_argument("--seed", type=int, default=20)
    structured.add_argument("--limit", type=positive, help="pages of each kind (default: 10 to 60)")
    structured.add_argument("--publish", action="store_true", help="write the figures to train/results")
    structured.set_defaults(run=_structured, needs=("rapidfuzz",))
    square = programs.add_parser("square", help="measure the filters of question data with a scripted model")
    square.add_argument("--source", type=Path, default=Path("data/sources"), help="filled by `data_tools fetch`")
    square.add_argument("--out", type=Path, default=Path("runs/square"), help="finished parts of it are kept")
    square.add_argument("--pages", type=positive, default=600)
    square.add_argument("--mistakes", default="", help="of the scripted model: wrong=0.3,judge=0.9 and others")
    square.add_argument("--seed", type=int, default=21)
    square.add_argument("--publish", action="store_true", help="write the figures to train/results")
    square.set_defaults(run=_square, needs=("matplotlib", "rapidfuzz"))

    results = programs.add_parser("results", help="compare the documentation's tables with train/results")
    results.add_argument("--write", action="store_true", help="bring the documents up to date")
    results.set_defaults(run=_results, needs=())
    return parser


def _load(options) -> Recipe:
    """The recipe, after a check that all packages that it needs are installed."""
    recipe = load_recipe(options.recipe, options.overrides, options.overlay)
    train = recipe.train
    needed = {
        "bitsandbytes": train.optimizer in EIGHT_BIT or recipe.lora.quantize,
        "deepspeed": train.deepspeed,
        "peft": recipe.lora.rank,
    }
    require(
        "train",
        *(name for name, is_needed in needed.items() if is_needed),
        by=" --overlay ".join([options.recipe, *options.overlay]),
    )
    return recipe


def _evaluate(options) -> None:
    from train.evaluate import compare_samples, evaluate, score_samples, write_table
    from varytoy.inference.reader import Reader

    _check_evaluate(options)
    load = functools.partial(Reader.from_pretrained, *reader_options(options))
    if options.baselines:
        from train.baselines import markdown

        table = compare_samples(load, options.samples, options.baselines, options.max_new_tokens)
        print(markdown(table))
        if options.write:
            write_table(table, options.write)
        return
    if options.samples:
        table = score_samples(load, options.samples, options.max_new_tokens, options.worst)
    else:
        picture_source = None if options.text_only else options.source
        table = evaluate(load, options.source, picture_source, options.count, options.seed)
    for name, value in table.items():
        print(f"{name:<40} {value:.4f}")
    if options.write:
        write_table(table, options.write)


def _check_evaluate(options) -> None:
    """Fill in the options that were not given. Raises SampleError for those that do not go together."""
    of_samples, rendered = ("baselines", "worst", "max_new_tokens"), ("source", "count", "seed", "text_only")
    for name in rendered if options.samples else of_samples:
        if getattr(options, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            cure = f"leave it out, or leave out --samples {options.samples}" if options.samples else "add --samples"
            raise SampleError(f"{option} is {'not' if options.samples else 'only'} used with --samples: {cure}")
    if options.baselines and options.worst:
        raise SampleError("--worst does not go together with --baselines: leave one of them out")
    defaults = {"source": Path("data/sources"), "count": 200, "seed": 1001, "max_new_tokens": 1024}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def _report(options) -> None:
    from train.report import Options, compare
    from train.report_text import table, write

    names = ("new", "old", "base", "count", "seed", "tolerance", "max_new_tokens")
    out = options.out or options.tuned / "report"
    names += ("device", "dtype", "quantize", "runtime")
    found = compare(options.tuned, Options(**{name: getattr(options, name) for name in names}))
    write(found, out)
    print(f"\n{table(found)}\n")
    if found.merge is not None:
        print("\n".join(found.merge.sentences()))
    print(f"{found.sentence}\nthe report is in {out / 'report.md'}")


def _calibrate(options) -> None:
    from train.calibration import calibrate

    for scale in calibrate(options.model, options.pictures, options.source, options.count, options.seed, options.out):
        print(scale)


def _export(options) -> None:
    from train.model import export
    from train.objectives.drawing import export_decoder

    if options.drawing:
        size = export_decoder(Path(options.source), options.out)
    else:
        size = export(options.source, options.out, options.within)
    print(f"{size / 2**20:.1f} MiB in {options.out}")


def _memory(options) -> int:
    from train.memory.advice import advice, report, verdict
    from train.memory.budget import total
    from train.memory.plan import GIB, plan
    from train.stages import shape_recipes, titles

    whole = _load(options)
    card, shape = options.gpu, (options.tokens, options.images)
    plans = []
    for title, each in zip(titles(whole), shape_recipes(whole), strict=True):
        plans.append((plan(each, *shape), each))
        print("\n".join([title, report(plans[-1][0]), ""] if title else [report(plans[-1][0])]), flush=True)
    planned, recipe = max(plans, key=lambda pair: pair[0].peak)
    if whole.stages:
        together = sum(total(each.needs, "disk") for each, _ in plans)
        most = titles(whole)[[each for each, _ in plans].index(planned)]
        print(f"all stages together on the disk: {together / GIB:.2f} GiB\nthe most memory is that of {most}")
    if options.measure:
        from train.memory.measure import NoRoom, compare, measure

        try:
            measured = measure(recipe, *shape, card=card)
        except NoRoom as error:
            print(f"does not fit: {error}; {advice(planned, recipe, card, *shape)}")
            return 1
        print(compare(measured, planned.peak))
        if measured.on_card:
            planned.peak = max(planned.peak, measured.peak)
    print(verdict(planned, recipe, card, *shape))
    return 0 if planned.fits(card) else 1


def _needs(options) -> None:
    from train.memory.inference import table

    print(table(options.answer))


def _features(options) -> None:
    from train.features import write

    recipe = load_recipe(options.recipe, options.overrides, options.overlay)
    print(f"features of {write(recipe):,} pictures are in {recipe.features}")


def _inspect(options) -> None:
    from train.inspect_labels import inspect
    from train.stages import shape_recipes, titles

    recipe = load_recipe(options.recipe, options.overrides, options.overlay)
    for title, each in zip(titles(recipe), shape_recipes(recipe), strict=True):
        print("\n".join(filter(None, (title, inspect(each, options.count)))))


def _merge(options) -> None:
    from train.adapters import merge

    merge(options.source, options.out)
    print(f"the merged model is in {options.out}")


def _curve(options) -> None:
    from train.experiments.curve import draw

    draw(options.runs, options.out)
    print(f"drawn in {options.out}")


def _scaling(options) -> None:
    from train.published import text_of
    from train.run_folder import write_aside
    from train.scaling.fit import fit
    from train.scaling.report import draw, text, values
    from train.scaling.rows import read
    from varytoy.evaluation.provenance import provenance

    if options.out:
        require("train", "matplotlib", by="python -m train scaling --out")
    if options.json and options.json.resolve() in {path.resolve() for path in options.runs}:
        raise RecipeError(f"--json {options.json} would replace the rows: name another file")
    if options.seed < 0:
        raise RecipeError(f"--seed {options.seed}: give a whole number from 0")
    rows, quantities = read(options.runs)
    sizes = [row.n for row in rows]
    fits = [fit(name, sizes, [getattr(row, name) for row in rows], options.seed) for name in quantities]
    print(text(fits, options.seed))
    if options.out:
        draw(fits, options.out)
        print(f"drawn in {options.out}")
    if options.json:
        what = "loss and score over the number of training samples: two laws"
        made = provenance("python -m train", options.words)
        write_aside(options.json, text_of(values(fits), what, options.seed, made))
        print(f"figures in {options.json}")


def _study(options) -> None:
    from train.experiments.study import draw, report, study

    print(report(study(options.folder, options.seeds, options.jobs)))
    draw(options.folder, options.seeds, options.out)


def _peers(options) -> int:
    from train.peers import ENGINES, measure

    words = options.words if options.publish else ()
    return measure(options.data, options.out, options.model, options.engines or ENGINES, options.limit, words)


def _square(options) -> int:
    from train.square import measure

    words = options.words if options.publish else ()
    return measure(options.source, options.out, options.pages, options.mistakes, options.seed, words)


def _structured(options) -> int:
    from train.structured import measure

    words = options.words if options.publish else ()
    return measure(options.source, options.out, options.model, options.seed, options.limit, words)


def _results(options) -> int:
    from train.published import update

    differing = update(options.write)
    for name in differing:
        print(f"{name}: {'written' if options.write else 'its tables differ from train/results: run with --write'}")
    return 0 if options.write or not differing else 1


def _run(options) -> None:
    import torch

    from train.loop import run

    recipe = _load(options)
    if options.smoke_test:
        if recipe.features:
            print(f"--smoke-test runs the towers themselves, not their features in {recipe.features}")
        recipe = smoke_test(recipe, options.smoke_test, torch.cuda.is_available())
    if options.resume and (options.overwrite or options.smoke_test):
        raise RecipeError("--resume goes on with a run, --overwrite and --smoke-test begin anew: leave one of them out")
    run(recipe, options.resume, overwrite=options.overwrite or bool(options.smoke_test))  # or an earlier smoke test


def main(arguments: list[str] | None = None) -> int:
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    options.words = sys.argv[1:] if arguments is None else arguments
    if rest and (not hasattr(options, "overrides") or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest  # argparse takes only those before the first option
    expected = (
        RecipeError,
        ResultsError,
        SampleError,
        SourceError,
        ModelError,
        DocumentError,
        WeightsError,
        MissingExtra,
        OSError,
    )
    try:
        require("train", *getattr(options, "needs", ()), by=f"python -m train {options.program}")
        return options.run(options) or 0
    except expected as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if not int(os.environ.get("RANK", "0")):
            print(f"\ntrain: stopped; {stop}" if str(stop) else "\ntrain: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
