"""The stages: what each asks about a question, and what it makes of the replies.

A stage that finds a fault drops the question with a reason. Questions whose answers are known from the page itself
(``Item.answers``) are only put in other words: no model's reply becomes their answer, and no filter judges them.
"""

import re
from collections.abc import Iterator, Sequence

from data_tools.render.truth import Truth
from data_tools.render.truth import questions as from_templates
from data_tools.square import parse
from data_tools.square.agree import Agreement, compare, stands_in
from data_tools.square.items import Item, Page
from data_tools.square.prompts import WORDINGS
from data_tools.square.replies import Ask, Replies
from data_tools.writer import generator
from varytoy.data.spots import UNANSWERABLE

EVALUATION = ("meaningful", "answerable", "correct")
FILTERS = ("answered", *EVALUATION, "wordings", "contexts")
"""The verdicts that decide, in the order of the stages."""
_QUOTED = re.compile(r"\d[\d.,/:-]*|[\"\u201c']([^\"\u201d']+)[\"\u201d']|\b[A-Z][\w-]+")


class Stage:
    """Asks about questions and settles them by the replies.

    Attributes:
        name: of its file.
    """

    name: str

    def asks(self, item: Item, page: Page, values: dict[str, str]) -> Iterator[Ask]:
        """What is asked about a question."""
        raise NotImplementedError

    def more(self, item: Item, page: Page, values: dict[str, str], replies: Replies) -> Iterator[Ask]:
        """What is asked when the replies to ``asks`` are there."""
        return iter(())

    def settle(self, item: Item, replies: Replies) -> None:
        """Fill in what the replies say. All of them are there."""
        raise NotImplementedError


class Questions:
    """Self-questioning: pages become questions. With ``templates`` a page whose truth is known asks itself, and a model
    only finds other words; with ``from_text`` a model that sees no picture gives questions with their answers.

    Args:
        count: questions a page.
    """

    name = "1-questions"

    def __init__(self, count: int, seed: int, templates: bool = False, from_text: bool = False, reword: bool = True):
        self.count, self.seed = count, seed
        self.templates, self.from_text, self.reword = templates, from_text, reword

    def asks(self, page: Page, values: dict[str, str]) -> Iterator[Ask]:
        values = {**values, "count": str(self.count)}
        if self.templates and page.truth:
            for item in self.of_template(page) if self.reword else ():
                yield Ask(item.id, "ask.reword", page, {"question": item.question}, see=False)
        elif self.from_text:
            if page.text:
                yield Ask(page.id, "ask.pairs", page, values, see=False, max_tokens=1024)
        else:
            yield Ask(page.id, "ask.questions", page, values, max_tokens=1024)

    def items(self, page: Page, replies: Replies) -> list[Item]:
        """The questions about a page; those that are not usable are dropped."""
        if self.templates and page.truth:
            items = self.of_template(page)
            for item in items:
                other = replies.of(item.id, "ask.reword")
                if other and _same_names(item.question, other):
                    item.question = " ".join(other.split())
            return _without_twins(items)
        if self.from_text:
            reply = replies.of(page.id, "ask.pairs") or ""
            found = parse.pairs(reply)
        else:
            reply = replies.of(page.id, "ask.questions") or ""
            found = [(question, "") for question in parse.questions(reply)]
        items = [Item(f"{page.id}-{number}", page.id, *pair) for number, pair in enumerate(found, 1)]
        for item in items:
            if len(item.question) > parse.LONGEST_QUESTION:
                item.fail("question too long")
            if self.from_text and not stands_in(item.answer, page.text):
                item.fail("answer does not stand in the text")
        return _without_twins(items)

    def of_template(self, page: Page) -> list[Item]:
        assert page.truth is not None
        rng = generator(self.seed, "square", page.id)
        asked = from_templates(Truth.from_json(page.truth), rng, self.count)
        return [
            Item(f"{page.id}-{number}", page.id, each.text, each.answers[0], list(each.answers), each.kind, each.reason)
            for number, each in enumerate(asked, 1)
        ]


class Answers(Stage):
    """Self-answering, bare, after thinking and with examples: the answer is the one that most agree with, and the bare
    one where none agree."""

    name = "2-answers"
    WAYS = ("answer.bare", "answer.thought", "answer.examples")

    def asks(self, item, page, values):
        for way in self.WAYS if not item.answer else ():  # an answer that came with the question stays
            yield Ask(item.id, way, page, values, max_tokens=512 if way == "answer.thought" else 64)

    def settle(self, item, replies):
        if item.answer:
            return
        said = [parse.answer(replies.of(item.id, way) or "") for way in self.WAYS]
        friends = [sum(bool(compare(one, other).same) for other in said) for one in said]
        item.answer = said[friends.index(max(friends))]
        fault = ""
        if not item.answer:
            fault = "no answer"
        elif len(item.answer) > parse.LONGEST_ANSWER:
            fault = "answer too long"
        elif item.answer == UNANSWERABLE:
            fault = "no answer in the picture, says the model"
        item.verdicts["answered"] = not fault
        if fault:
            item.fail(fault)


