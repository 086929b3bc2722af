"""Boxes with the names of classes become detection and grounding samples with the family's prompts.

As in the detection data of Vary-toy's paper, all objects are asked for where a picture has at most thirty boxes,
classes by name where it has more.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.importers.base import Dropped, evaluation_options
from data_tools.writer import question_row
from varytoy.data.boxes import SCALE, Box
from varytoy.data.pictures import turned
from varytoy.tasks import TASKS

MOST = 30
"""Boxes of an answer."""
FLAT, OUTSIDE, NO_NUMBERS = "box without area", "box outside its image", "box that is not four finite numbers"
UNKNOWN, NOTHING, CROWDED = "box of an unknown class", "image without objects", f"image with over {MOST} of each class"
GROUP, TURNED = "box of a group of objects", "image that its EXIF turns, with boxes of the image as stored"
_LARGEST = 1e12  # also false for NaN


def object_options(parser) -> None:
    evaluation_options(parser, "standard prompts only")


def placed(label: str, sides: Sequence, width: float, height: float) -> Box:
    """A box of x1, y1, x2, y2 in the units of ``width`` and ``height``, clipped to the image.

    Raises:
        Dropped: it is no box, or nothing of it is in the image.
    """
    numbers = [side for side in (*sides, width, height) if type(side) in (int, float) and abs(side) < _LARGEST]
    if len(numbers) != 6:
        raise Dropped(NO_NUMBERS, f"the box {str(list(sides))[:80]} of '{label}' is not four finite numbers")
    if min(width, height) <= 0:
        raise Dropped(NO_NUMBERS, f"its image is {width} x {height}")
    x1, y1, x2, y2 = sides
    said = f"the box {[round(side, 2) for side in sides]} of '{label}'"
    if x2 <= x1 or y2 <= y1:
        raise Dropped(FLAT, f"{said} has no area")
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise Dropped(OUTSIDE, f"{said} is outside the image of {width} x {height}")
    box = Box.from_pixels(label, sides, width, height)
    if box.xyxy[0] == box.xyxy[2] or box.xyxy[1] == box.xyxy[3]:
        raise Dropped(FLAT, f"{said} is thinner than 1/{SCALE} of the image")
    return box


def in_lower_case(name: str) -> str:
    """``Human face`` -> ``human face``, as COCO writes its classes; abbreviations such as SUV and TV stay."""
    parts = name.replace("/", " / ").split()
    lowered = [part if len(part) > 1 and part.isupper() else part.lower() for part in parts]
    return " ".join(lowered).replace(" / ", "/")


def check_turn(file: Path, size: tuple[int, int] | None = None) -> None:
    """Raises Dropped for an image that its EXIF turns: it is shown upright, and boxes of the image as it is stored
    would be beside its objects. ``size``: of the image that the boxes are about; the upright one's is right."""
    if turned(file, size):
        raise Dropped(TURNED)


class Labelled(NamedTuple):
    """An object of the source: its place in the file, its class, x1, y1, x2, y2, and the reason for which its box is
    left out, if there is one. ``label``: None for an unknown class, of which ``kind`` is the source's name."""

    where: str
    label: str | None
    sides: Sequence
    left_out: str = ""
    kind: object = ""


def object_rows(
    objects: Iterable[Labelled], width: float, height: float, rng: random.Random | None
) -> Iterator[dict | Dropped]:
    """The samples of a picture, without id and image: a detection, and a phrase for each class with one object. A class
    of which a box is left out is not asked for, and then not all objects are.

    Args:
        objects: in the units of ``width`` and ``height``.
        rng: for paraphrases, and the choice of classes where not all objects are asked for; None: standard prompts, and
            the first classes that fit.
    """
    groups: dict[str, list[Box]] = {}
    partial: set[str | None] = set()
    for each in objects:
        try:
            if each.label is None:
                raise Dropped(UNKNOWN, f"the class {each.kind} has no name")
            if each.left_out:
                raise Dropped(each.left_out, quiet=True)
            groups.setdefault(each.label, []).append(placed(each.label, each.sides, width, height))
        except Dropped as error:
            partial.add(each.label)
            yield Dropped(error.reason, f"{each.where}: {error}", error.quiet)
    groups = {
        label: sorted(group, key=lambda box: box.xyxy)
        for label, group in sorted(groups.items())
        if label not in partial
    }
    if not groups:
        yield Dropped(NOTHING, quiet=True)
        return
    if not partial and sum(map(len, groups.values())) <= MOST:
        yield _detection(groups, "", {"all_objects": True}, rng)
    elif classes := _that_fit(groups, rng):
        chosen = {label: groups[label] for label in classes}
        yield _detection(chosen, ", ".join(classes), {"classes": classes, "all_objects": False}, rng)
    else:
        yield Dropped(CROWDED, quiet=True)
    for label, group in groups.items():
        if len(group) == 1:
            phrase = f"the {label}"
            box = Box(phrase, group[0].xyxy)
            yield question_row("ground", TASKS["ground"].prompt(phrase, rng), TASKS["ground"].answer(box), [box])


def numbered(rows: Iterable[dict | Dropped], image: object, name: str) -> Iterator[dict | Dropped]:
    """The rows with the id of their image and a number, and its file name."""
    number = 0
    for row in rows:
        if isinstance(row, Dropped):
            yield row
        else:
            yield {**row, "id": f"{image}-{number}", "images": [name]}
            number += 1


def _detection(groups: dict[str, list[Box]], classes: str, annotations: dict, rng: random.Random | None) -> dict:
    boxes = [box for group in groups.values() for box in group]
    prompt = TASKS["detect"].prompt(classes, rng)
    return question_row("detect", prompt, TASKS["detect"].answer(boxes), boxes, annotations)


def _that_fit(groups: dict[str, list[Box]], rng: random.Random | None) -> list[str]:
    """Classes with at most ``MOST`` boxes together."""
    classes, left = list(groups), MOST
    if rng is not None:
        rng.shuffle(classes)
    chosen = []
    for label in classes:
        if len(groups[label]) <= left:
            left -= len(groups[label])
            chosen.append(label)
    return chosen
