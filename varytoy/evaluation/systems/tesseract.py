"""Tesseract, the program."""

from varytoy.data.boxes import Box
from varytoy.data.tesseract import read_lines, tesseract_version
from varytoy.evaluation.case import Prediction
from varytoy.evaluation.systems.base import System


class Tesseract(System):
    """Debian's or another Tesseract, by its command line.

    Args:
        block: whether images are single blocks of text (``--psm 6``) and not whole pages.
        language: its code for Tesseract, such as ``eng`` or ``deu+fra``.
    """

    name = "tesseract"
    tasks = ("ocr", "markdown", "spot")  # of markdown the plain text

    def __init__(self, block: bool = False, language: str = "eng"):
        self.block, self.language = block, language
        self.version = tesseract_version()

    def answer(self, case, image):
        text, lines = read_lines(image, 6 if self.block else 3, self.language)
        boxes = tuple(Box.from_pixels(line, box, *image.size) for line, box in lines)
        return Prediction(text.strip(), boxes)
