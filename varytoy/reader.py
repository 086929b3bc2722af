"""The high-level interface. ``from varytoy.reader import Reader; Reader.from_pretrained("nano").ocr("page.png")``."""

from varytoy.checkpoints.loading import ModelError
from varytoy.inference.reader import Reader

__all__ = ["ModelError", "Reader"]
