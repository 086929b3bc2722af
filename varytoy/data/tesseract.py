"""Tesseract, the program: what it reads on a page."""

import csv
import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from varytoy.data.pictures import DocumentError

_LONGEST = 120
"""Seconds for Tesseract to read a page."""
_WORD = "5"
"""Tesseract's level of a word in its table."""


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


def read_lines(
    image: Image.Image, mode: int = 3, language: str = "eng"
) -> tuple[str, list[tuple[str, tuple[int, int, int, int]]]]:
    """The text, and each line of it with its box, xyxy in pixels. ``mode``: Tesseract's page segmentation mode, 3 for
    pages, 6 for a block of text. Raises DocumentError."""
    found = _run(image, ("txt", "tsv"), "--psm", str(mode), "-l", language)
    lines: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(found["tsv"]), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] == _WORD and (row["text"] or "").strip():
            key = tuple(row[name] for name in ("block_num", "par_num", "line_num"))
            lines.setdefault(key, []).append(row)
    return found["txt"], [(" ".join(row["text"] for row in rows), _around(rows)) for rows in lines.values()]


def _around(rows: list[dict[str, str]]) -> tuple[int, int, int, int]:
    sides = [[int(row[name]) for name in ("left", "top", "width", "height")] for row in rows]
    left, top = min(side[0] for side in sides), min(side[1] for side in sides)
    return left, top, max(side[0] + side[2] for side in sides), max(side[1] + side[3] for side in sides)


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
