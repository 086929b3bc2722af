"""``openimages``: Open Images' boxes, CSV with a line a box, and the names of its classes beside it."""

import csv
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_tools.importers.base import Dropped, Entry, Importer, folder_of
from data_tools.importers.objects import (
    GROUP,
    Labelled,
    check_turn,
    in_lower_case,
    numbered,
    object_options,
    object_rows,
)
from data_tools.program import register
from data_tools.writer import generator
from varytoy.data.coco_file import class_name
from varytoy.data.questions import first_file

_COLUMNS = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_SIDES = ("XMin", "YMin", "XMax", "YMax")
_NAMES = "class-descriptions-boxable.csv"
INSIDE, APART = "box of an object that is seen from inside", "image with boxes in two places of the file"


@register
class OpenImages(Importer):
    name = "openimages"
    help = "import Open Images' boxes as detection and grounding"
    licence = "annotations CC-BY-4.0 (Google); photographs CC-BY-2.0, as Flickr's users state"
    takes = "oidv6-train-annotations-bbox.csv"

    def options(self, parser):
        super().options(parser)
        help = f"names of the classes (default: {_NAMES} beside the annotations)"
        parser.add_argument("--classes", type=Path, metavar="FILE", help=help)
        object_options(parser)

    def groups(self, options):
        file = options.classes or options.annotations.parent / _NAMES
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {file}: give --classes Open Images' {_NAMES}")
        names = _class_names(file)
        return _images(options.annotations, names)

    def rows(self, entry, options):
        image, objects = entry.record
        folder = folder_of(options)
        name = first_file(
            folder,
            *(f"{part}{image}.jpg" for part in ("", f"train_{image[:1]}/", "train/", "validation/", "test/")),
        )
        check_turn(folder / name)
        rng = None if options.evaluate else generator(options.seed, self.name, image)
        yield from numbered(object_rows(objects, 1.0, 1.0, rng), image, name)


def _class_names(file: Path) -> dict[str, str]:
    """Open Images' code of a class, ``/m/01g317``, -> its name."""
    names = {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for number, line in enumerate(csv.reader(lines), 1):
            try:
                code, name = line
                names[code] = class_name(in_lower_case(name))
            except ValueError as error:
                raise ValueError(f"{file} line {number} is not a code and a name ({error}): give {_NAMES}") from error
    return names


def _images(file: Path, names: Mapping[str, str]) -> Iterator[list[Entry]]:
    """An entry an image. The boxes of an image follow each other in the file, which is read a line at a time; the names
    of images behind are kept, 200 MB for Open Images' 1.7 million."""
    behind: set[str] = set()
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        missing = [name for name in _COLUMNS if name not in header]
        if missing:
            raise ValueError(f"{file} has no column {missing[0]}: give Open Images' boxes, such as {OpenImages.takes}")
        rows = ((reader.line_num, dict(zip(header, row, strict=False))) for row in _read(reader, file) if row)
        for image, group in itertools.groupby(rows, lambda row: row[1].get("ImageID", "")):
            boxes = list(group)
            where = f"{file} line {boxes[0][0]}"
            if image in behind:
                error = Dropped(APART, f"{len(boxes)} boxes of {image}, of which others are further up: sort the file")
                yield [Entry(where, error)]
            else:
                behind.add(image)
                yield [Entry(where, (image, [_labelled(line, row, names) for line, row in boxes]))]


def _read(reader, file: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num} is not CSV ({error}): mend the line") from error


def _labelled(line: int, row: Mapping[str, str], names: Mapping[str, str]) -> Labelled:
    left_out = GROUP if row.get("IsGroupOf") == "1" else INSIDE if row.get("IsInside") == "1" else ""
    kind = row.get("LabelName", "")
    return Labelled(f"line {line}", names.get(kind), [_number(row.get(side, "")) for side in _SIDES], left_out, kind)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
