"""Spotting: the text lines of an image, each with its box."""

from PIL import Image

from varytoy.data.answer import Answer, Region
from varytoy.data.boxes import Box, Coordinates
from varytoy.data.spots import format_spots, parse_spots
from varytoy.tasks import metrics
from varytoy.tasks.base import Task, draw_regions

_MARGIN = 3


class Spotting(Task):
    """The answer is written as ``varytoy.data.spots`` says; both dialects are read."""

    name = "spot"
    view = "text"
    literal = True
    metric = "F1 of lines at IoU 0.5"
    reads = "ocr"
    aliases = ("<ocr>",)
    prompts = (
        "Read the text with its boxes.",
        "Give each line of text with its box.",
        "Spot the text in this image.",
        "Where does each line of text stand?",
        "Read every text line and its place.",
        "List the text lines with their boxes.",
        "Detect and read the text.",
        "Write each line after its box.",
        "What is written here, and where?",
        "Find all lines of text and read them.",
    )

    def answer(self, truth):
        """``truth``: the lines as Box, whose labels are the texts."""
        return format_spots(truth)

    def parse(self, text, size, argument=""):
        spots = parse_spots(text)
        regions = [Region(line.to_pixels(*size), text=line.label) for line in spots.lines]
        return Answer(text.strip(), regions, dropped=spots.dropped)

    def from_lines(self, lines, size):
        return format_spots(Box.from_pixels(line.text, line.box, *size) for line in lines)

    def draw(self, image: Image.Image, answer: Answer) -> Image.Image:
        return draw_regions(image, [Region(_around(line.box), polygon=line.polygon) for line in answer.lines])

    def score(self, predictions, samples):
        """``metrics.detection_f1`` with the texts as labels: a line counts if its text is right, without case, too."""
        read = [parse_spots(text).lines for text in predictions]
        truths = [sample.boxes or parse_spots(sample.answer).lines for sample in samples]
        return metrics.detection_f1(read, truths)


def _around(box: Coordinates) -> Coordinates:
    """Wider, so that the outline leaves the letters free."""
    return box[0] - _MARGIN, box[1] - _MARGIN, box[2] + _MARGIN, box[3] + _MARGIN