class Reasons(Stage):
    """Self-reasoning: why the answer is right."""

    name = "3-reasons"

    def asks(self, item, page, values):
        if not item.reason:
            yield Ask(item.id, "reason", page, {**values, "answer": item.answer})

    def settle(self, item, replies):
        if not item.reason:
            item.reason = " ".join((replies.of(item.id, "reason") or "").split())
        if not item.reason:
            item.fail("no reason")


class Evaluation(Stage):
    """Self-evaluation: is the question meaningful, does the picture answer it, is the answer right?"""

    name = "4-evaluation"

    def asks(self, item, page, values):
        yield Ask(item.id, "evaluation", page, {**values, "answer": item.answer}, max_tokens=128)

    def settle(self, item, replies):
        found = parse.verdicts(replies.of(item.id, "evaluation") or "", EVALUATION)
        if found is None:
            item.fail("evaluation is not readable")
            return
        item.verdicts |= found
        for name, right in found.items():
            if not right:
                item.fail(f"not {name}")


class Consistency(Stage):
    """Answers that were asked for in another way must mean the same as the answer."""

    filter: str

    def others(self, item: Item, replies: Replies) -> list[tuple[str, str]]:
        """(what was asked, the answer) of each."""
        raise NotImplementedError

    def more(self, item, page, values, replies):
        for name, other in self.others(item, replies):
            if compare(item.answer, other).same is None:
                filled = {"question": item.question, "answer": item.answer, "other": other}
                yield Ask(item.id, f"compare#{name}", page, filled, see=False, max_tokens=16)

    def settle(self, item, replies):
        rows = []
        for name, other in self.others(item, replies):
            found = compare(item.answer, other)
            if found.same is None and (said := replies.of(item.id, f"compare#{name}")) is not None:
                found = Agreement(parse.yes(said), "model")
            rows.append({"asked": name, "answer": other, "same": bool(found.same), "by": found.by})
        item.compared[self.filter] = rows
        item.verdicts[self.filter] = all(row["same"] for row in rows)
        if not item.verdicts[self.filter]:
            item.fail(f"answers differ between {self.filter}")


class Wordings(Consistency):
    """Multi-prompt consistency: the question under other instructions."""

    name, filter = "5-wordings", "wordings"

    def asks(self, item, page, values):
        for name in WORDINGS:
            yield Ask(item.id, name, page, values, max_tokens=64)

    def others(self, item, replies):
        return [(name, parse.answer(replies.of(item.id, name) or "")) for name in WORDINGS]


class Contexts(Consistency):
    """Multi-context consistency: the question bare, after examples, and after the reason. What stage 2 has asked is not
    asked again."""

    name, filter = "6-contexts", "contexts"
    WAYS = ("answer.bare", "answer.examples")

    def __init__(self, answers: Replies):
        self.answers = answers

    def asks(self, item, page, values):
        yield Ask(item.id, "context.reason", page, {**values, "reason": item.reason}, max_tokens=64)
        for way in self.WAYS:
            if self.answers.of(item.id, way) is None:
                yield Ask(item.id, way, page, values, max_tokens=64)

    def others(self, item, replies):
        said = [("context.reason", replies.of(item.id, "context.reason") or "")]
        for way in self.WAYS:
            said.append((way, self.answers.of(item.id, way) or replies.of(item.id, way) or ""))
        return [(name, parse.answer(reply)) for name, reply in said]


def _same_names(first: str, second: str) -> bool:
    """Whether a question in other words has the numbers, the quoted words and the names of the first."""
    wanted = [found[0].strip("\"\u201c\u201d'") for found in _QUOTED.finditer(first[1:])]
    return (
        len(second) <= parse.LONGEST_QUESTION
        and "\n" not in second.strip()
        and all(name.lower() in second.lower() for name in wanted)
    )


def _without_twins(items: Sequence[Item]) -> list[Item]:
    """With the later ones of equal questions dropped."""
    seen: set[str] = set()
    for item in items:
        plain = " ".join(re.findall(r"\w+", item.question.casefold()))
        if plain in seen or not plain:
            item.fail("asked twice" if plain else "no question")
        seen.add(plain)
    return list(items)
