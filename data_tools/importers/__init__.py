"""Importers of third-party data. A new importer is a file with a class that registers itself
(data_tools/program.py), imported here."""

from data_tools.importers import (
    coco,
    entities,
    flickr30k,
    llava,
    objects365,
    olmocr,
    openimages,
    questions,
    refcoco,
    text,
)
from data_tools.importers.base import Importer

__all__ = [
    "Importer", "coco", "entities", "flickr30k", "llava", "objects365", "olmocr", "openimages", "questions", "refcoco",
    "text",
]  # fmt: skip
