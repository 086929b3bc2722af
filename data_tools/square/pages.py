"""Take in pictures: files, PDFs and samples become pages in one folder, each with the text that a reader finds."""

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data_tools.render.truth import Truth
from data_tools.square.items import Page
from data_tools.square.replies import whole_lines
from varytoy.data.documents import DocumentError, open_pages
from varytoy.data.sample import Sample, SampleError
from varytoy.data.samples import read_samples
from varytoy.data.shards import SUFFIX
from varytoy.evaluation.case import Case
from varytoy.evaluation.run_folder import replace_lines
from varytoy.evaluation.systems import choose

PAGES, TEXTS = "pages.jsonl", "texts.jsonl"
OCR = ("none", "varytoy", "tesseract", "rapidocr", "samples")
_LONGEST_TEXT = 6000
"""Characters of a page's text that go into a prompt."""


def take_in(source: Path, folder: Path, size: int, report: Callable[[str], None]) -> list[Page]:
    """The pages of a picture, a PDF, a folder of them, or samples; their pictures are written to ``folder/images``.
    What is there already is read, not made again.

    Args:
        size: pixels of the longer side, at most.
        report: called with a sentence on each file that cannot be read.

    Raises:
        ValueError: there is nothing to read.
        FileNotFoundError: there is no such file.
    """
    file = folder / PAGES
    if file.is_file():
        return [Page(**row) for row in map(json.loads, whole_lines(file))]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    pages: dict[str, Page] = {}
    for number, (image, name, text, truth) in enumerate(_pictures(source, report), 1):
        image = image.convert("RGB")
        image.thumbnail((size, size), Image.LANCZOS)
        data = io.BytesIO()
        image.save(data, "PNG", compress_level=4)
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        if digest in pages:
            report(f"{name}: the same picture as {pages[digest].source}; left out")
            continue
        path = f"images/{number:06d}.png"
        (folder / path).write_bytes(data.getvalue())
        pages[digest] = Page(f"{number:06d}", path, digest, name, text, truth)
    if not pages:
        raise ValueError(f"{source}: no pictures, PDFs or samples with pictures in it")
    replace_lines(file, [asdict(page) for page in pages.values()])
    return list(pages.values())


def _pictures(source: Path, report) -> Iterator[tuple[Image.Image, str, str, dict | None]]:
    """(picture, where it is from, text, truth) of each page."""
    if not source.exists():
        raise FileNotFoundError(f"no such file or folder: {source}")
    is_samples = source.suffix in (".jsonl", SUFFIX) or (source / "samples.jsonl").is_file()
    if is_samples or (source.is_dir() and any(source.glob(f"*{SUFFIX}"))):
        yield from _of_samples(source, report)
        return
    for file in sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]:
        try:
            for page in open_pages(file):
                yield page.image, f"{file.name} page {page.number}", "", None
        except (DocumentError, OSError) as error:
            report(f"{file.name} is left out: {error}")


def _of_samples(source: Path, report) -> Iterator[tuple[Image.Image, str, str, dict | None]]:
    """Samples about one picture that follow each other are one page."""
    rows: list[Sample] = []

    def page() -> Iterator[tuple[Image.Image, str, str, dict | None]]:
        try:
            if rows:
                text = next((text for row in rows if (text := _text_of(row))), "")
                truth = next((row.metadata["truth"] for row in rows if "truth" in row.metadata), None)
                if truth is not None:
                    Truth.from_json(truth)
                yield rows[0].open_images()[0], rows[0].id or rows[0].where, text, truth
        except (SampleError, KeyError, TypeError) as error:
            report(f"{rows[0].where} is left out: {error}")

    for sample in read_samples(source, on_error=lambda error: report(f"{error}; left out")):
        if len(sample.images) != 1:
            continue
        if rows and (sample.folder, sample.images) != (rows[0].folder, rows[0].images):
            yield from page()
            rows.clear()
        rows.append(sample)
    yield from page()


def _text_of(sample: Sample) -> str:
    return sample.annotations.text or (sample.answer if sample.task in ("ocr", "markdown") else "")


def read_texts(pages: list[Page], folder: Path, engine: str, report: Callable[[str], None]) -> None:
    """Give each page the text that a reader finds; one line a page is kept, so that none is read twice.

    Args:
        engine: of ``OCR``; with ``samples`` the samples' own text is kept, with ``none`` there is no text.
    """
    if engine in ("none", "samples"):
        for page in pages:
            page.text = page.text[:_LONGEST_TEXT] if engine == "samples" else ""
        return
    file = folder / TEXTS
    there = {row["id"]: row["text"] for row in map(json.loads, whole_lines(file))}
    missing = [page for page in pages if page.id not in there]
    if missing:
        options = {"engine": engine, "model": None, "language": None, "device": "auto", "dtype": "auto"}
        options |= {"quantize": "", "runtime": "torch", "together": 8, "max_new_tokens": 1024}
        reader = choose(argparse.Namespace(**options))
        cases = [Case(page.id, "ocr", folder / page.image) for page in missing]
        with file.open("a", encoding="utf-8", errors="replace") as lines:
            found = zip(missing, reader.answers(cases), strict=True)
            for page, said in tqdm(found, total=len(missing), desc=engine):
                if said.error:
                    report(f"{page.source} is not read: {said.error}")
                there[page.id] = said.text
                lines.write(json.dumps({"id": page.id, "engine": engine, "text": said.text}) + "\n")
                lines.flush()
        reader.close()
    for page in pages:
        page.text = there[page.id][:_LONGEST_TEXT]
