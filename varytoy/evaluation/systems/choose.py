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
    if engine == "varytoy":
        from varytoy.evaluation.systems.reader import ReaderSystem
        from varytoy.inference.reader import Reader

        reader = Reader.from_pretrained(*reader_options(options))
        return ReaderSystem(reader, options.together, options.max_new_tokens)
    if engine == "tesseract":
        from varytoy.evaluation.systems.tesseract import Tesseract

        return Tesseract(block, options.language)
    if engine in ("rapidocr", "rapidocr-v4"):
        from varytoy.evaluation.systems.rapidocr import RapidOcr, RapidOcrV4

        return RapidOcr() if engine == "rapidocr" else RapidOcrV4()
    if engine.startswith("openai:"):
        from varytoy.evaluation.systems.served import Served

        model = "" if options.model == "nano" else options.model
        return Served(engine.removeprefix("openai:"), model, options.max_new_tokens)
    raise ValueError(f"--engine: no engine '{engine}'; there are {ENGINES}")
