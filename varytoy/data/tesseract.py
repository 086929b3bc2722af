"""Tesseract, the program: what it reads on a page."""

import csv
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from varytoy.data.boxes import Coordinates, around
from varytoy.data.pictures import DocumentError

_LONGEST = 120
"""Seconds for Tesseract to read a page."""
Line = tuple[str, str, str]
"""Numbers of a word's block, paragraph and line."""


def check_tesseract() -> None:
    """Raises DocumentError where Tesseract is not installed."""
    if not shutil.which("tesseract"):
        raise DocumentError("Tesseract is not installed: install the package tesseract-ocr.")


def tesseract_version() -> str:
    """Raises DocumentError as ``check_tesseract``."""
    check_tesseract()
    said = subprocess.run(["tesseract", "--version"], capture_output=True, text=True, timeout=_LONGEST)
    return (said.stdout or said.stderr).split("\n")[0].removeprefix("tesseract").strip()


def tesseract(image: Image.Image, output: str = "txt") -> str:
    """What Tesseract reads, as ``txt`` or ``tsv``. Raises DocumentError where it is not installed or fails."""
    return _run(image, (output,))[output]


def read_lines(image: Image.Image, mode: int = 3, language: str = "eng") -> tuple[str, list[tuple[str, Coordinates]]]:
    """The text, and each line of it with its box, xyxy in pixels. ``mode``: Tesseract's page segmentation mode, 3 for
    pages, 6 for a block of text. Raises DocumentError."""
    found = _run(image, ("txt", "tsv"), "--psm", str(mode), "-l", language)
    lines: dict[Line, list[tuple[str, Coordinates]]] = {}
    for line, text, box in words_in(found["tsv"]):
        lines.setdefault(line, []).append((text, box))
    return found["txt"], [
        (" ".join(text for text, _ in words), around([box for _, box in words])) for words in lines.values()
    ]


def read_word(image: Image.Image) -> str:
    """What stands in a picture of one line, without help of Tesseract's dictionaries. Raises DocumentError."""
    alone = ("-c", "load_system_dawg=0", "-c", "load_freq_dawg=0")
    return _run(image, ("txt",), "--psm", "7", *alone)["txt"].strip()


def words_in(table: str) -> Iterator[tuple[Line, str, Coordinates]]:
    """(line, text, box) of each word of Tesseract's ``tsv``; xyxy in pixels."""
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        if (row["text"] or "").strip():
            left, top, width, height = (int(row[name]) for name in ("left", "top", "width", "height"))
            line = (row["block_num"], row["par_num"], row["line_num"])
            yield line, row["text"], (left, top, left + width, top + height)


def _run(image: Image.Image, outputs: tuple[str, ...], *options: str) -> dict[str, str]:
    """What Tesseract writes in each format."""
    check_tesseract()
    png = io.BytesIO()
    image.save(png, "PNG")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "page"
        try:
            command = ["tesseract", "stdin", str(target), "--dpi", "150", *options, *outputs]
            # Its threads wait for each other more than they help, most of all beside other work.
            own = {"OMP_THREAD_LIMIT": "1", **os.environ}
            subprocess.run(command, input=png.getvalue(), capture_output=True, check=True, timeout=_LONGEST, env=own)
            return {output: target.with_suffix(f".{output}").read_text(encoding="utf-8") for output in outputs}
        except subprocess.CalledProcessError as error:
            said = " ".join(error.stderr.decode(errors="replace").split())
            raise DocumentError(f"Tesseract failed: {said[-200:].rstrip('.')}.") from None
        except subprocess.TimeoutExpired:
            raise DocumentError(f"Tesseract took more than {_LONGEST} s.") from None
