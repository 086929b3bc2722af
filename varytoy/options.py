"""Command-line options shared by several programs. Imports no torch, so that ``--help`` is quick."""

import argparse

DTYPE_NAMES = ("fp32", "fp16", "bf16")
QUANTIZED = ("int8", "nf4", "dynamic-int8")
RUNTIMES = ("torch", "onnx", "transformers")
DRAFTS = ("model", "pdf", "tesseract")
"""Where drafts of text come from: the model's own head for letters, a PDF's text layer, Tesseract."""


def device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``Reader.from_pretrained``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", choices=("auto", *DTYPE_NAMES), default="auto", help="weight dtype")
    help = "of the decoder: int8 and nf4 need bitsandbytes, dynamic-int8 is for a CPU"
    parser.add_argument("--quantize", choices=QUANTIZED, default="", help=help)
    help = "onnx: the image encoders in ONNX Runtime on a CPU (extra 'onnx'); transformers: GOT-OCR2 in its own class"
    parser.add_argument("--runtime", choices=RUNTIMES, default="torch", help=help)


def reader_options(options: argparse.Namespace) -> tuple[str, str, str, str, str]:
    """The arguments of ``Reader.from_pretrained``."""
    return options.model, options.device, options.dtype, options.quantize, options.runtime


def positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= len(text) <= 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)
