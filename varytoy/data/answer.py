"""Answer and its regions, in pixels of the file."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from PIL import Image

from varytoy.data.boxes import Coordinates

Point = tuple[float, float]
RELIABLE_GAP = 0.1
"""``Answer.number_gap`` below which a chart's table is reliable, as in OneChart (arXiv 2404.09987)."""


@dataclass(frozen=True)
class Region:
    """A part of the image that an answer is about.

    Attributes:
        box: xyxy in pixels of the file.
        label: class or phrase of an object; empty for text.
        text: the text in it; empty for an object.
        polygon: corners (x, y) in pixels, if the region is not an axis-aligned rectangle; empty: use ``box``.
        score: confidence from 0 to 1; None where the model gives none.
        parts: the lines of a block of text, the words of a line.
    """

    box: Coordinates
    label: str = ""
    text: str = ""
    polygon: tuple[Point, ...] = ()
    score: float | None = None
    parts: tuple["Region", ...] = ()

    def moved(self, move: Callable[[Point], Point]) -> "Region":
        """The region with ``move`` applied to its corners; the box is the one around them, with the corners as
        ``polygon`` where they are no rectangle of their own."""
        x0, y0, x1, y1 = self.box
        corners = tuple(move(corner) for corner in self.polygon or ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
        xs, ys = zip(*corners, strict=True)
        box = (round(min(xs)), round(min(ys)), round(max(xs)), round(max(ys)))
        level = all(
            min(abs(x - min(xs)), abs(x - max(xs))) + min(abs(y - min(ys)), abs(y - max(ys))) < 2 for x, y in corners
        )
        polygon = corners if self.polygon or not level else ()
        parts = tuple(part.moved(move) for part in self.parts)
        return replace(self, box=box, polygon=polygon, parts=parts)


@dataclass(frozen=True)
class Word:
    """A word of a model's raw answer.

    Attributes:
        line: its line in the answer, from 0.
        score: geometric mean of its tokens' probabilities.
        x: where it starts, in pixels of the image that the model got; None where the model does not tell.
    """

    text: str
    line: int
    score: float | None = None
    x: float | None = None


@dataclass
class Answer:
    """A model's answer about an image or a document.

    Attributes:
        text: plain text; in a raw answer of an ``Engine``, the model output.
        regions: objects, and blocks of text that were read one by one.
        context: the text of the image that a question was answered from, in place of the image; else empty.
        markup: the text with its formatting in markdown, for tasks that ask for it.
        image: the generated image, for tasks that generate one.
        confidence: 0 to 1; None if the model was not run. From an ``Engine`` the geometric mean of the chosen tokens'
            probabilities, from a ``Reader`` on the checkpoint's scale (varytoy.inference.calibration).
        stop_reason: ``end`` (the model finished), ``length``, ``loop`` (it repeated itself and was stopped),
            ``cancelled`` or ``error``.
        error: why a file or page could not be read; else empty.
        size: (width, height) of the image in pixels.
        tokens: generated tokens; ``prompt_tokens``: those of the prompts, with the images'.
        loops: repetitions that were left out; the answer goes on after them.
        seconds: how long it took, with the analysis of the page; 0 from an ``Engine``.
        words: of a raw answer of an ``Engine``.
        skipped: number of blocks and lines left out: their letters are too small to read, they are image texture, or
            what was read has less confidence than the checkpoint's ``least_confidence``.
        dropped: how many parts of the model's text were left out because they could not be read, by reason
            (``varytoy.data.spots``).
        number_gap: of a chart's table, the mean difference between its numbers and those that the model's head for
            numbers estimates from the picture (varytoy.models.numbers), as a share of their range; of several pages the
            greatest. None for other answers, those that were cut, tables of more values than the head has or of equal
            ones, and models without the head.
        turned: degrees, counter-clockwise, by which the image was turned to stand upright; regions are of the file.
        pages: the answers to each page of a document with several.
    """

    text: str
    regions: list[Region] = field(default_factory=list)
    markup: str | None = None
    image: Image.Image | None = None
    confidence: float | None = None
    stop_reason: str = "end"
    error: str = ""
    size: tuple[int, int] | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    loops: int = 0
    seconds: float = field(default=0.0, compare=False)
    words: list[Word] = field(default_factory=list)
    skipped: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    number_gap: float | None = None
    turned: int = 0
    context: str = ""
    pages: list["Answer"] = field(default_factory=list)

    @property
    def reliable(self) -> bool | None:
        """Whether a chart's table agrees with what was estimated from the picture; None without ``number_gap``."""
        return None if self.number_gap is None else self.number_gap < RELIABLE_GAP

    @property
    def objects(self) -> list[Region]:
        """The regions that are objects."""
        return [region for region in self.regions if not region.text]

    @property
    def blocks(self) -> list[Region]:
        """The regions that are text."""
        return [region for region in self.regions if region.text]

    @property
    def lines(self) -> list[Region]:
        """The lines of the text; a block whose lines are not known is one."""
        return [line for block in self.blocks for line in block.parts or (block,)]

    @property
    def boxes(self) -> list[tuple[str, Coordinates]]:
        """(label, xyxy) of the objects."""
        return [(region.label, region.box) for region in self.objects]

    @property
    def markdown(self) -> str | None:
        """``markup``, which is markdown in all tasks so far."""
        return self.markup
