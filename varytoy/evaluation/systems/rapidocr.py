"""RapidOCR: PaddleOCR's models in ONNX Runtime, in two packages."""

import importlib.metadata
import logging

import numpy as np

from varytoy.data.boxes import Box
from varytoy.evaluation.case import Prediction
from varytoy.evaluation.systems.base import System
from varytoy.extras import require


class RapidOcr(System):
    """``rapidocr`` 3 with PP-OCRv6's small models, which its package holds."""

    name = "rapidocr"
    tasks = ("ocr", "markdown", "spot")  # of markdown the plain text

    def __init__(self):
        require("peers", "rapidocr", "onnxruntime", by="--engine rapidocr")
        from rapidocr import RapidOCR

        self.version = importlib.metadata.version("rapidocr")
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self._read = RapidOCR(params={"Global.log_level": "error"})

    def answer(self, case, image):
        return prediction(self._lines(np.asarray(image)[:, :, ::-1]), image.size)  # BGR

    def recognise(self, image) -> str:
        """What stands in a picture of one line, which is not looked for."""
        found = self._read(np.asarray(image)[:, :, ::-1], use_det=False, use_cls=False, use_rec=True)
        return " ".join(found.txts or ()).strip()

    def _lines(self, pixels):
        found = self._read(pixels)
        if found.txts is None:
            return []
        return list(zip(found.boxes, found.txts, found.scores, strict=True))


class RapidOcrV4(RapidOcr):
    """``rapidocr-onnxruntime`` 1 with PP-OCRv4's mobile models, which its package holds."""

    name = "rapidocr-v4"

    def __init__(self):
        require("peers", "rapidocr_onnxruntime", by="--engine rapidocr-v4")
        from rapidocr_onnxruntime import RapidOCR

        self.version = importlib.metadata.version("rapidocr-onnxruntime")
        self._read = RapidOCR()

    def _lines(self, pixels):
        return self._read(pixels)[0] or []


def prediction(lines, size: tuple[int, int]) -> Prediction:
    """``lines``: (corners [4, 2] in pixels, text, confidence) of each, in RapidOCR's order."""
    boxes = []
    for corners, text, _ in lines:
        points = np.asarray(corners, float)
        boxes.append(Box.from_pixels(text, (*points.min(0), *points.max(0)), *size))
    scores = [float(score) for _, _, score in lines]
    confidence = sum(scores) / len(scores) if scores else None
    return Prediction("\n".join(text for _, text, _ in lines), tuple(boxes), confidence=confidence)
