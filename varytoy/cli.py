"""``varytoy read FILE…``: the command line."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from varytoy.documents import DocumentError, Page, open_pages
from varytoy.reader import Reader, find
from varytoy.runtime import DTYPES, QUANTIZED
from varytoy.tasks import TASKS, Answer

_FORMATS = "got: transformers' GOT-OCR2 (models without CLIP); decoder: a stock folder of its kind; onnx: the branches"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="varytoy", description="Small vision-language models that read.")
    programs = parser.add_subparsers(dest="program", required=True, metavar="COMMAND")
    read = programs.add_parser("read", help="read pictures and PDF files, or ask about them")
    read.add_argument("files", nargs="+", metavar="FILE")
    read.add_argument("--page", type=int, help="only this page, counted from 1 (default: all)")
    read.add_argument("--task", choices=list(TASKS), help="what to do (default: ocr, or chat with --prompt)")
    read.add_argument("--prompt", default="", help="the phrase to ground, the question, the classes, or free words")
    read.add_argument("--model", default="nano", help="nano (the embedded one), a folder or a hub id")
    device_options(read)
    read.add_argument("--max-new-tokens", type=_positive, default=1024, help="longest answer to one picture or block")
    read.add_argument("--json", action="store_true", help="one JSON object a line")
    read.set_defaults(run=read_files)

    doctor = programs.add_parser("doctor", help="look what works on this machine, and how to mend what does not")
    doctor.add_argument("--no-build", action="store_true", help="do not compile DeepSpeed's part (minutes, once)")
    doctor.set_defaults(run=_doctor)

    convert = programs.add_parser("convert", help="make a model of varytoy of somebody else's checkpoint")
    convert.add_argument("source", metavar="SOURCE", help="a folder, a file of weights or a hub id")
    convert.add_argument("out", metavar="OUT", help="a new folder")
    convert.add_argument("--dtype", choices=tuple(DTYPES), default="", help="default: as it is")
    convert.set_defaults(run=_convert)

    export = programs.add_parser("export", help="write a model of varytoy for other engines")
    export.add_argument("format", choices=("got", "decoder", "onnx"), help=_FORMATS)
    export.add_argument("model", metavar="MODEL", help="a folder")
    export.add_argument("out", metavar="OUT", help="a new folder")
    export.add_argument("--size", type=_positive, default=0, help="onnx: pixels of a side (default: the model's)")
    export.set_defaults(run=_export)

    vocabulary = programs.add_parser("export-vocab", help="write the vision vocabulary of any checkpoint alone")
    vocabulary.add_argument("model", metavar="MODEL", help="a folder or a file of weights")
    vocabulary.add_argument("out", metavar="OUT", help="a new folder")
    vocabulary.set_defaults(run=_export_vocabulary)

    joined = programs.add_parser("import-vocab", help="give a model of varytoy the vision vocabulary of a checkpoint")
    joined.add_argument("source", metavar="SOURCE", help="a folder or a file of weights")
    joined.add_argument("model", metavar="MODEL", help="a folder, which stays as it is")
    joined.add_argument("out", metavar="OUT", help="a new folder")
    joined.set_defaults(run=_import_vocabulary)
    return parser


def device_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``Reader.from_pretrained``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto", help="numbers that weights are kept in")
    parser.add_argument("--quantize", choices=QUANTIZED, default="", help="pack the decoder (needs bitsandbytes)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def read_files(options: argparse.Namespace) -> int:
    """Read every file; what goes wrong with one does not stop the others. Returns the exit code."""
    task = TASKS[options.task or ("chat" if options.prompt else "ocr")]
    try:
        task.prompt(options.prompt)
        reader = Reader.from_pretrained(options.model, options.device, options.dtype, options.quantize)
    except ValueError as error:
        return _complain(str(error))
    if options.quantize and not reader.precision.quantize:
        _complain(reader.precision.reason)
    failed = False
    for name in options.files:
        try:
            for page in open_pages(Path(name), [options.page] if options.page is not None else None):
                _read_page(reader, name, page, task.name, options)
        except (ValueError, RuntimeError) as error:
            failed = True
            _complain(str(error) if isinstance(error, DocumentError) else f"{name}: {error}")
            if options.json:
                print(json.dumps({"file": name, "error": str(error)}, ensure_ascii=False), flush=True)
    return 2 if failed else 0


def _read_page(reader: Reader, name: str, page: Page, task: str, options: argparse.Namespace) -> None:
    start = time.perf_counter()
    answer = reader.ask(page.image, task, options.prompt, max_new_tokens=options.max_new_tokens)
    seconds = time.perf_counter() - start
    if options.json:
        print(json.dumps(_row(reader, name, page, answer, seconds), ensure_ascii=False), flush=True)
        return
    print(answer.text, flush=True)
    if answer.stop_reason == "loop":
        _complain(f"{name} page {page.number}: the model began to repeat itself and was stopped")
    elif answer.stop_reason == "length":
        _complain(f"{name} page {page.number}: the answer was cut; give a larger --max-new-tokens")


def _row(reader: Reader, name: str, page: Page, answer: Answer, seconds: float) -> dict:
    return {
        "file": name,
        "page": page.number,
        "text": answer.text,
        "boxes": [{"label": label, "box": list(xyxy)} for label, xyxy in answer.boxes],
        "stop_reason": answer.stop_reason,
        "confidence": None if answer.confidence is None else round(answer.confidence, 4),
        "seconds": round(seconds, 3),
        "model": reader.name,
    }


def _doctor(options: argparse.Namespace) -> int:
    from varytoy.doctor import report

    return 1 if report(not options.no_build) else 0


def _convert(options: argparse.Namespace) -> int:
    from varytoy import weights

    print(f"{weights.convert(find(options.source), options.out, options.dtype)}, in {options.out}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from varytoy import weights

    if options.format == "onnx":
        files = weights.export_onnx(options.model, options.out, options.size)
        print(f"{', '.join(file.name for file in files)} in {options.out}")
        return 0
    {"got": weights.export_got, "decoder": weights.export_decoder}[options.format](options.model, options.out)
    print(f"{options.model} is in {options.out}")
    return 0


def _export_vocabulary(options: argparse.Namespace) -> int:
    from varytoy import weights

    weights.export_vocabulary(options.model, options.out)
    print(f"the vision vocabulary of {options.model} is in {options.out}")
    return 0


def _import_vocabulary(options: argparse.Namespace) -> int:
    from varytoy import weights

    weights.import_vocabulary(options.source, options.model, options.out)
    print(f"{options.model} with the vision vocabulary of {options.source} is in {options.out}")
    return 0


def _complain(sentence: str) -> int:
    print(f"varytoy: {sentence}", file=sys.stderr)
    return 2


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except BrokenPipeError:  # `| head`: what is left to write has no reader
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        return _complain(str(error))


if __name__ == "__main__":
    sys.exit(main())
