"""Tasks: one object each that holds its prompts, writes and parses its answers, draws itself and names its metric."""

from varytoy.tasks.base import Answer, Task, draw_boxes
from varytoy.tasks.language import Caption, Chat, Vqa
from varytoy.tasks.places import Detection, Grounding
from varytoy.tasks.reading import Markdown, Ocr

TASKS: dict[str, Task] = {
    task.name: task for task in (Ocr(), Markdown(), Detection(), Grounding(), Caption(), Vqa(), Chat())
}


def get_task(name: str) -> Task:
    """The task of that name. Raises ValueError naming the known ones."""
    try:
        return TASKS[name]
    except KeyError:
        raise ValueError(f"no task '{name}'; the tasks are {', '.join(TASKS)}") from None


__all__ = ["TASKS", "Answer", "Task", "draw_boxes", "get_task"]
