"""Sample schema: data_tools writes it, training and evaluation read it.

A sample is one JSON line, the ``messages`` + ``images`` layout that ms-swift and LLaMA-Factory read::

    {"id": "blocks-0-17", "task": "ocr",
     "messages": [{"role": "user", "content": "<image>\\nProvide the OCR results of this image."},
                  {"role": "assistant", "content": "The text."}],
     "images": ["images/000017.png"],
     "boxes": [{"label": "cat", "box": [12, 40, 300, 400]}]}

``images`` are paths inside the folder of the file, or names of members of the shard; a text-only sample has none.
``task`` is one of varytoy.tasks, by default chat. Optional: ``target_images`` (paths of images to generate), ``boxes``
(0-1000), ``annotations`` (the fields of ``varytoy.data.sample.Annotations``) and ``metadata`` (any object; not used).
LLaVA's ``conversations`` is converted on reading.
"""

import errno
import functools
import hashlib
import json
import math
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from varytoy.data.boxes import SCALE, Box, check_label
from varytoy.data.sample import IMAGE_PLACEHOLDER, ROLES, TASK_NAMES, Annotations, Sample, SampleError
from varytoy.data.shards import SUFFIX, descriptions, read_member
from varytoy.errors import first_line
from varytoy.schema import strict_model

_KEYS = {"id", "task", "messages", "images", "target_images", "boxes", "annotations", "metadata"}
_DEEPEST = 32
LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def parse_sample(row: object, folder: Path, where: str = "sample") -> Sample:
    """Validate one decoded JSON row. ``where`` names it in errors (``FILE line N``)."""
    if not isinstance(row, dict):
        raise SampleError(f"{where}: a sample is a JSON object, this is {type(row).__name__}")
    if "facts" in row:
        raise SampleError(f"{where}: 'facts' is now 'annotations' and 'metadata'; render the samples again")
    if "conversations" in row and "messages" not in row:
        row = _from_llava(row, where)
    _check_values(row, where)
    unknown = set(row) - _KEYS
    if unknown:
        raise SampleError(f"{where}: unknown key {sorted(unknown)[0]!r}; known keys are {', '.join(sorted(_KEYS))}")
    messages = _messages(row.get("messages"), where)
    images, targets = (_paths(row.get(key, []), key, folder, where) for key in ("images", "target_images"))
    placeholders = sum(message["content"].count(IMAGE_PLACEHOLDER) for message in messages)
    if placeholders != len(images):
        raise SampleError(
            f"{where}: {placeholders} '{IMAGE_PLACEHOLDER}' in the messages but {len(images)} in 'images'; "
            "write one placeholder for each image"
        )
    boxes = row.get("boxes", [])
    if not isinstance(boxes, list):
        raise SampleError(f"{where}: 'boxes' must be a list")
    metadata = row.get("metadata", {})
    if not isinstance(metadata, dict):
        raise SampleError(f"{where}: 'metadata' must be an object")
    return Sample(
        messages,
        images,
        _id(row, where),
        _task(row, where),
        [_box(entry, where) for entry in boxes],
        _annotations(row.get("annotations", {}), where),
        targets,
        metadata,
        folder,
        where,
    )


def read_samples(path: str | Path, on_error: Callable[[SampleError], None] | None = None) -> Iterator[Sample]:
    """Samples of a ``.jsonl`` file or a ``.tar`` shard (varytoy.data.shards), or of those in a folder, in order.

    Raises:
        SampleError: at the first line that breaks the schema, or for a file that cannot be read, unless ``on_error``
            is given.
        FileNotFoundError: there is no such file; the message names it.
    """

    def report(error: SampleError) -> None:
        if on_error is None:
            raise error
        on_error(error)

    for file in sample_files(Path(path)):
        shard = file.suffix == SUFFIX
        pieces, folder = (_members(file), file) if shard else (_lines(file), file.parent)
        while True:
            try:
                where, name, data = next(pieces)
                tree = _decode(data, where)
            except StopIteration:
                break
            except SampleError as error:
                report(error)
                continue
            rows: dict[str, object] = {where: tree}
            if shard and isinstance(tree, list):
                rows = {f"{where} entry {number}": row for number, row in enumerate(tree, 1)}
            for number, (place, row) in enumerate(rows.items(), 1):
                try:
                    sample = parse_sample(row, folder, place)
                except SampleError as error:
                    report(error)
                    continue
                sample.id = sample.id or (name if len(rows) == 1 else f"{name}-{number}")
                yield sample


def sample_files(path: Path) -> list[Path]:
    """The file; or a folder's ``samples.jsonl`` or else its shards, by name."""
    if os.path.isdir(path):
        samples = path / "samples.jsonl"
        return [samples] if os.path.exists(samples) else sorted(path.glob(f"*{SUFFIX}")) or [samples]
    return [path]


def digest(files: Iterable[Path]) -> str:
    """SHA-256 of files one after the other. Raises OSError."""
    sums = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            while part := data.read(2**20):
                sums.update(part)
    return sums.hexdigest()


def _members(shard: Path) -> Iterator[tuple[str, str, bytes]]:
    """(where it is, its name, the data) of each description in a shard."""
    try:
        for name in descriptions(shard):
            yield f"{shard} member {name}", name.removesuffix(".json"), read_member(shard, name)
    except (OSError, tarfile.TarError) as error:
        raise SampleError(f"{shard} cannot be read ({first_line(error)}): make the shard again") from error


