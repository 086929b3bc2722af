"""RefCOCO, RefCOCO+ and RefCOCOg: phrases of people for one object of a photograph, as the files of refer hold them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from varytoy.data.coco_file import CocoFile
from varytoy.data.plain_pickle import read_plain_pickle

FORM = "RefCOCO's refs(unc).p or RefCOCOg's refs(umd).p"


class Reference(NamedTuple):
    """Phrases for one object.

    Attributes:
        image: file name, width and height; None for one that instances.json lacks.
        box: x, y, width, height in pixels; None for one that instances.json lacks.
    """

    number: int
    split: str
    image: tuple[str, Any, Any] | None
    box: Any
    phrases: list[str]


def read_refs(file: Path) -> list:
    """The records of the pickle. Raises ValueError, OSError."""
    refs = read_plain_pickle(file, FORM)
    if not isinstance(refs, list):
        raise ValueError(f"{file} is not a list: give {FORM}")
    return refs


def references(file: Path, refs: list, source: CocoFile) -> Iterator[tuple[str, Reference | ValueError]]:
    """The place of each record (``FILE entry 3``), and the record, or what is wrong with it.

    Args:
        source: instances.json.
    """
    boxes = {number: box for image in source.images for number, _, box, _ in source.boxes(image)}
    for number, ref in enumerate(refs, 1):
        where = f"{file} entry {number}"
        try:
            if not isinstance(ref["split"], str) or type(ref["image_id"]) is not int:
                raise TypeError("split must be a text and image_id a whole number")
            phrases = [sentence["sent"] for sentence in ref["sentences"]]
            if type(ref["ref_id"]) is not int or not all(isinstance(phrase, str) for phrase in phrases):
                raise TypeError("ref_id must be a whole number and each sent a text")
            image, box = source.images.get(ref["image_id"]), boxes.get(ref["ann_id"])
            yield where, Reference(ref["ref_id"], ref["split"], image, box, phrases)
        except (KeyError, TypeError, AttributeError) as error:
            yield where, ValueError(f"no key {error}" if isinstance(error, KeyError) else str(error))


def file_names(name: str) -> tuple[str, str]:
    """What an image is called: train2014's name, and train2017's, which lacks COCO_train2014_."""
    return name, name.rpartition("_")[2]
