"""A model that is scripted: it knows what rendered pages say, and makes a known share of mistakes. For measuring the
filters, and for tests."""

import json
import random
from dataclasses import dataclass, fields
from pathlib import Path

from data_tools.render.truth import KINDS, Question, Truth, as_number, questions
from data_tools.square.agree import compare
from data_tools.square.backends.base import Backend, BackendError
from data_tools.square.items import Page
from data_tools.square.replies import Ask, Reply
from data_tools.square.stages import EVALUATION
from data_tools.writer import generator
from varytoy.data.spots import UNANSWERABLE

MEANINGLESS = (
    "What is the text of the text?",
    "Why is the picture?",
    "Which of them does it say here the most?",
    "What does the word mean to the reader of the word?",
    "How many are there of it?",
    "What would the number be?",
)
_MOST = 12
"""Questions about a page."""
_REPEATED = 0.75
"""How often a model that has read a reason for a wrong answer gives that answer again."""


@dataclass(frozen=True)
class Mistakes:
    """Shares of what goes wrong.

    Attributes:
        wrong: answerable questions that the model does not know the answer to.
        stubborn: of the wrong ones, those to which it gives the same wrong answer whenever it is asked, which no check
            of consistency can find; the others get now one, now another.
        meaningless, unanswerable: questions.
        judge: verdicts of an evaluation that are right;
        blind: stubborn wrong answers that the evaluation takes for right, because the same model judges.
        unreadable: replies that are not what was asked for.
    """

    wrong: float = 0.2
    stubborn: float = 0.3
    meaningless: float = 0.05
    unanswerable: float = 0.1
    judge: float = 0.93
    blind: float = 0.7
    unreadable: float = 0.01


@dataclass(frozen=True)
class Asked:
    """A question of the script.

    Attributes:
        question: None if it is meaningless.
        fate: right, stubborn, wavering, unanswerable or meaningless.
    """

    text: str
    question: Question | None
    fate: str


