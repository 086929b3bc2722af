"""The one sample schema: what data_tools writes, train and the evaluation read.

A sample is one JSON line, the ``messages`` + ``images`` layout that ms-swift and LLaMA-Factory read::

    {"id": "blocks-0-17", "task": "ocr",
     "messages": [{"role": "user", "content": "<image>\\nProvide the OCR results of this image."},
                  {"role": "assistant", "content": "The text."}],
     "images": ["images/000017.png"],
     "boxes": [{"label": "cat", "box": [12, 40, 300, 400]}]}

``images`` are paths inside the folder of the file; a text-only sample has none. ``boxes`` (0-1000) and ``facts`` (free
form, for metrics) are optional. LLaVA's ``conversations`` is accepted at the door.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from varytoy.boxes import Box
from varytoy.documents import to_rgb

IMAGE_PLACEHOLDER = "<image>"
ROLES = ("system", "user", "assistant")
_KEYS = {"id", "task", "messages", "images", "boxes", "facts"}
_LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


class SampleError(ValueError):
    """A sample that breaks the schema; the message names the file, the line and the cure."""


@dataclass
class Sample:
    """One validated sample; ``folder`` is where its image paths start."""

    messages: list[dict[str, str]]
    images: list[str] = field(default_factory=list)
    id: str = ""
    task: str = "chat"
    boxes: list[Box] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    folder: Path = Path(".")

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
            raise SampleError(f"sample '{self.id}': {error}") from error

    def to_json(self) -> dict:
        row: dict = {"id": self.id, "task": self.task, "messages": self.messages, "images": self.images}
        if self.boxes:
            row["boxes"] = [{"label": box.label, "box": list(box.xyxy)} for box in self.boxes]
        if self.facts:
            row["facts"] = self.facts
        return row


def open_image(path: Path) -> Image.Image:
    """A picture as RGB: upright, on white. Raises SampleError when it cannot be read."""
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SampleError(f"cannot read the image {path}: {error}") from error


def parse_sample(row: object, folder: Path, where: str = "sample") -> Sample:
    """Validate one decoded JSON row. ``where`` names it in errors (``FILE line N``)."""
    if not isinstance(row, dict):
        raise SampleError(f"{where}: a sample is a JSON object, this is {type(row).__name__}")
    if "conversations" in row and "messages" not in row:
        row = _from_llava(row, where)
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
    facts = row.get("facts", {})
    if not isinstance(facts, dict):
        raise SampleError(f"{where}: 'facts' must be an object")
    return Sample(messages, images, str(row.get("id") or ""), str(row.get("task") or "chat"), boxes, facts, folder)


def read_samples(path: str | Path, on_error: Callable[[SampleError], None] | None = None) -> Iterator[Sample]:
    """Samples of a ``.jsonl`` file, or of ``samples.jsonl`` in a folder, in order.

    Raises:
        SampleError: at the first line that breaks the schema, unless ``on_error`` takes it.
        FileNotFoundError: with the path that was looked for.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "samples.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"no samples at {path}: make some with `python -m data_tools` or give a .jsonl file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                sample = _parse_line(line, path.parent, f"{path} line {number}")
            except SampleError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            sample.id = sample.id or f"{path.stem}:{number}"
            yield sample


def _parse_line(line: bytes, folder: Path, where: str) -> Sample:
    try:
        row = json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise SampleError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise SampleError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from error
    return parse_sample(row, folder, where)


def _messages(messages: object, where: str) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise SampleError(f"{where}: 'messages' must be a list of turns, and not empty")
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"}:
            raise SampleError(f"{where}: each message is {{'role': …, 'content': …}}")
        if message["role"] not in ROLES or not isinstance(message["content"], str):
            raise SampleError(f"{where}: a role is one of {', '.join(ROLES)} and the content is text")
    turns = [message["role"] for message in messages if message["role"] != "system"]
    if turns != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise SampleError(f"{where}: turns must alternate user, assistant and end with the assistant")
    if any(IMAGE_PLACEHOLDER in message["content"] for message in messages if message["role"] == "assistant"):
        raise SampleError(f"{where}: '{IMAGE_PLACEHOLDER}' stands in an assistant turn; pictures belong to the user's")
    return messages


def _check_inside(name: str, folder: Path, where: str) -> None:
    base = folder.resolve()
    if "\0" in name or Path(name).is_absolute() or not (base / name).resolve().is_relative_to(base):
        raise SampleError(f"{where}: the image path '{name}' leaves the sample folder; keep images inside it")


def _box(entry: object, where: str) -> Box:
    try:
        if any(value != int(value) for value in entry["box"]):
            raise ValueError(f"{entry['box']} are no whole numbers from 0 to 1000")
        return Box(str(entry["label"]), tuple(int(value) for value in entry["box"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise SampleError(
            f"{where}: bad entry in 'boxes' ({error}); write {{'label': …, 'box': [x1, y1, x2, y2]}}"
        ) from error


def _from_llava(row: dict, where: str) -> dict:
    try:
        messages = [{"role": _LLAVA_ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    except (TypeError, KeyError) as error:
        raise SampleError(f"{where}: 'conversations' needs turns with 'from' human or gpt, and 'value'") from error
    images = row.get("image", row.get("images", []))
    rest = {key: row[key] for key in ("id", "task", "boxes", "facts") if key in row}
    return {"messages": messages, "images": [images] if isinstance(images, str) else images, **rest}
