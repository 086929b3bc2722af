"""``varytoy read FILE…``: the command line."""

import argparse
import os
import sys
from pathlib import Path

from varytoy import __version__
from varytoy.formats.draw import NOTATIONS
from varytoy.inference.many import TOGETHER
from varytoy.inference.read import complain, read_files
from varytoy.options import DRAFTS, DTYPE_NAMES, device_options, positive
from varytoy.outputs import FORMATS
from varytoy.tasks import TASKS

_TASK = (
    "what to do (default: ocr for a page of text, caption for a photograph; with --prompt chat, or the task that it is "
    "a wording of)"
)
_DRAFTS = "where drafts of text come from, which the model checks: itself, a PDF's text layer, Tesseract"
_PLACE = "only this part, in pixels of the page, or what stands in a frame: red, green or blue"
_TILES = "for models that resize pages to a square: cut the page into at most so many squares (1: the whole page)"
_RESOLUTION = "for models that resize pages to a square: its side in pixels, e.g. 640 (default: the model's own)"
_ACROSS = "for models that resize pages to a square: all pages of a file in one pass, as one answer"
_FORMATS = "got: transformers' GOT-OCR2 (models without CLIP); decoder: alone, as stock transformers; onnx: vision"


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """``command``: the one that is called; the suites, which import NumPy, are listed for ``evaluate`` only."""
    parser = argparse.ArgumentParser(prog="varytoy", description="Small vision-language models that read.")
    parser.add_argument("--version", action="version", version=f"varytoy {__version__}")
    programs = parser.add_subparsers(dest="program", required=True, metavar="COMMAND")
    about = "Read images and PDF files, or ask about them. Without a task or a prompt, pages of text are read and"
    read = programs.add_parser(
        "read", help="read images and PDF files, or ask about them", description=f"{about} photographs are described."
    )
    read.add_argument("files", nargs="+", metavar="FILE", help="files, folders, patterns, or - for standard input")
    read.add_argument("--page", type=positive, help="only this page, counted from 1 (default: all)")
    read.add_argument("--place", metavar="X1,Y1,X2,Y2", help=_PLACE)
    read.add_argument("--tiles", type=positive, default=1, metavar="N", help=_TILES)
    read.add_argument("--resolution", type=positive, default=0, metavar="PIXELS", help=_RESOLUTION)
    read.add_argument("--across-pages", action="store_true", help=_ACROSS)
    read.add_argument("--task", choices=list(TASKS), help=_TASK)
    read.add_argument("--prompt", default="", help="the phrase to ground, the question, the classes, or free words")
    read.add_argument("--model", default="nano", help="nano (the embedded one), a folder or a hub id")
    device_options(read)
    read.add_argument("--max-new-tokens", type=positive, default=1024, help="longest answer to an image or line")
    read.add_argument("--format", choices=list(FORMATS), default="", help="of the output (default: text)")
    read.add_argument("--json", action="store_true", help="--format jsonl: one JSON object a page, each on a line")
    read.add_argument("--out", metavar="FOLDER", help="write FOLDER/NAME.txt (.md, .jsonl, .pdf…) for each file")
    kept = read.add_mutually_exclusive_group()
    kept.add_argument("--overwrite", action="store_true", help="with --out: replace existing files")
    kept.add_argument("--resume", action="store_true", help="with --out: leave out the files and pages that are there")
    read.add_argument("--together", type=positive, default=TOGETHER, help="pages that are read at once")
    read.add_argument("--drafts", choices=DRAFTS, default="model", help=_DRAFTS)
    read.add_argument("--password", help="of protected PDFs")
    read.set_defaults(run=read_files)

    drawn = programs.add_parser(
        "render", help="draw an answer again: markdown, a formula, music, a molecule, geometry, a chart"
    )
    drawn.add_argument("file", metavar="FILE", help="the answer, or - for standard input")
    drawn.add_argument("--as", dest="notation", choices=NOTATIONS, help="its notation (default: by suffix or content)")
    drawn.add_argument("--out", type=Path, metavar="FILE", help=".png, .svg or .html (default: NAME.html or NAME.png)")
    drawn.set_defaults(run=_render)

    erase = programs.add_parser("erase", help="erase text in a picture")
    _drawing_options(erase, "erase")
    change = programs.add_parser("edit", help="replace text in a picture, in its style")
    _drawing_options(change, "edit")
    write = programs.add_parser("draw", help="write words in a picture, or on an empty sheet")
    _drawing_options(write, "generate")

    about = "Measure a model, or another reader, on a suite of test data."
    evaluation = programs.add_parser("evaluate", help="measure a model or another reader", description=about)
    if command == "evaluate":
        _evaluate_options(evaluation)

    serve = programs.add_parser("serve", help="serve a model with OpenAI's API (needs the extra 'serve')")
    serve.add_argument("--model", default="nano", help="nano (the embedded one), a folder or a hub id")
    device_options(serve)
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines")
    serve.add_argument("--port", type=positive, default=8000)
    serve.add_argument("--api-key", default=os.environ.get("VARYTOY_API_KEY", ""), help="default: $VARYTOY_API_KEY")
    serve.add_argument("--together", type=positive, default=8, help="requests that are worked on at once")
    serve.add_argument("--queue", type=positive, default=64, help="requests that may wait; more get the status 429")
    serve.add_argument("--allow-urls", action="store_true", help="also fetch images from the public web")
    serve.add_argument("--timeout", type=positive, default=600, help="seconds for one request")
    serve.add_argument("--max-new-tokens", type=positive, default=1024, help="longest answer to an image or line")
    serve.set_defaults(run=_serve)

    doctor = programs.add_parser("doctor", help="check this machine and suggest fixes")
    doctor.add_argument("--no-build", action="store_true", help="do not compile DeepSpeed's extension (minutes, once)")
    doctor.set_defaults(run=_doctor)

    convert = programs.add_parser("convert", help="convert a third-party checkpoint")
    convert.add_argument("source", metavar="SOURCE", help="a folder, a file of weights or a hub id")
    convert.add_argument("out", metavar="OUT", help="a new folder")
    convert.add_argument("--dtype", choices=DTYPE_NAMES, default="", help="default: unchanged")
    convert.set_defaults(run=_convert)

    export = programs.add_parser("export", help="export a checkpoint for other engines")
    export.add_argument("format", choices=("got", "decoder", "onnx"), help=_FORMATS)
    export.add_argument("model", metavar="MODEL", help="a folder")
    export.add_argument("out", metavar="OUT", help="a new folder")
    export.add_argument("--size", type=positive, default=0, help="onnx: pixels of a side (default: the model's)")
    export.set_defaults(run=_export)

    vocabulary = programs.add_parser("export-vocab", help="write only the vision vocabulary of a checkpoint")
    vocabulary.add_argument("model", metavar="MODEL", help="a folder or a file of weights")
    vocabulary.add_argument("out", metavar="OUT", help="a new folder")
    vocabulary.set_defaults(run=_export_vocabulary)

    joined = programs.add_parser("import-vocab", help="replace the vision vocabulary of a model")
    joined.add_argument("source", metavar="SOURCE", help="a folder or a file of weights")
    joined.add_argument("model", metavar="MODEL", help="a folder, which is not changed")
    joined.add_argument("out", metavar="OUT", help="a new folder")
    joined.set_defaults(run=_import_vocabulary)
    return parser


