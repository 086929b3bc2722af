"""Tasks: each object holds its prompts, formats and parses its answers, draws them and defines its metric."""

import re

from varytoy.data.answer import Answer, Region
from varytoy.data.sample import TASK_NAMES
from varytoy.tasks.base import Task, draw_regions
from varytoy.tasks.drawing import Edit, Erase, Write
from varytoy.tasks.language import Caption, Chat, Vqa
from varytoy.tasks.notation import Formula, Geometry, Molecule, Music
from varytoy.tasks.places import Detection, Grounding
from varytoy.tasks.reading import Markdown, Ocr
from varytoy.tasks.spotting import Spotting

TASKS: dict[str, Task] = {}
"""Name -> task, in the order in which they are listed."""


def register(task: Task) -> None:
    """Make a task known to samples, the command line, training, the evaluation and the demo."""
    TASKS[task.name] = task
    TASK_NAMES.add(task.name)


_READING, _SEEING, _ASKED = (Ocr(), Markdown(), Spotting()), (Detection(), Grounding(), Caption()), (Vqa(), Chat())
_NOTATIONS, _DRAWN = (Formula(), Music(), Geometry(), Molecule()), (Erase(), Edit(), Write())
for _task in (*_READING, *_SEEING, *_ASKED, *_NOTATIONS, *_DRAWN):
    register(_task)


def get_task(name: str) -> Task:
    """The task of that name. Raises ValueError naming the known ones."""
    try:
        return TASKS[name]
    except KeyError:
        raise ValueError(f"no task '{name}'; the tasks are {', '.join(TASKS)}") from None


def find_prompt(text: str) -> tuple[Task, str] | None:
    """The task that ``text`` is a prompt of, in any wording, and the argument in it; None if there is none."""
    for task in TASKS.values():
        for form in (*task.prompts, *task.class_prompts, *task.aliases):
            if form == "{}":
                continue  # chat's prompt matches any text
            before, slot, after = form.partition("{}")
            if not slot and text.casefold() == form.casefold():
                return task, ""
            match = slot and re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", text, re.IGNORECASE | re.DOTALL)
            if match:
                return task, match[1].strip()
    return None


__all__ = ["TASKS", "Answer", "Region", "Task", "draw_regions", "find_prompt", "get_task", "register"]
