"""The system that the command line names."""

import argparse

from varytoy.evaluation.systems.base import System
from varytoy.options import reader_options

ENGINES = "varytoy, tesseract, rapidocr (PP-OCRv6), rapidocr-v4, openai:URL"


def choose(options: argparse.Namespace, block: bool = False) -> System:
    """The system of ``--engine``. ``block``: whether images are single blocks of text.

    Raises:
        ValueError: there is none of that name, or something it needs is missing.
    """
    engine = options.engine
    _check(options)
    if engine == "varytoy":
        from varytoy.evaluation.systems.reader import ReaderSystem
        from varytoy.inference.reader import Reader

        options.model = options.model or "nano"
        reader = Reader.from_pretrained(*reader_options(options))
        return ReaderSystem(reader, options.together, options.max_new_tokens)
    if engine == "tesseract":
        from varytoy.evaluation.systems.tesseract import Tesseract

        return Tesseract(block, options.language or "eng")
    if engine in ("rapidocr", "rapidocr-v4"):
        from varytoy.evaluation.systems.rapidocr import RapidOcr, RapidOcrV4

        return RapidOcr() if engine == "rapidocr" else RapidOcrV4()
    if engine.startswith("openai:"):
        from varytoy.evaluation.systems.served import Served

        return Served(engine.removeprefix("openai:"), options.model or "", options.max_new_tokens)
    raise ValueError(f"--engine: no engine '{engine}'; there are {ENGINES}")


def _check(options: argparse.Namespace) -> None:
    """Raises ValueError for an option that the engine does not take."""
    kind = options.engine.partition(":")[0]
    takers = {"model": ("varytoy", "openai"), "language": ("tesseract",)}
    takers |= dict.fromkeys(("device", "dtype", "quantize", "runtime"), ("varytoy",))
    usual = {"device": "auto", "dtype": "auto", "runtime": "torch"}
    for name, engines in takers.items():
        if kind not in engines and (getattr(options, name) or None) != usual.get(name):
            raise ValueError(f"--{name} is not for --engine {options.engine}: leave it out")
