"""Which task a free prompt about an image asks for."""

import re

from PIL import Image

from varytoy.inference.reader import Reader
from varytoy.tasks import find_prompt

_MARKDOWN = re.compile(r"markdown|html|latex|table", re.IGNORECASE)
_QUESTION = re.compile(r"[?？]\s*$", re.MULTILINE)
_EVALUATIONS = (
    (r"(.+)\nAnswer the question (?:using|with) a single word(?: or(?: short)? phrase| only)?\.", "vqa"),
    (r'Locate every object that matches the description "(.+?)"(?:, ".+")? in the image\..*', "ground"),
    (r"Bounding box coordinates .+ between 0 and 1\. .+ region this sentence describes: (.+)", "ground"),
)
"""Wordings of evaluations: DocVQA, GQA and others, in LLaVA's; RefCOCO in two of lmms-eval's, the first with several
expressions for the same object, of which the first is taken."""


def takes_free_words(reader: Reader) -> bool:
    """Whether the model may be asked anything: it was not trained on listed prompts, and is not read block by block."""
    processor = reader.processor
    return not processor.prompts and processor.image_processor.mode != "fit"


def wording_of(reader: Reader, prompt: str) -> tuple[str, str] | None:
    """(task, argument) of a prompt that is a wording of a task, ours or that of an evaluation; else None."""
    for form, task in _EVALUATIONS:
        match = re.fullmatch(form, prompt, re.DOTALL)
        if match and not (task == "vqa" and takes_free_words(reader)):
            return task, match[1].strip()
    found = find_prompt(prompt)
    return (found[0].name, found[1]) if found else None


def task_of(reader: Reader, prompt: str, image: Image.Image) -> tuple[str, str]:
    """(task, argument). A wording of a task names it. Else the image decides: text is read, as markdown if the prompt
    speaks of a format, or asked the prompt if the model takes free words; a photograph is described. A prompt of which
    a line ends with a question mark is asked about a photograph, and about text if the model has a part for that."""
    found = wording_of(reader, prompt)
    if found:
        return found
    likely = reader.task_for(image)
    if likely == "ocr":
        if "question" in reader.parts.views and _QUESTION.search(prompt):
            return "vqa", prompt
        if prompt and takes_free_words(reader):
            return "chat", prompt
        known = reader.processor.prompts
        return ("markdown" if _MARKDOWN.search(prompt) and (not known or "markdown" in known) else "ocr"), ""
    return ("vqa", prompt) if _QUESTION.search(prompt) else (likely, "")
