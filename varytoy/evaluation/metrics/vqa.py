"""VQA accuracy, as the official program of VQA v2 computes it."""

import re
from collections.abc import Sequence

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Mean, Metric

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS = 32
"""The program passes the flag re.UNICODE, 32, where the number of replacements belongs."""
_NUMBERS = dict(zip("none zero one two three four five six seven eight nine ten".split(), (0, *range(11)), strict=True))
_ARTICLES = ("a", "an", "the")
_ONE = """ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't
somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd
they'll they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd
who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've"""
_TWO = """couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _ONE.split()}
"""How the program writes words without their apostrophes, those of two with one of them."""
for _word in _TWO.split():
    _first, _second, _third = _word.split("'")
    _CONTRACTIONS |= {f"{_first}{_second}'{_third}": _word, f"{_first}'{_second}{_third}": _word}
_CONTRACTIONS |= {word: "y'all'd've" for word in ("yall'd've", "y'alld've", "y'all'dve")}
_CONTRACTIONS |= {word: "'ow's'at" for word in ("ow's'at", "'ows'at", "'ow'sat")}
_CONTRACTIONS["somebody'd"] = "somebodyd"


def vqa_accuracy(official: bool = False) -> Metric:
    """Mean over questions of the mean, over the annotators, of min(1, how many of the others gave the answer / 3). The
    references of a case are the answers of all annotators, repeated as they were given; ten in VQA v2.

    Answers and references are compared without case, articles and most punctuation, numbers up to ten in digits; an
    empty answer is wrong.

    Args:
        official: leave the references as they are but for punctuation, and for that too where all agree, as the program
            does. The same for VQA v2, whose references are published in that form.
    """

    def score(prediction: Prediction, case: Case) -> float:
        if not prediction.text.strip():
            return 0.0
        return agreement(normalise(prediction.text), _references(case.references, official))

    return Mean("VQA accuracy", score)


def _references(answers: Sequence[str], official: bool) -> list[str]:
    if not official:
        return [normalise(answer) for answer in answers]
    return [strip_punctuation(answer) for answer in answers] if len(set(answers)) > 1 else list(answers)


def agreement(answer: str, references: Sequence[str]) -> float:
    """Of an answer with those of the annotators."""
    found = references.count(answer)
    return sum(min(1.0, (found - (other == answer)) / 3) for other in references) / max(len(references), 1)


def normalise(answer: str) -> str:
    """Without punctuation, case and articles; numbers in digits, contractions with their apostrophes."""
    words = strip_punctuation(" ".join(answer.split())).lower().split()
    words = [str(_NUMBERS.get(word, word)) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def strip_punctuation(text: str) -> str:
    """A mark goes if it stands beside a space anywhere, or the text has a comma between digits; else it becomes a
    space. A period goes unless a digit follows. Apostrophes and colons stay."""
    out, comma = text, _COMMA.search(text)
    for mark in _PUNCTUATION:
        beside = mark + " " in text or " " + mark in text
        out = out.replace(mark, "" if beside or comma else " ")
    return _PERIOD.sub("", out, count=_PERIODS)
