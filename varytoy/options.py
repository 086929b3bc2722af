"""Command-line options shared by several programs. Imports no torch, so that ``--help`` is quick."""

import argparse

DTYPE_NAMES = ("fp32", "fp16", "bf16")
QUANTIZED = ("int8", "nf4")


def device_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``Reader.from_pretrained``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", choices=("auto", *DTYPE_NAMES), default="auto", help="weight dtype")
    parser.add_argument("--quantize", choices=QUANTIZED, default="", help="quantize the decoder (needs bitsandbytes)")


def positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= len(text) <= 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)
