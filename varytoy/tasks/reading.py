"""OCR and markdown: the text of an image, plain or formatted."""

from varytoy.tasks import metrics
from varytoy.tasks.base import NotationTask, Task


class Ocr(Task):
    name = "ocr"
    view = "text"
    aliases = ("OCR:",)
    literal = True
    metric, is_error = "character error rate", True
    prompts = (
        "Provide the OCR results of this image.",
        "Read the text in this image.",
        "What does this image say?",
        "Write out all the text you see.",
        "Transcribe this image.",
        "OCR this image.",
        "What is written here?",
        "Extract all text from this image.",
        "Type out the text in the picture.",
        "Copy the text of this image.",
        "Recognize the text in this image.",
    )

    def score(self, predictions, samples):
        return metrics.character_error_rate(predictions, [sample.answer for sample in samples])


class Markdown(NotationTask):
    name = "markdown"
    view = "text"
    aliases = ("<md>", "OCR with format:")
    metric = "markdown tree similarity"
    prompts = (
        "Convert the image to markdown format.",
        "Write this image as markdown.",
        "Give the text with its formatting in markdown.",
        "Transcribe this image to markdown.",
        "Return the content of this image as markdown.",
        "Extract the text and its structure as markdown.",
        "What is this page in markdown?",
        "Rewrite the image as a markdown document.",
        "Output this page in markdown format.",
        "Turn the image into markdown.",
    )

    def score(self, predictions, samples):
        pairs = zip(predictions, samples, strict=True)
        return metrics.mean(metrics.markdown_tree_similarity(text, sample.answer) for text, sample in pairs)
