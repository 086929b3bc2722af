"""``flickr30k-entities``: Flickr30k Entities as it is published: ``Sentences/ID.txt`` with marked phrases and
``Annotations/ID.xml`` with boxes."""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from data_tools.importers.base import Dropped, Entry
from data_tools.importers.entities import Entities
from data_tools.importers.objects import placed
from data_tools.program import register

_MARK = re.compile(r"\[/EN#(\d+)(/[^\s\]]+) ([^\]]*)\]")
"""``[/EN#137644/people A group of friends]``; an entity may have several types."""
_UNSEEN = "0"
"""The id of what is not in the picture."""


@register
class Flickr30kEntities(Entities):
    name = "flickr30k-entities"
    help = "import Flickr30k Entities (Sentences and Annotations) as captions, phrases and boxes"
    licence = "research and education (Flickr30k Entities)"
    takes = "the folder that holds Sentences and Annotations"
    suffix = ".jpg"

    def options(self, parser):
        super().options(parser)
        help = "the images that train.txt, val.txt or test.txt beside Sentences lists (default: all)"
        parser.add_argument("--split", choices=("train", "val", "test"), help=help)

    def photos(self, options):
        return list(_photos(options.annotations, options.split))


def _photos(folder: Path, split: str | None) -> Iterator[Entry]:
    sentences = folder / "Sentences"
    if not sentences.is_dir():
        raise FileNotFoundError(f"there is no folder {sentences}: give --annotations {Flickr30kEntities.takes}")
    if split:
        names = (folder / f"{split}.txt").read_text(encoding="utf-8").split()
    else:
        names = sorted(file.stem for file in sentences.glob("*.txt"))
    for name in names:
        file = sentences / f"{name}.txt"
        try:
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            yield Entry(str(file), _photo(name, lines, folder / "Annotations" / f"{name}.xml"))
        except (OSError, ValueError) as error:
            yield Entry(str(file), Dropped("photograph without sentences or boxes", str(error)))


def _photo(name: str, lines: list[str], file: Path) -> dict:
    """As the importer ``entities`` reads it. Raises ValueError, OSError."""
    boxes, dropped = _boxes(file)
    entities: dict[str, dict] = {}
    for line in lines:
        for number, types, words in _MARK.findall(line):
            if number == _UNSEEN:
                continue
            empty = {"id": number, "type": types.split("/")[1], "phrases": [], "boxes": boxes.get(number, [])}
            entity = entities.setdefault(number, empty)
            phrase = re.sub(r"\s+([',])", r"\1", " ".join(words.lower().split()))
            if phrase and phrase not in entity["phrases"]:
                entity["phrases"].append(phrase)
    captions = [{"text": " ".join(_MARK.sub(lambda mark: mark[3], line).split())} for line in lines]
    return {"id": name, "captions": captions, "entities": list(entities.values()), "dropped": dropped}


def _boxes(file: Path) -> tuple[dict[str, list[list[int]]], list[Dropped]]:
    """Boxes of each entity, 0-1000. Its XML counts pixels from 1. Raises ValueError, OSError."""
    try:
        tree = ElementTree.parse(file).getroot()
        width, height = (float(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{file.name} is not VOC's XML with a size ({error})") from None
    found: dict[str, list[list[int]]] = {}
    dropped = []
    for thing in tree.findall("object"):
        box = thing.find("bndbox")
        if box is None:  # the whole scene, or not to be seen
            continue
        names = [each.text or "" for each in thing.findall("name")]
        try:
            x1, y1, x2, y2 = (_number(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            sides = [x1 - 1, y1 - 1, x2, y2]
            for name in names:
                found.setdefault(name, []).append(list(placed(f"EN#{name}", sides, width, height).xyxy))
        except Dropped as error:
            dropped.append(Dropped(error.reason, f"{file.name}: {error}"))
    return found, dropped


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
