"""The one sample schema: what data_tools writes, train and the evaluation read.

A sample is one JSON line, the ``messages`` + ``images`` layout that ms-swift and LLaMA-Factory read::

    {"id": "blocks-0-17", "task": "ocr",
     "messages": [{"role": "user", "content": "<image>\\nProvide the OCR results of this image."},
                  {"role": "assistant", "content": "The text."}],
     "images": ["images/000017.png"],
     "boxes": [{"label": "cat", "box": [12, 40, 300, 400]}]}

``images`` are paths inside the folder of the file; a text-only sample has none. ``task`` is one of varytoy.tasks, chat
where it is left out. ``boxes`` (0-1000) and ``facts`` are optional. Facts are free form, but for these: ``letters``
(the printed letters, without spaces) with ``at`` (x and y of each, in pixels of the picture), ``printed`` (the text
without markdown), ``objects`` (names that a caption should hold), ``asked`` (the classes that a detection is limited
to) and ``everything`` (whether the boxes are those of all objects). LLaVA's ``conversations`` is accepted at the door.
"""

import errno
import json
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from varytoy.data.boxes import SCALE, Box, check_label
from varytoy.data.pictures import FORMATS, to_rgb
from varytoy.errors import first_line

IMAGE_PLACEHOLDER = "<image>"
ROLES = ("system", "user", "assistant")
_KEYS = {"id", "task", "messages", "images", "boxes", "facts"}
_DEEPEST = 32
_FURTHEST = 1e6
"""Pixels: a letter of ``facts`` further from a picture's corner is a mistake."""
_LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


class SampleError(ValueError):
    """A sample that breaks the schema; the message names the file, the line and the fix."""


@dataclass
class Sample:
    """One validated sample; ``folder`` is where its image paths start, ``where`` the file and line it is from."""

    messages: list[dict[str, str]]
    images: list[str] = field(default_factory=list)
    id: str = ""
    task: str = "chat"
    boxes: list[Box] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    folder: Path = Path(".")
    where: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """For messages: its file, line and id."""
        return f"{self.where}, sample '{self.id}'" if self.where else f"sample '{self.id}'"

    @property
    def prompt(self) -> str:
        """The last user turn, without image placeholders."""
        turns = [message["content"] for message in self.messages if message["role"] == "user"]
        return turns[-1].replace(IMAGE_PLACEHOLDER, "").strip()

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"]

    def image_paths(self) -> list[Path]:
        return [self.folder / name for name in self.images]

    def open_images(self) -> list[Image.Image]:
        """The images as RGB: upright, on white. Raises SampleError naming the sample when one cannot be read."""
        try:
            return [open_image(path) for path in self.image_paths()]
        except SampleError as error:
            raise SampleError(f"{self.name}: {error}") from error

    def to_json(self) -> dict:
        row: dict = {"id": self.id, "task": self.task, "messages": self.messages, "images": self.images}
        if self.boxes:
            row["boxes"] = [{"label": box.label, "box": list(box.xyxy)} for box in self.boxes]
        if self.facts:
            row["facts"] = self.facts
        return row


