"""Which task a free prompt about an image asks for."""

import re

from PIL import Image

from varytoy.inference.reader import Reader
from varytoy.tasks import find_prompt

_MARKDOWN = re.compile(r"markdown|html|latex|table", re.IGNORECASE)
_QUESTION = re.compile(r"[?？]\s*$", re.MULTILINE)


def takes_free_words(reader: Reader) -> bool:
    """Whether the model may be asked anything: it was not trained on listed prompts, and is not read block by block."""
    processor = reader.processor
    return not processor.prompts and processor.image_processor.mode != "fit"


def task_of(reader: Reader, prompt: str, image: Image.Image) -> tuple[str, str]:
    """(task, argument). A wording of a task names it. Else the image decides: text is read, as markdown if the prompt
    speaks of a format, or asked the prompt if the model takes free words; a photograph is described, or asked the
    prompt if a line of it ends with a question mark."""
    found = find_prompt(prompt)
    if found:
        return found[0].name, found[1]
    likely = reader.task_for(image)
    if likely == "ocr":
        if prompt and takes_free_words(reader):
            return "chat", prompt
        known = reader.processor.prompts
        return ("markdown" if _MARKDOWN.search(prompt) and (not known or "markdown" in known) else "ocr"), ""
    return ("vqa", prompt) if _QUESTION.search(prompt) else (likely, "")
