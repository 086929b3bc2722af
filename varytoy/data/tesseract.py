"""Tesseract, the program: what it reads on a page."""

import io
import shutil
import subprocess

from PIL import Image

from varytoy.data.pictures import DocumentError

_LONGEST = 120
"""Seconds for Tesseract to read a page."""


def check_tesseract() -> None:
    """Raises DocumentError where Tesseract is not installed."""
    if not shutil.which("tesseract"):
        raise DocumentError("Tesseract is not installed: install the package tesseract-ocr.")


def tesseract(image: Image.Image, output: str = "txt") -> str:
    """What Tesseract reads, as ``txt`` or ``tsv``. Raises DocumentError where it is not installed or fails."""
    check_tesseract()
    png = io.BytesIO()
    image.save(png, "PNG")
    try:
        command = ["tesseract", "stdin", "stdout", "--dpi", "150", output]
        found = subprocess.run(command, input=png.getvalue(), capture_output=True, check=True, timeout=_LONGEST)
        return found.stdout.decode()
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.decode(errors="replace").split())
        raise DocumentError(f"Tesseract failed: {said[-200:].rstrip('.')}.") from None
    except subprocess.TimeoutExpired:
        raise DocumentError(f"Tesseract took more than {_LONGEST} s.") from None