def open_image(path: Path) -> Image.Image:
    """A picture as RGB: upright, on white. Raises SampleError when it cannot be read."""
    return _read_image(path, to_rgb)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as its file stores it; only its header is read. Raises SampleError as
    ``open_image``."""
    return _read_image(path, lambda image: image.size)


def _read_image(path: Path, read: Callable):
    try:
        if not path.is_file():
            raise OSError("it is not there" if not path.exists() else "it is not a file")  # a FIFO would wait for ever
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd EXIF blocks and large pictures
            with Image.open(path, formats=FORMATS) as image:
                return read(image)
    except Exception as error:  # Pillow's readers raise nearly anything on malformed data
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SampleError(f"cannot read the image {path}: {reason}; replace it or leave the sample out") from error


def parse_sample(row: object, folder: Path, where: str = "sample") -> Sample:
    """Validate one decoded JSON row. ``where`` names it in errors (``FILE line N``)."""
    if not isinstance(row, dict):
        raise SampleError(f"{where}: a sample is a JSON object, this is {type(row).__name__}")
    if "conversations" in row and "messages" not in row:
        row = _from_llava(row, where)
    _check_values(row, where)
    unknown = set(row) - _KEYS
    if unknown:
        raise SampleError(f"{where}: unknown key {sorted(unknown)[0]!r}; known keys are {', '.join(sorted(_KEYS))}")
    messages = _messages(row.get("messages"), where)
    images = row.get("images", [])
    if not isinstance(images, list) or not all(isinstance(name, str) and name for name in images):
        raise SampleError(f"{where}: 'images' must be a list of paths")
    for name in images:
        _check_inside(name, folder, where)
    placeholders = sum(message["content"].count(IMAGE_PLACEHOLDER) for message in messages)
    if placeholders != len(images):
        raise SampleError(
            f"{where}: {placeholders} '{IMAGE_PLACEHOLDER}' in the messages but {len(images)} in 'images'; "
            "write one placeholder for each image"
        )
    boxes = row.get("boxes", [])
    if not isinstance(boxes, list):
        raise SampleError(f"{where}: 'boxes' must be a list")
    boxes = [_box(entry, where) for entry in boxes]
    return Sample(
        messages, images, _id(row, where), _task(row, where), boxes, _facts(row.get("facts", {}), where), folder, where
    )


def read_samples(path: str | Path, on_error: Callable[[SampleError], None] | None = None) -> Iterator[Sample]:
    """Samples of a ``.jsonl`` file, or of ``samples.jsonl`` in a folder, in order.

    Raises:
        SampleError: at the first line that breaks the schema, or for a file that cannot be read, unless ``on_error``
            takes it.
        FileNotFoundError: with the path that was looked for.
    """
    path = Path(path)
    if os.path.isdir(path):
        path = path / "samples.jsonl"
    lines = _lines(path)
    while True:
        try:
            number, line = next(lines)
            sample = _parse_line(line, path.parent, f"{path} line {number}")
        except StopIteration:
            return
        except SampleError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        sample.id = sample.id or f"{path.stem}:{number}"
        yield sample


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SampleError(f"{path} is not a regular file: give a .jsonl file, or a folder with samples.jsonl")
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # the mark that editors on Windows put before UTF-8
                if line.strip():
                    yield number, line
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no samples at {path}: make some with `python -m data_tools` or give a .jsonl file"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, SampleError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise SampleError(f"{str(path)[:200]!r} cannot be read ({reason}): give a .jsonl file that can") from error


def _parse_line(line: bytes, folder: Path, where: str) -> Sample:
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=lambda pairs: _object(pairs, where))
    except json.JSONDecodeError as error:
        raise SampleError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise SampleError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise SampleError(f"{where}: lists or objects are nested too deep; {_DEEPEST} levels are enough") from error
    except SampleError:
        raise
    except ValueError as error:  # Python turns no more than some thousand digits into a number
        raise SampleError(f"{where}: a number has too many digits; shorten it or write it as text") from error
    return parse_sample(row, folder, where)


def _object(pairs: list[tuple[str, object]], where: str) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise SampleError(f"{where}: the key {twice!a} stands twice in one object; leave one of them out")
    return found


def _check_values(row: dict, where: str) -> None:
    """Refuse what no JSON file should hold and what later would break far from here: halves of characters, which
    cannot be encoded, numbers that are none, and nesting without end."""
    left: list[tuple[str, object, int]] = [("", row, 0)]
    while left:
        key, value, depth = left.pop()
        if depth > _DEEPEST:
            raise SampleError(f"{where}: {key.split('.')[0]!a} is nested more than {_DEEPEST} deep; make it flat")
        if isinstance(value, dict):
            left += [("the name of a key", name, depth) for name in value]
            left += [(f"{key}.{name}" if key else str(name), inner, depth + 1) for name, inner in value.items()]
        elif isinstance(value, list):  # of which most are long lists of whole numbers
            inner = [(place, entry) for place, entry in enumerate(value) if type(entry) is not int]
            left += [(f"{key}.{place}", entry, depth + 1) for place, entry in inner]
        elif isinstance(value, float) and not math.isfinite(value):
            raise SampleError(f"{where}: {key!a} is {value}; write a finite number")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                half = value[error.start]
                raise SampleError(
                    f"{where}: {key!a} holds {half!a}, half of a character; write the whole one"
                ) from error


def _id(row: dict, where: str) -> str:
    found = row.get("id")
    if found is None:
        return ""
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise SampleError(f"{where}: 'id' must be text or a whole number, not {type(found).__name__}")
    return str(found)


def _task(row: dict, where: str) -> str:
    from varytoy.tasks import TASKS  # which are made of samples

    found = row.get("task") or "chat"
    if not isinstance(found, str) or found not in TASKS:
        raise SampleError(f"{where}: 'task' must be one of {', '.join(TASKS)}, not {str(found)[:80]!a}")
    return found


def _facts(facts: object, where: str) -> dict:
    """Checks what is read anywhere; the rest is free."""
    if not isinstance(facts, dict):
        raise SampleError(f"{where}: 'facts' must be an object")
    for key in ("letters", "printed", "asked"):
        if not isinstance(facts.get(key, ""), str):
            raise SampleError(f"{where}: 'facts.{key}' must be text")
    if not isinstance(facts.get("everything", True), bool):
        raise SampleError(f"{where}: 'facts.everything' must be true or false")
    objects, places = facts.get("objects", []), facts.get("at", [])
    if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
        raise SampleError(f"{where}: 'facts.objects' must be a list of names")
    if not isinstance(places, list) or not all(type(value) in (int, float) for value in places):
        raise SampleError(f"{where}: 'facts.at' must be a list of numbers, x and y of each letter")
    if not all(-_FURTHEST <= value <= _FURTHEST for value in places):
        raise SampleError(
            f"{where}: 'facts.at' must be pixels of the picture, from {-_FURTHEST:.0f} to {_FURTHEST:.0f}"
        )
    letters = len(facts.get("letters", ""))
    if len(places) != 2 * letters:
        raise SampleError(
            f"{where}: 'facts.at' has {len(places)} numbers for the {letters} characters of 'facts.letters'; "
            "write x and y of each, or leave both out"
        )
    return facts


def _messages(messages: object, where: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise SampleError(f"{where}: 'messages' must be a list of turns, and not empty")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise SampleError(f"{where}: each message is {{'role': …, 'content': …}}")
        if message["role"] not in ROLES or not isinstance(message["content"], str):
            raise SampleError(f"{where}: a role is one of {', '.join(ROLES)} and the content is text")
    turns = [message["role"] for message in messages]
    turns = turns[1:] if turns[0] == "system" else turns
    if turns != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise SampleError(
            f"{where}: turns must alternate user, assistant and end with the assistant, after one system turn at most"
        )
    if any(IMAGE_PLACEHOLDER in message["content"] for message in messages if message["role"] == "assistant"):
        raise SampleError(f"{where}: '{IMAGE_PLACEHOLDER}' stands in an assistant turn; pictures belong to the user's")
    return messages


def _check_inside(name: str, folder: Path, where: str) -> None:
    try:
        base, path = folder.resolve(), folder / name
        if Path(name).is_absolute() or not path.resolve().is_relative_to(base):
            raise SampleError(f"{where}: the image path {name!r} leaves the sample folder; keep images inside it")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SampleError(f"{where}: the image path {name!r} does not lead to a file; give that of a picture")
    except SampleError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: how pathlib says that symlinks go in a circle
        if getattr(error, "errno", None) in (errno.ENOENT, errno.ENOTDIR):
            return  # said when the picture is opened
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SampleError(f"{where}: the image path {name[:80]!r} cannot be used ({reason}); give another") from error


def _box(entry: Any, where: str) -> Box:
    try:
        label, sides = entry["label"], entry["box"]
        if set(entry) != {"label", "box"} or not isinstance(label, str) or not isinstance(sides, list):
            raise ValueError("a text and a list of numbers are wanted, and no other keys")
        if len(sides) != 4 or not all(type(side) in (int, float) and 0 <= side <= SCALE for side in sides):
            raise ValueError(f"a box is four numbers from 0 to {SCALE}")
        if any(side != int(side) for side in sides):
            raise ValueError(f"{sides} are not whole numbers")
        check_label(label)
        return Box(label, tuple(int(side) for side in sides))
    except (TypeError, KeyError, ValueError) as error:
        said = f"no key {error}" if isinstance(error, KeyError) else error
        raise SampleError(
            f"{where}: bad entry in 'boxes' ({said}); write {{'label': …, 'box': [x1, y1, x2, y2]}}"
        ) from error


def _from_llava(row: dict, where: str) -> dict:
    try:
        messages = [{"role": _LLAVA_ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    except (TypeError, KeyError) as error:
        raise SampleError(f"{where}: 'conversations' needs turns with 'from' human or gpt, and 'value'") from error
    images = row.get("image", row.get("images", []))
    rest = {key: row[key] for key in ("id", "task", "boxes", "facts") if key in row}
    return {"messages": messages, "images": [images] if isinstance(images, str) else images, **rest}