def _lines(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(where it is, a name, the data) of each line that is not blank."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SampleError(f"{path} is not a regular file: give a .jsonl file, or a folder with samples.jsonl")
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # UTF-8 byte order mark
                if line.strip():
                    yield f"{path} line {number}", f"{path.stem}:{number}", line
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no samples at {path}: make some with `python -m data_tools` or give a .jsonl file"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, SampleError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise SampleError(f"{str(path)[:200]!r} cannot be read ({reason}): give a .jsonl file that can") from error


def _decode(line: bytes, where: str) -> object:
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=lambda pairs: _object(pairs, where))
    except json.JSONDecodeError as error:
        raise SampleError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise SampleError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise SampleError(f"{where}: lists or objects are nested too deep; {_DEEPEST} levels are enough") from error
    except SampleError:
        raise
    except ValueError as error:  # Python limits the digits of an integer
        raise SampleError(f"{where}: a number has too many digits; shorten it or write it as text") from error


def _object(pairs: list[tuple[str, object]], where: str) -> dict:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise SampleError(f"{where}: the key {duplicate!a} stands twice in one object; leave one of them out")
    return tree


def _check_values(row: dict, where: str) -> None:
    """Reject values that would cause errors later: unpaired surrogates, which cannot be encoded, NaN and infinite
    numbers, and deep nesting."""
    left: list[tuple[str, object, int]] = [("", row, 0)]
    while left:
        key, value, depth = left.pop()
        if depth > _DEEPEST:
            raise SampleError(f"{where}: {key.split('.')[0]!a} is nested more than {_DEEPEST} deep; make it flat")
        if isinstance(value, dict):
            left += [("the name of a key", name, depth) for name in value]
            left += [(f"{key}.{name}" if key else str(name), inner, depth + 1) for name, inner in value.items()]
        elif isinstance(value, list):  # mostly long lists of whole numbers
            inner = [(index, entry) for index, entry in enumerate(value) if type(entry) is not int]
            left += [(f"{key}.{index}", entry, depth + 1) for index, entry in inner]
        elif isinstance(value, float) and not math.isfinite(value):
            raise SampleError(f"{where}: {key!a} is {value}; write a finite number")
        elif isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                surrogate = value[error.start]
                raise SampleError(
                    f"{where}: {key!a} holds {surrogate!a}, half of a character; write the whole one"
                ) from error


def _id(row: dict, where: str) -> str:
    name = row.get("id")
    if name is None:
        return ""
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise SampleError(f"{where}: 'id' must be text or a whole number, not {type(name).__name__}")
    return str(name)


def _task(row: dict, where: str) -> str:
    if not TASK_NAMES:
        raise RuntimeError("no tasks are registered: import varytoy.tasks before samples are read")
    name = row.get("task") or "chat"
    if not isinstance(name, str) or name not in TASK_NAMES:
        raise SampleError(f"{where}: 'task' must be one of {', '.join(sorted(TASK_NAMES))}, not {str(name)[:80]!a}")
    return name


def _annotations(tree: object, where: str) -> Annotations:
    if tree == {}:
        return Annotations()
    from pydantic import ValidationError

    schema = strict_model(Annotations)
    try:
        checked = schema.model_validate(tree)
        return Annotations(**{name: getattr(checked, name) for name in checked.model_fields_set})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, ("annotations", *first["loc"])))
        known = f"; known are {', '.join(schema.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise SampleError(f"{where}: '{key[:120]}': {first['msg']}{known}") from error
    except ValueError as error:
        raise SampleError(f"{where}: 'annotations': {error}") from error


def _paths(names: object, key: str, folder: Path, where: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise SampleError(f"{where}: '{key}' must be a list of paths")
    for name in names:
        if fault := _fault(name, folder):
            raise SampleError(f"{where}: {fault}")
    return names


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
        raise SampleError(f"{where}: '{IMAGE_PLACEHOLDER}' is in an assistant turn; images belong to user turns")
    return messages


@functools.lru_cache(8)  # samples about one image follow each other
def _fault(name: str, folder: Path) -> str:
    """What is wrong with the path of an image; empty if nothing is, or if there is no such file, which is reported when
    the image is opened."""
    try:
        base, path = folder.resolve(), folder / name
        if Path(name).is_absolute() or not path.resolve().is_relative_to(base):
            return f"the image path {name!r} leaves the sample folder; keep images inside it"
        if not stat.S_ISREG(os.stat(path).st_mode):
            return f"the image path {name!r} does not lead to a file; give the path of an image"
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: pathlib, for a symlink loop
        if getattr(error, "errno", None) not in (errno.ENOENT, errno.ENOTDIR):
            reason = getattr(error, "strerror", None) or first_line(error)
            return f"the image path {name[:80]!r} cannot be used ({reason}); give another"
    return ""


def _box(entry: Any, where: str) -> Box:
    try:
        label, sides = entry["label"], entry["box"]
        if set(entry) != {"label", "box"} or not isinstance(label, str) or not isinstance(sides, list):
            raise ValueError("expected a text and a list of numbers, and no other keys")
        if len(sides) != 4 or not all(type(side) in (int, float) and 0 <= side <= SCALE for side in sides):
            raise ValueError(f"a box is four numbers from 0 to {SCALE}")
        if any(side != int(side) for side in sides):
            raise ValueError(f"{sides} are not whole numbers")
        check_label(label)
        return Box(label, tuple(int(side) for side in sides))
    except (TypeError, KeyError, ValueError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise SampleError(
            f"{where}: bad entry in 'boxes' ({reason}); write {{'label': …, 'box': [x1, y1, x2, y2]}}"
        ) from error


def _from_llava(row: dict, where: str) -> dict:
    try:
        messages = [{"role": LLAVA_ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    except (TypeError, KeyError) as error:
        raise SampleError(f"{where}: 'conversations' needs turns with 'from' human or gpt, and 'value'") from error
    images = row.get("image", row.get("images", []))
    rest = {key: row[key] for key in _KEYS - {"messages", "images"} if key in row}
    return {"messages": messages, "images": [images] if isinstance(images, str) else images, **rest}
