"""``python -m varytoy.bench``: speed of reading, beside transformers' ``generate`` on the same weights.

Ratios are of one run on one machine; medians of repeated, alternating runs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from varytoy.bench import pages, shapes
from varytoy.data.documents import open_pages
from varytoy.devices.machine import machine
from varytoy.devices.precision import choose_precision
from varytoy.inference.originals import OriginalEngine
from varytoy.inference.reader import Reader
from varytoy.options import device_options, positive, reader_options


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m varytoy.bench", description=__doc__)
    parser.add_argument("--model", default="nano", help="nano (the embedded one), a folder or a hub id")
    parser.add_argument("--page", type=Path, help="an image or PDF, whose first page is read (default: one is drawn)")
    parser.add_argument("--paragraphs", type=positive, default=16, help="of the drawn page")
    parser.add_argument("--shape", help="measure random weights in a preset's shape (got, vary-toy...) on drawn pages")
    parser.add_argument("--new-tokens", type=positive, default=256, help="of each answer, with --shape")
    parser.add_argument("--batch-size", type=positive, nargs="+", default=[12], help="blocks or pages read together")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="of a CPU")
    device_options(parser)
    options = parser.parse_args(words)
    if options.shape and options.runtime != "torch":
        parser.error("--runtime is for checkpoints: leave out --shape")
    torch.set_num_threads(options.threads)
    if options.shape:
        precision = choose_precision(options.device, options.dtype, options.quantize)
        model = shapes.random_model(options.shape, precision)
        name = f"random weights in the shape of {options.shape}"
    else:
        reader = Reader.from_pretrained(*reader_options(options))
        if isinstance(reader.engine, OriginalEngine):
            parser.error(f"{reader.engine.title} runs in transformers alone here: there is nothing to compare it with")
        assert reader.precision is not None
        precision, name = reader.precision, options.model
        model = reader.engine.model  # type: ignore[attr-defined]  # as from_pretrained makes it
    threads = f"{options.threads} threads, " if model.device.type == "cpu" else ""
    kind = [str(model.dtype).removeprefix("torch."), precision.quantize, options.runtime.replace("torch", "")]
    print(", ".join([name, *filter(None, kind)]))
    print(f"{machine(model.device)}, {threads}torch {torch.__version__}")
    for size in options.batch_size:
        print()
        if options.shape:
            table = shapes.compare(model, options.shape, size, options.new_tokens, options.repeats)
        else:
            page = next(iter(open_pages(options.page or pages.page(options.paragraphs))))
            table = pages.compare(reader, page, size, options.repeats)
        print("\n".join(table), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