class Scripted(Backend):
    """See the module; the same seed gives the same replies. Pages without a known truth are refused."""

    needs_picture = True  # equal words about different pages are different requests

    def __init__(self, mistakes: Mistakes = Mistakes()):
        self.mistakes = mistakes
        parts = ",".join(f"{each.name}={getattr(mistakes, each.name):g}" for each in fields(mistakes))
        self.name = f"scripted:{parts}"
        self._asked: dict[tuple[str, int], dict[str, Asked]] = {}

    @classmethod
    def parse(cls, text: str) -> "Scripted":
        """``wrong=0.3,judge=0.9``. Raises ValueError."""
        known, given = {each.name for each in fields(Mistakes)}, {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            try:
                given[name] = float(value)
            except ValueError:
                given[name] = -1.0
            if name not in known or not 0 <= given[name] <= 1:
                raise ValueError(f"--backend scripted: '{part}' is not NAME=SHARE; names are {', '.join(known)}")
        return cls(Mistakes(**given))

    def asked(self, page: Page, seed: int) -> dict[str, Asked]:
        """Text of each question that it asks about a page -> what it is."""
        if (page.sha256, seed) not in self._asked:
            if not page.truth:
                raise BackendError(f"--backend scripted knows rendered pages alone, and not {page.source}", final=True)
            self._asked[page.sha256, seed] = {each.text: each for each in self._script(page, seed)}
        return self._asked[page.sha256, seed]

    def _script(self, page: Page, seed: int) -> list[Asked]:
        rng, own, truth = generator(seed, "scripted", page.sha256), self.mistakes, Truth.from_json(page.truth or {})
        rows = []
        answerable = [kind for kind in KINDS if kind != "unanswerable"]
        for question in questions(truth, rng, _MOST, answerable):
            at = rng.random()
            absent = questions(truth, rng, 1, ["unanswerable"])
            if at < own.meaningless:
                rows.append(Asked(rng.choice(MEANINGLESS), None, "meaningless"))
            elif at < own.meaningless + own.unanswerable and absent:
                rows.append(Asked(absent[0].text, absent[0], "unanswerable"))
            elif rng.random() < own.wrong:
                fate = "stubborn" if rng.random() < own.stubborn else "wavering"
                rows.append(Asked(question.text, question, fate))
            else:
                rows.append(Asked(question.text, question, "right"))
        return rows

    def is_right(self, page: Page, seed: int, question: str, answer: str) -> bool:
        """Whether a question is meaningful and answerable, and the answer right."""
        found = self.asked(page, seed).get(question)
        return bool(found and found.question) and self._right(found, answer)

    def _right(self, asked: Asked, answer: str) -> bool:
        if asked.fate in ("meaningless", "unanswerable") or asked.question is None:
            return False
        return any(compare(answer, each).same for each in asked.question.answers)

    def reply(self, ask: Ask, prompt: str, image: Path | None, temperature: float, seed: int) -> Reply:
        rng = generator(seed, ask.item, ask.name)
        script = self.asked(ask.page, seed)
        tokens = (len(prompt) // 4, 20)
        if rng.random() < self.mistakes.unreadable:
            return Reply(rng.choice(("", "I am sorry, but I cannot help with that.", "{]")), tokens)
        if ask.prompt_name == "caption":
            return Reply(_caption(ask.page, rng.random() < self.mistakes.wrong), tokens)
        if ask.prompt_name in ("ask.questions", "ask.pairs"):
            rows: list = list(script)[: int(ask.values["count"])]
            if ask.prompt_name == "ask.pairs":
                rows = [{"question": text, "answer": self._first(ask.page, script[text], seed)} for text in rows]
            return Reply(json.dumps(rows, ensure_ascii=False), tokens)
        question = ask.values["question"]
        if ask.prompt_name == "ask.reword":
            return Reply(f"Please tell me: {question[0].lower()}{question[1:]}", tokens)
        asked = script.get(question)
        if asked is None:
            raise BackendError(f"--backend scripted did not ask {question!r}", final=True)
        if ask.prompt_name == "evaluation":
            return Reply(self._evaluation(asked, ask.values["answer"], rng), tokens)
        if ask.prompt_name == "compare":
            same = self._right(asked, ask.values["answer"]) and self._right(asked, ask.values["other"])
            return Reply("yes" if same == (rng.random() < self.mistakes.judge) else "no", tokens)
        if ask.prompt_name == "reason":
            known = asked.question.reason if asked.question and self._right(asked, ask.values["answer"]) else ""
            return Reply(known or f"The image shows it: the answer is {ask.values['answer']}.", tokens)
        said = self._answer(asked, ask, rng, generator(seed, ask.page.sha256, question))
        return Reply(f"I look for it in the image.\nAnswer: {said}" if ask.name == "answer.thought" else said, tokens)

    def _first(self, page: Page, asked: Asked, seed: int) -> str:
        """The answer that comes with the question."""
        if asked.fate == "right" and asked.question:
            return asked.question.answers[0]
        return _wrong(Truth.from_json(page.truth or {}), asked.question, generator(seed, page.sha256, asked.text))[0]

    def _evaluation(self, asked: Asked, answer: str, rng: random.Random) -> str:
        right = self._right(asked, answer) or (asked.fate == "stubborn" and rng.random() < self.mistakes.blind)
        truth = (asked.fate != "meaningless", asked.fate not in ("meaningless", "unanswerable"), right)
        said = [true == (rng.random() < self.mistakes.judge) for true in truth]
        return json.dumps(dict(zip(EVALUATION, said, strict=True)))

    def _answer(self, asked: Asked, ask: Ask, rng: random.Random, fixed: random.Random) -> str:
        """``rng`` differs with each request, ``fixed`` with each question."""
        truth = Truth.from_json(ask.page.truth or {})
        if asked.fate == "right" and asked.question:
            return rng.choice(asked.question.answers)
        wrong = _wrong(truth, asked.question, fixed)
        if asked.fate == "stubborn":
            return wrong[0]
        if ask.prompt_name == "context.reason" and rng.random() < _REPEATED:
            return ask.values["reason"].rpartition(" is ")[2].rstrip(".")
        if asked.fate == "wavering" and asked.question and rng.random() < 0.3:
            return asked.question.answers[0]
        if asked.fate in ("unanswerable", "meaningless") and rng.random() < 0.3:
            return UNANSWERABLE
        return rng.choice(wrong)


def _wrong(truth: Truth, question: Question | None, rng: random.Random) -> list[str]:
    """Three wrong answers, such as a model gives: other values of the page, or a number with another digit."""
    right = question.answers if question else ()
    values = [value for each in truth.fields.values() for value in each[:1]]
    values += [cell for row in truth.grid.rows for cell in row if cell] if truth.grid else []
    numeric = bool(right) and as_number(right[0]) is not None
    near = [value for value in values if (as_number(value) is not None) == numeric]
    others = [value for value in dict.fromkeys(near or values) if not any(compare(value, each).same for each in right)]
    rng.shuffle(others)
    while len(others) < 3:
        digits = right[0] if numeric else "0"
        place = rng.randrange(len(digits))
        changed = digits[:place] + str(rng.randint(1, 9)) + digits[place + 1 :] if digits[place].isdigit() else ""
        others.append(changed if changed and changed != digits else f"{rng.randint(1, 999)}")
    return others[:3]


def _caption(page: Page, wrong: bool) -> str:
    """A description that quotes what a page says; or that quotes something else."""
    truth = Truth.from_json(page.truth or {})
    values = [values[0] for values in truth.fields.values()]
    values += [" ".join(row) for row in truth.grid.rows] if truth.grid else []
    quoted = [f'the line "{value[::-1] if wrong else value}"' for value in values]
    return f"The image shows a {truth.subject}. It has {', '.join(quoted)}, in dark letters below each other."
