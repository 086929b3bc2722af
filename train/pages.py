"""Whole pages: compare the model with Tesseract on a folder of ``NAME.pdf`` with ``NAME.txt``."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from varytoy.data.documents import open_pages
from varytoy.data.sample import SampleError
from varytoy.data.tesseract import check_tesseract, tesseract
from varytoy.inference.reader import Reader
from varytoy.tasks import metrics


@dataclass
class PageScore:
    name: str
    ours: float
    seconds: float
    tesseract: float | None


def with_texts(folder: Path, pattern: str) -> list[tuple[Path, str]]:
    """The files of a folder, by name, each with the text of its ``.txt``.

    Raises:
        FileNotFoundError: there are no files, or a text is missing.
        SampleError: a text is not UTF-8.
    """
    pairs = []
    for path in sorted(folder.glob(pattern)):
        text_file = path.with_suffix(".txt")
        if not text_file.is_file():
            raise FileNotFoundError(f"no {text_file}, the true text of {path.name}")
        try:
            pairs.append((path, text_file.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise SampleError(f"{text_file}: not UTF-8 (byte {error.start}): save it as UTF-8") from error
    if not pairs:
        raise FileNotFoundError(f"no {pattern} in {folder}")
    return pairs


def score_pages(reader: Reader, files: Sequence[tuple[Path, str]], dpi: int = 150, beside: bool = True):
    """Yield the normalised edit distance of each page to its text, for the model and Tesseract."""
    for path, truth in files:
        image = next(iter(open_pages(path, [1], dpi))).image
        start = time.perf_counter()
        ours = metrics.normalised_edit_distance(reader.read_page(image).text, truth)
        seconds = time.perf_counter() - start
        other = metrics.normalised_edit_distance(tesseract(image), truth) if beside else None
        yield PageScore(path.stem, ours, seconds, other)


def report(model: str, folder: Path, limit: int | None = None) -> None:
    """Print a line for each page and the means."""
    files = with_texts(folder, "*.pdf")[:limit]
    check_tesseract()
    scores = []
    print(f"{'page':<24} {'vary':>6} {'Tesseract':>9} {'s':>6}")
    for score in score_pages(Reader.from_pretrained(model), files):
        scores.append(score)
        print(f"{score.name:<24} {score.ours:6.3f} {score.tesseract:9.3f} {score.seconds:6.1f}", flush=True)
    ours = metrics.mean(score.ours for score in scores)
    other = metrics.mean(score.tesseract for score in scores)
    print(
        f"{'mean of ' + str(len(scores)):<24} {ours:6.3f} {other:9.3f} {metrics.mean(s.seconds for s in scores):6.1f}"
    )
