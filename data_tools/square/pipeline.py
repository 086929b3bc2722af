"""The pipeline: pages, questions, answers, reasons, and the filters, each a pass over what is left."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.square.agree import stands_in
from data_tools.square.asking import Asker
from data_tools.square.items import Item, Page
from data_tools.square.replies import Ask, Replies
from data_tools.square.stages import Answers, Contexts, Evaluation, Questions, Reasons, Stage, Wordings
from varytoy.evaluation.run_folder import replace_lines

ITEMS, SETTINGS = "items.jsonl", "run.json"


@dataclass
class Yield:
    """Questions of a run.

    Attributes:
        left: stage -> questions that are left after it.
        reasons: why the others were dropped -> how many.
    """

    pages: int = 0
    left: dict[str, int] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The yield of each stage, for people."""
        first = next(iter(self.left.values()), 0)
        rows = [f"{self.pages:>8,} pages"]
        for name, count in self.left.items():
            share = f" ({count / first:.0%})" if first else ""
            rows.append(f"{count:>8,} questions after {name}{share}")
        rows += [f"{count:>8,} dropped: {reason}" for reason, count in self.reasons.most_common()]
        return rows


class Pipeline:
    """All stages over the pages of a folder. A stage's replies are in its file; what is there is not asked again.

    Args:
        keep_going: ask about dropped questions too, so that each filter's verdict on each question is known.
    """

    def __init__(self, folder: Path, asker: Asker, questions: Questions, keep_going: bool = False):
        self.folder, self.asker, self.questions, self.keep_going = folder, asker, questions, keep_going
        self.files: dict[str, Replies] = {}
        answers = self._replies(Answers.name)
        self.stages: list[Stage] = [Answers(), Reasons(), Evaluation(), Wordings(), Contexts(answers)]
        for stage in (questions, *self.stages):
            replies = self._replies(stage.name)
            asker.budget.requests += replies.requests
            asker.budget.tokens += replies.tokens

    def _replies(self, name: str) -> Replies:
        if name not in self.files:
            self.files[name] = Replies(self.folder / f"{name}.jsonl")
        return self.files[name]

    def run(self, pages: Sequence[Page]) -> tuple[list[Item], Yield]:
        """The questions, kept and dropped.

        Raises:
            Stopped: before the end; what was replied is kept.
        """
        replies, by_id = self._replies(self.questions.name), {page.id: page for page in pages}
        found = Yield(len(pages))
        self._ask((ask for page in pages for ask in self.questions.asks(page, self._values(page))), replies)
        items = [item for page in pages for item in self.questions.items(page, replies)]
        found.left["asking"] = len(items)
        found.left[self.questions.name] = sum(not item.dropped for item in items)
        for stage in self.stages:
            self._pass(stage, items, by_id)
            found.left[stage.name] = sum(not item.dropped for item in items)
        for item in items:
            if text := by_id[item.page].text:
                item.in_text = stands_in(item.answer, text)
            if item.dropped:
                found.reasons[item.dropped] += 1
        replace_lines(self.folder / ITEMS, [item.to_json() for item in items])
        return items, found

    def _pass(self, stage: Stage, items: Iterable[Item], pages: dict[str, Page]) -> None:
        replies = self._replies(stage.name)
        asked = [item for item in items if not item.answers and item.question and self._goes_on(item)]
        values = {item.id: {**self._values(pages[item.page]), "question": item.question} for item in asked}
        self._ask((ask for item in asked for ask in stage.asks(item, pages[item.page], values[item.id])), replies)
        self._ask(
            (ask for item in asked for ask in stage.more(item, pages[item.page], values[item.id], replies)), replies
        )
        for item in asked:
            stage.settle(item, replies)

    def _goes_on(self, item: Item) -> bool:
        return not item.dropped or self.keep_going

    def _ask(self, asks: Iterable[Ask], replies: Replies) -> None:
        self.asker.ask(asks, replies, replies.file.stem)
        self.asker.check()

    def _values(self, page: Page) -> dict[str, str]:
        return {"text": page.text} if page.text else {}


def check_settings(folder: Path, settings: dict) -> None:
    """Keep the settings of a run, or compare them with those that are there.

    Raises:
        ValueError: the folder was begun with others, or holds other files.
    """
    file = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    if file.is_file():
        there = json.loads(file.read_text(encoding="utf-8"))
        for name in dict.fromkeys((*there, *settings)):
            if there.get(name) != settings.get(name):
                raise ValueError(
                    f"{folder} was begun with {name} {there.get(name)!r}, not {settings.get(name)!r}: "
                    "give the same, or another --out"
                )
        return
    if folder.is_dir() and any(path.name != "run.lock" for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other files: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