def _drawing_options(parser: argparse.ArgumentParser, task: str) -> None:
    if task == "generate":
        parser.add_argument("text", metavar="TEXT", help="the words to write")
        parser.add_argument("--on", dest="image", metavar="IMAGE", help="picture to write in (default: white paper)")
    else:
        parser.add_argument("image", metavar="IMAGE", help="a picture, or a PDF, whose first page is taken")
        parser.add_argument(
            "--word", default="", help="words that stand once in the picture, which is read to find them"
        )
    if task == "edit":
        parser.add_argument("--text", required=True, help="the words to write")
    parser.add_argument(
        "--box", default="", metavar="X1,Y1,X2,Y2", help="place of the text in pixels, or a frame's colour"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="picture to write, such as new.png")
    parser.add_argument("--model", default="nano", help="nano (the embedded one), a folder or a hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.set_defaults(run=_draw, task=task, **({"text": ""} if task == "erase" else {}))


def _evaluate_options(evaluation: argparse.ArgumentParser) -> None:
    from varytoy.evaluation.suites import SUITES
    from varytoy.evaluation.systems.choose import ENGINES

    suites = evaluation.add_subparsers(dest="suite", required=True, metavar="SUITE")
    for suite in SUITES.values():
        parser = suites.add_parser(suite.name, help=suite.help, description=f"{suite.help}. Expects {suite.layout}.")
        parser.add_argument("folder", type=Path, metavar="FOLDER", help="with the suite's files")
        parser.add_argument("--engine", default="varytoy", help=f"what is measured: {ENGINES}")
        parser.add_argument("--model", help="nano (default), a folder or a hub id; openai: its name there")
        device_options(parser)
        parser.add_argument("--language", help="tesseract: its code of the language (default: eng)")
        parser.add_argument("--max-new-tokens", type=positive, default=1024, help="longest answer to an image or line")
        parser.add_argument("--together", type=positive, default=TOGETHER, help="cases that are worked on at once")
        parser.add_argument("--limit", type=positive, help="so many cases, chosen by --seed (default: all)")
        parser.add_argument("--seed", type=int, default=0, help="of --limit and of the intervals")
        parser.add_argument("--out", type=Path, metavar="RUN", help="folder for answers, tables and the worst cases")
        parser.add_argument(
            "--markdown", type=Path, metavar="DIR", help="also a file a page, for the suite's own scorer"
        )
        suite.options(parser)
        parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from varytoy.evaluation.run import evaluate
    from varytoy.evaluation.suites import SUITES

    return evaluate(options, SUITES[options.suite])


def _draw(options: argparse.Namespace) -> int:
    from varytoy.inference.draw_files import draw_file

    return draw_file(options)


def _render(options: argparse.Namespace) -> int:
    from varytoy.formats.command import render

    return render(options)


def _serve(options: argparse.Namespace) -> int:
    from varytoy.serving.run import serve

    return serve(options)


def _doctor(options: argparse.Namespace) -> int:
    from varytoy.devices.doctor import report

    return 1 if report(not options.no_build) else 0


def _convert(options: argparse.Namespace) -> int:
    from varytoy import checkpoints
    from varytoy.checkpoints.loading import find

    print(f"{checkpoints.convert(find(options.source), options.out, options.dtype)}, in {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from varytoy import checkpoints

    if options.format == "onnx":
        files = checkpoints.export_onnx(options.model, options.out, options.size)
        print(f"{', '.join(file.name for file in files)} in {options.out}")
        return 0
    {"got": checkpoints.export_got, "decoder": checkpoints.export_decoder}[options.format](options.model, options.out)
    print(f"{options.model} is in {options.out}")
    return 0


def _export_vocabulary(options: argparse.Namespace) -> int:
    from varytoy import checkpoints

    checkpoints.export_vocabulary(options.model, options.out)
    print(f"the vision vocabulary of {options.model} is in {options.out}")
    return 0


def _import_vocabulary(options: argparse.Namespace) -> int:
    from varytoy import checkpoints

    checkpoints.import_vocabulary(options.source, options.model, options.out)
    print(f"{options.model} with the vision vocabulary of {options.source} is in {options.out}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options = build_parser(words[0] if words else "").parse_args(words)
    options.words = words
    try:
        return options.run(options)
    except BrokenPipeError:  # `| head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except (ValueError, OSError) as error:
        return complain(str(error))


if __name__ == "__main__":
    sys.exit(main())
