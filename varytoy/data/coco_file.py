"""Annotation files in COCO's form: ``{"images": [{"id", "file_name", "width", "height"}], "annotations": [{"id",
"image_id", "category_id", "bbox": [x, y, width, height], "iscrowd"}], "categories": [{"id", "name"}]}``."""

import contextlib
import io
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from varytoy.data.boxes import check_label
from varytoy.data.json_stream import stream_json

FORM = "COCO's instances (images, annotations, categories)"
_NO_BOX = (float("nan"),) * 4
Objects = list[tuple[int, Any, Any, bool]]
"""Number of the annotation, class id, box (x, y, width, height) and whether it is a crowd, for each object."""
INVALID = "not a valid sample"


class BadRecord(NamedTuple):
    """A record that is not of the form: its place (``FILE annotation 3``), the kind of fault, and what is wrong."""

    where: str
    kind: str
    reason: str


@dataclass
class CocoFile:
    """What a file holds.

    Attributes:
        images: id -> (file name, width, height), in the order of the file.
        classes: id -> name.
        boxes: id of an image -> its objects.
        bad: records that are not of the form.
    """

    images: dict[int, tuple[str, Any, Any]] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    boxes: Callable[[int], Objects] = lambda image: []
    bad: list[BadRecord] = field(default_factory=list)


def read_coco(file: Path) -> CocoFile:
    """The index that pycocotools makes, without the polygons, which are most of a file. Raises ValueError, OSError."""
    from pycocotools.coco import COCO

    found = CocoFile()
    annotations = list(_annotations(file, found))
    index = COCO()
    index.dataset = {
        "images": [{"id": image} for image in found.images],
        "annotations": annotations,
        "categories": [{"id": kind, "name": name} for kind, name in found.classes.items()],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        index.createIndex()
    for image in index.imgToAnns.keys() - found.images.keys():
        found.bad += [_stray(file, each["id"], image) for each in index.imgToAnns[image]]

    def boxes(image: int) -> Objects:
        return [
            (each["id"], each["category_id"], each["bbox"], each["iscrowd"]) for each in index.imgToAnns.get(image, [])
        ]

    found.boxes = boxes
    return found


def read_large_coco(file: Path) -> CocoFile:
    """As ``read_coco``, in arrays, without objects for each box: 75 bytes a box, 300 an image. Boxes lose what is
    beyond single precision. Raises ValueError, OSError."""
    import numpy

    found = CocoFile()
    numbers, images, kinds, crowds, sides = array("q"), array("q"), array("q"), array("b"), array("f")
    for annotation in _annotations(file, found):
        numbers.append(annotation["id"])
        images.append(annotation["image_id"])
        kinds.append(annotation["category_id"])
        crowds.append(annotation["iscrowd"])
        box = annotation["bbox"]
        fits = isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)
        sides.extend(box if fits else _NO_BOX)
    of_image = numpy.frombuffer(images, numpy.int64) if images else numpy.zeros(0, numpy.int64)
    order = numpy.argsort(of_image, kind="stable")
    ordered = of_image[order]
    for place in order[~numpy.isin(ordered, numpy.fromiter(found.images, numpy.int64, len(found.images)))]:
        found.bad.append(_stray(file, numbers[place], images[place]))

    def boxes(image: int) -> Objects:
        first, last = numpy.searchsorted(ordered, [image, image + 1])
        return [
            (numbers[place], kinds[place], list(sides[4 * place : 4 * place + 4]), bool(crowds[place]))
            for place in sorted(order[first:last].tolist())
        ]

    found.boxes = boxes
    return found


def class_name(name: object) -> str:
    """The name as an answer can hold it. Raises ValueError for one that cannot be written."""
    text = " ".join(str(name).split())
    text.encode()  # raises for half of a character
    check_label(text)
    if not text or "," in text:
        raise ValueError(f"the name {text!r} cannot stand in a list of classes")
    return text


def corners(box: Any) -> list:
    """COCO's x, y, width, height -> x1, y1, x2, y2; what is no box stays as it is, for those who check it."""
    try:
        x, y, width, height = box
        return [x, y, x + width, y + height]
    except (TypeError, ValueError):
        return box if isinstance(box, list) else [box]


def _stray(file: Path, number: int, image: int) -> BadRecord:
    return BadRecord(f"{file} annotation {number}", "box of an unknown image", f"there is no image {image}")


def _annotations(file: Path, found: CocoFile) -> Iterator[dict]:
    """The annotations that are of the form; fills in images, classes and bad records on the way.

    Raises:
        ValueError: the file lacks one of the three lists, or is not JSON.
    """
    seen = set()
    for key, number, record in stream_json(file, FORM):
        seen.add(key)
        if not number or key not in ("images", "annotations", "categories"):
            continue
        try:
            if key == "images":
                size = record.get("width"), record.get("height")
                if _whole(record["id"]) in found.images:
                    raise ValueError(f"a second image has the id {record['id']}")
                found.images[record["id"]] = (str(record["file_name"]), *size)
            elif key == "categories":
                found.classes[_whole(record["id"])] = class_name(record["name"])
            else:
                yield {
                    "id": _whole(record.get("id", number)),
                    "image_id": _whole(record["image_id"]),
                    "category_id": _whole(record["category_id"]),
                    "bbox": record["bbox"],
                    "iscrowd": bool(record.get("iscrowd", 0)),
                }
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"no key {error}" if isinstance(error, KeyError) else error
            found.bad.append(BadRecord(f"{file} entry {number} of '{key}'", INVALID, str(reason)))
    missing = {"images", "annotations", "categories"} - seen
    if missing:
        raise ValueError(f"{file} has no {sorted(missing)[0]}: give {FORM}")


def _is_number(side: object) -> bool:
    return type(side) in (int, float) and abs(side) < 1e30  # what an array of single precision holds; not NaN


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) >= 2**62:
        raise ValueError(f"{str(value)[:80]!r} is not a whole number")
    return value
