"""Sample: one conversation about images, with its annotations. ``varytoy.data.samples`` reads and checks them."""

import dataclasses
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from varytoy.data.boxes import SCALE, Box
from varytoy.data.pictures import FORMATS, check_size, to_rgb
from varytoy.data.shards import read_member, shard_of
from varytoy.data.spots import text_in_rows
from varytoy.errors import first_line

IMAGE_PLACEHOLDER = "<image>"
ROLES = ("system", "user", "assistant")
TASK_NAMES: set[str] = set()
"""Valid values of ``Sample.task``; ``varytoy.tasks.register`` adds to it."""
_FURTHEST = 1e6
"""Pixels; letter positions further from the image's corner are rejected."""


class SampleError(ValueError):
    """A sample that breaks the schema; the message names the file, the line and the fix."""


@dataclass
class Annotations:
    """Annotations of a sample's image besides the boxes, for metrics and objectives.

    Attributes:
        letters: the printed letters, in reading order, without white space.
        letter_positions: x and y of each letter's middle in turn, in pixels of the image.
        plain_text: the printed text, where the answer is something else, as markdown or the answer to a question.
        wanted_text: the text that the image to generate has in its place.
        object_names: names that a caption should contain; None if unknown.
        classes: classes that a detection is limited to; empty for all.
        references: right answers beside the sample's own, for tasks that several answers are right for.
        all_objects: whether all objects have boxes; None: true for detections without ``classes`` only.
        lines: the printed lines of text, in reading order.
        line_boxes: x1, y1, x2, y2 (0-1000) of each line in turn.
        words: the printed words, in reading order.
        word_boxes: x1, y1, x2, y2 (0-1000) of each word in turn.
    """

    letters: str = ""
    letter_positions: list[int | float] = field(default_factory=list)
    plain_text: str | None = None
    wanted_text: str = ""
    object_names: list[str] | None = None
    classes: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    all_objects: bool | None = None
    lines: list[str] = field(default_factory=list)
    line_boxes: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    word_boxes: list[int] = field(default_factory=list)

    def __post_init__(self):
        if not all(-_FURTHEST <= value <= _FURTHEST for value in self.letter_positions):
            raise ValueError(f"letter_positions must be pixels of the image, from {-_FURTHEST:.0f} to {_FURTHEST:.0f}")
        if len(self.letter_positions) != 2 * len(self.letters):
            raise ValueError(
                f"letter_positions has {len(self.letter_positions)} numbers for the {len(self.letters)} characters of "
                "letters; write x and y of each, or leave both out"
            )
        for texts, boxes, name in ((self.lines, self.line_boxes, "line"), (self.words, self.word_boxes, "word")):
            if len(boxes) != 4 * len(texts) or not all(0 <= side <= SCALE for side in boxes):
                raise ValueError(
                    f"{name}_boxes must have four numbers from 0 to {SCALE} for each of the {len(texts)} {name}s"
                )

    @property
    def points(self) -> list[tuple[float, float]]:
        """(x, y) of each letter."""
        return list(zip(self.letter_positions[0::2], self.letter_positions[1::2], strict=True))

    @property
    def text(self) -> str:
        """The printed text, with texts beside each other in one row if their places are known; empty if unknown."""
        return text_in_rows(self.text_lines) or self.plain_text or ""

    @property
    def text_lines(self) -> list[Box]:
        """The printed lines with their boxes, labelled with their text."""
        return _boxes(self.lines, self.line_boxes)

    @property
    def text_words(self) -> list[Box]:
        """The printed words with their boxes, labelled with their text."""
        return _boxes(self.words, self.word_boxes)

    def to_json(self) -> dict:
        """The fields that differ from their defaults."""
        empty = Annotations()
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value != getattr(empty, name)}


def _boxes(texts: list[str], sides: list[int]) -> list[Box]:
    return [Box(text, tuple(sides[4 * number : 4 * number + 4])) for number, text in enumerate(texts)]


@dataclass
class Sample:
    """One conversation.

    Attributes:
        messages: turns with ``role`` and ``content``; the user's hold one ``<image>`` for each of ``images``.
        images: paths of the input images in ``folder``.
        target_images: paths of the images to generate, in ``folder``.
        boxes: of objects in the first image.
        metadata: arbitrary; not used by varytoy.
        where: source file and line.
    """

    messages: list[dict[str, str]]
    images: list[str] = field(default_factory=list)
    id: str = ""
    task: str = "chat"
    boxes: list[Box] = field(default_factory=list)
    annotations: Annotations = field(default_factory=Annotations)
    target_images: list[str] = field(default_factory=list)
    metadata: dict = field(default_factory=dict)
    folder: Path = Path(".")
    where: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """File, line and id, for messages."""
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
        return self._open(self.images)

    def open_target_images(self) -> list[Image.Image]:
        """As ``open_images``, for ``target_images``."""
        return self._open(self.target_images)

    def _open(self, names: list[str]) -> list[Image.Image]:
        try:
            return [open_image(self.folder / name) for name in names]
        except SampleError as error:
            raise SampleError(f"{self.name}: {error}") from error

    def to_json(self) -> dict:
        row: dict = {"id": self.id, "task": self.task, "messages": self.messages, "images": self.images}
        rest = {
            "target_images": self.target_images,
            "boxes": [box.to_json() for box in self.boxes],
            "annotations": self.annotations.to_json(),
            "metadata": self.metadata,
        }
        return row | {key: value for key, value in rest.items() if value}


def image_file(path: Path) -> Path | io.BytesIO:
    """The file of an image, or its bytes in a shard. Raises OSError where there is none, tarfile.TarError."""
    if path.is_file():
        return path
    member = shard_of(path)
    if member is not None:
        return io.BytesIO(read_member(*member))
    raise OSError("no such file" if not path.exists() else "it is not a file")  # reading a FIFO would block


def open_image(path: Path) -> Image.Image:
    """An image as RGB: upright, on white. Raises SampleError when it cannot be read."""

    def read(image: Image.Image) -> Image.Image:
        check_size(*image.size, "it")
        return to_rgb(image)

    return _read_image(path, read)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as its file stores it; only its header is read. Raises SampleError as
    ``open_image``."""
    return _read_image(path, lambda image: image.size)


def _read_image(path: Path, read: Callable):
    try:
        source = image_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about malformed EXIF and large images
            with Image.open(source, formats=FORMATS) as image:
                return read(image)
    except Exception as error:  # Pillow's readers raise nearly anything on malformed data
        reason = getattr(error, "strerror", None) or first_line(error).rstrip(".")
        raise SampleError(f"cannot read the image {path}: {reason}; replace it or leave the sample out") from error
