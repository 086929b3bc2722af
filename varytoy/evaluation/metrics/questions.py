"""Metrics of answers to questions. Each reference of a case is as good as the others; a case counts once (macro).
An empty answer is wrong, unless a reference is empty."""

import json
import re
from collections import Counter
from collections.abc import Mapping

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import F1, Mean, Metric, Ratio
from varytoy.tasks import metrics, notation

_LINE = re.compile(r"^\s*[-*]?\s*([^:\n]+?)\s*:[^\S\n]*(.*?)\s*$", re.MULTILINE)
_FENCE = re.compile(r"^\s*```\w*\n(.*?)\n?```\s*$", re.DOTALL)


def exact_match() -> Metric:
    """Share of answers that equal a reference, without case, articles and punctuation around words
    (``tasks.metrics.same_answer``, as the tasks "vqa" and "chat" are scored)."""

    def score(prediction: Prediction, case: Case) -> bool:
        return any(metrics.same_answer(prediction.text, each) for each in case.references)

    return Mean("exact match", score)


def same_molecule() -> Metric:
    """Share of SMILES that are the molecule of a reference, by RDKit's canonical SMILES (``tasks.notation``)."""

    def score(prediction: Prediction, case: Case) -> bool:
        return any(notation.same_molecule(prediction.text, each) for each in case.references)

    return Mean("same molecule", score)


def anls(keep_half: bool = False) -> Metric:
    """Average normalised Levenshtein similarity of DocVQA: of each question the best reference's 1 - distance / longer
    length, and 0 where the distance is not less than half of the length. In lower case, with single spaces.

    Args:
        keep_half: let a similarity of exactly 0.5 stand, as programs that compare with ``< 0.5`` do; the paper's
            formula (arXiv 1907.00490) makes it 0.
    """

    def score(prediction, case):
        best = max((_similarity(prediction.text, each) for each in case.references), default=0.0)
        return best if best > 0.5 or (keep_half and best == 0.5) else 0.0

    return Mean("ANLS", score)


def _similarity(answer: str, reference: str) -> float:
    answer, reference = " ".join(answer.lower().split()), " ".join(reference.lower().split())
    longest = max(len(answer), len(reference))
    return 1 - metrics.edit_distance(answer, reference) / longest if longest else 1.0


def relaxed_accuracy(tolerance: float = 0.05) -> Metric:
    """ChartQA's: a number is right within 5 % of the true one, anything else if it is the same without case. "12%" is
    0.12. A true 0 must be met to the letter, and "1,200" is no number, as in the original."""

    def score(prediction, case):
        return any(_nearly(prediction.text.strip(), each.strip(), tolerance) for each in case.references)

    return Mean("relaxed accuracy", score)


def _nearly(answer: str, reference: str, tolerance: float) -> bool:
    said, true = _number(answer), _number(reference)
    if said is not None and true:
        return answer == reference or abs(said - true) / abs(true) <= tolerance
    return answer.lower() == reference.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def yes_no() -> list[Metric]:
    """POPE's: accuracy, and precision, recall and F1 of "yes", and the share of answers that are "yes".

    As in its program, an answer is "no" if its first sentence has the word "no" or "not", else "yes". Unlike there,
    case is ignored, and an empty answer is neither: wrong, and not a "yes".
    """

    def hits(prediction: Prediction, case: Case) -> tuple[int, int, int]:
        said, true = is_yes(prediction.text), is_yes(case.truth)
        return int(said is True and true is True), int(said is True), int(true is True)

    return [
        Mean("yes/no accuracy", lambda prediction, case: is_yes(prediction.text) == is_yes(case.truth)),
        Ratio("precision of yes", lambda *pair: hits(*pair)[:2]),
        Ratio("recall of yes", lambda *pair: hits(*pair)[::2]),
        F1("F1 of yes", hits),
        Mean("share of yes", lambda prediction, case: is_yes(prediction.text) is True),
    ]


def is_yes(answer: str) -> bool | None:
    """Whether an answer says yes; None if it is empty."""
    words = answer.strip().split(".")[0].replace(",", "").lower().split()
    if not words:
        return None
    return not {"no", "not"} & set(words)


def entity_f1() -> Metric:
    """Micro F1 of fields with their values, as for SROIE's key information. A field counts if its name (without case)
    and its value (normalised, case counts) are right; a repeated one must be found as often.

    A case has ``facts["fields"]``: name -> value, or a list of values. An answer is a JSON object of the same form or
    lines ``name: value``; fields without a value are left out. FUNSD's usual F1 tags given words and does not compare.
    """

    def count(prediction, case):
        predicted, true = fields(prediction.text), _pairs(case.facts["fields"])
        return (predicted & true).total(), predicted.total(), true.total()

    return F1("entity F1", count)


def fields(answer: str) -> Counter:
    """(name, value) of each field of an answer."""
    fenced = _FENCE.match(answer)
    answer = fenced[1] if fenced else answer
    try:
        tree = json.loads(answer)
    except (ValueError, RecursionError):
        tree = None
    if isinstance(tree, dict):
        return _pairs(tree)
    return sum((_pairs({match[1]: match[2]}) for match in _LINE.finditer(answer)), Counter())


def _pairs(tree: Mapping[str, object]) -> Counter:
    pairs: Counter = Counter()
    for name, value in tree.items():
        for each in value if isinstance(value, list) else [value]:
            text = "" if each is None else metrics.normalise(str(each))
            if text:
                pairs[metrics.normalise(str(name)).casefold(), text] += 1
    return pairs
