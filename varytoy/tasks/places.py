"""Detection (all objects, or named classes) and grounding (the one object that a phrase refers to)."""

from dataclasses import replace

from varytoy.data.boxes import Box, format_box, format_boxes, parse_boxes
from varytoy.data.sample import Sample
from varytoy.tasks import metrics
from varytoy.tasks.base import Answer, Task, object_regions


class Detection(Task):
    name = "detect"
    metric = "F1 at IoU 0.5"
    prompts = (
        "Detect all objects in this image.",
        "Find every object in this image.",
        "Where are the objects in this picture?",
        "List the objects with their boxes.",
        "Give the boxes of all objects.",
        "Mark every object in the picture.",
        "Which objects are in this image, and where?",
        "Detect everything in this picture.",
        "Locate all objects in this image.",
        "Show where each object is.",
    )
    class_prompts = (
        "Detect {} in this image.",
        "Find every {} in this image.",
        "Where are these: {}?",
        "Locate all {} in this image.",
        "Box every {} in the picture.",
        "Give the boxes of these: {}.",
        "Show where these are: {}.",
        "Detect these objects: {}.",
        "List the boxes of these: {}.",
        "Which of these are in the image, and where: {}?",
    )

    def prompt(self, argument="", rng=None):
        """With an argument (``cat, car``) only those classes are to be detected."""
        if not argument.strip():
            return super().prompt("", rng)
        form = rng.choice(self.class_prompts) if rng else self.class_prompts[0]
        return form.format(argument.strip())

    def answer(self, truth):
        """``truth``: a list of Box."""
        return format_boxes(truth) or "None."

    def parse(self, text, size, argument=""):
        return Answer(text.strip(), object_regions(parse_boxes(text), size))

    def score(self, predictions, samples):
        return metrics.detection_f1([parse_boxes(text) for text in predictions], [_truth(sample) for sample in samples])


class Grounding(Task):
    name = "ground"
    metric = "accuracy at IoU 0.5"
    takes = "a phrase that names the object"
    prompts = (
        "Detect an object: {}.",
        "Where is {}?",
        "Find {}.",
        "Give the box of {}.",
        "Locate {}.",
        "Point to {}.",
        "Where can {} be seen?",
        "Show me {}.",
        "What is the box of {}?",
        "In which part of the image is {}?",
    )

    def answer(self, truth):
        """``truth``: the one Box."""
        return format_box(truth.xyxy)

    def parse(self, text, size, argument=""):
        regions = object_regions(parse_boxes(text)[:1], size)
        return Answer(text.strip(), [replace(region, label=argument.strip() or region.label) for region in regions])

    def score(self, predictions, samples):
        """Correct is a first box that overlaps the true one, or no box if the truth has none."""
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(_is_correct(parse_boxes(text)[:1], _truth(sample)) for text, sample in pairs)


def _truth(sample: Sample) -> list[Box]:
    """The boxes of a sample; if it lists none, those in its answer."""
    return sample.boxes or parse_boxes(sample.answer)


def _is_correct(predicted: list[Box], truth: list[Box]) -> bool:
    return metrics.box_hit(predicted, truth[0]) if truth else not predicted
