"""Importers of third-party data. A new importer is a file with a class that registers itself
(data_tools/program.py), imported here."""

from data_tools.importers import coco, entities, llava
from data_tools.importers.base import Importer

__all__ = ["Importer", "coco", "entities", "llava"]
