"""Rate of the PDF path beside that of pypdfium2 alone: the picture, the text layer and the image file of each page."""

import statistics
import time
from collections import Counter as Times
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from data_tools.pdf.duplicates import signature
from data_tools.pdf.guard import Guard, guarded
from data_tools.pdf.markdown import lines_in, to_markdown
from data_tools.pdf.page import draw, read_blocks, read_structure, scaled
from data_tools.pdf.pages import (
    Counter,
    PageItem,
    PageMaker,
    PageOptions,
    find_files,
    page_items,
    printed_words,
    root_of,
    stopped,
)
from data_tools.pdf.quality import check_picture, check_text
from data_tools.writer import encode
from varytoy.data.documents import open_pdf


class Rates(NamedTuple):
    """Pages a second of each process."""

    processes: int
    bare: float
    ours: float


def pages_of(folder: Path, count: int) -> list[PageItem]:
    """The first pages that make samples, of all files in turn; raises ValueError where there are none."""
    root, files = root_of(folder), find_files(folder)
    counts = [Counter(root)(file) for file in files]
    make = PageMaker(root, PageOptions(duplicates=False))
    pages = []
    for item in page_items(files, counts, (1, 3)):
        if item.number and make(item).rows:
            pages.append(item)
        if len(pages) == count:
            break
    if not pages:
        raise ValueError(f"no page of {folder} makes a sample: give other PDFs")
    return pages


class _Bare:
    """Page item -> bytes of its picture and letters of its text layer, by pypdfium2 alone."""

    def __init__(self, root: Path, options: PageOptions):
        self.root, self.options, self.open = root, options, ("", None)

    def __call__(self, item: PageItem) -> tuple[int, int]:
        if self.open[0] != item.file:
            if self.open[1] is not None:
                self.open[1].close()
            self.open = (item.file, open_pdf(self.root / item.file))
        page = self.open[1][item.number - 1]
        picture = page.render(scale=self.options.size / max(page.get_size())).to_pil()
        layer = page.get_textpage()
        text = layer.get_text_bounded()
        layer.close()
        page.close()
        return len(encode(picture, self.options.image_format)), len(text)


def measure(folder: Path, pages: Sequence[PageItem], processes: int, options: PageOptions, rounds: int = 3) -> Rates:
    """Median rates of some rounds, each of both ways in turn; starting the processes is not counted."""
    root = root_of(folder)
    ways: dict[str, Callable] = {
        "bare": _Bare(root, options),
        "ours": PageMaker(root, options),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, make in ways.items():
            rates[name].append(_rate(make, pages, processes))
    return Rates(processes, statistics.median(rates["bare"]), statistics.median(rates["ours"]))


def _rate(make: Callable, pages: Sequence[PageItem], processes: int) -> float:
    chunk = 8
    warm = list(pages[:chunk]) * processes
    with guarded(Guard(stopped))(make, [*warm, *pages], processes, chunk) as made:
        for _ in warm:
            next(made)
        started = time.perf_counter()
        for _ in made:
            pass
        return len(pages) / (time.perf_counter() - started) / processes


def shares(folder: Path, pages: Sequence[PageItem], options: PageOptions) -> list[tuple[str, float]]:
    """Milliseconds a page of each step of our path, in one process."""
    root, spent, options = root_of(folder), Times[str](), replace(options)
    before, document = "", None
    for item in pages:
        if item.file != before:
            before, document = item.file, open_pdf(root / item.file)
        clock = time.perf_counter()

        def lap(step: str) -> None:
            nonlocal clock
            now = time.perf_counter()
            spent[step] += now - clock
            clock = now

        page = document[item.number - 1]
        lap("load the page")
        layer, drawing = read_structure(page)
        lap("read characters and rules")
        check_text(layer, drawing, options.limits)
        lap("check the text layer")
        picture, pixels = draw(page, item.file, options.size, options.dpi)
        lap("render")
        seen = check_picture(pixels, layer, options.limits)
        lap("check what is seen")
        encode(picture, options.image_format)
        lap("encode the picture")
        blocks, body = read_blocks(seen, drawing)
        lap("find tables, order and blocks")
        to_markdown(blocks, body)
        lines = lines_in(blocks)
        words = [word for line in lines for word in printed_words(line)]
        scaled([line.box for line in lines], layer), scaled([box for _, box in words], layer)
        lap("write text, markdown and boxes")
        signature(text for text, _ in words)
        lap("sign for near-duplicates")
        page.close()
    return [(step, 1000 * seconds / len(pages)) for step, seconds in spent.most_common()]
