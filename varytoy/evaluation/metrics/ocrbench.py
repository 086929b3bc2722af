"""OCRBench (arXiv 2305.07895): 1000 questions, one point each. Its score is the number of points, a thousand times
``contained`` of the whole set.

A case has the category in ``group`` and the name of its data set in ``facts["dataset"]``.
"""

from collections.abc import Callable

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Mean, Metric

RECOGNITION = "Text Recognition"
CATEGORIES = {
    "Regular Text Recognition": 50,
    "Irregular Text Recognition": 50,
    "Artistic Text Recognition": 50,
    "Handwriting Recognition": 50,
    "Digit String Recognition": 50,
    "Non-Semantic Text Recognition": 50,
    "Scene Text-centric VQA": 200,
    "Doc-oriented VQA": 200,
    "Key Information Extraction": 200,
    "Handwritten Mathematical Expression Recognition": 100,
}
"""Category -> questions. The first six together are ``RECOGNITION`` in the papers' tables."""
FORMULAS = "HME100k"
"""The data set of formulas, compared with case and without spaces."""


def contained() -> Metric:
    """Share of answers that contain a reference anywhere, in lower case; of ``HME100k`` with case and without spaces.
    Long answers win: read it beside ``exact`` and ``text.length``. Empty references are left out."""
    return _share("answer contains the truth", lambda answer, reference: reference in answer)


def exact() -> Metric:
    """As ``contained``, of answers that are a reference."""
    return _share("answer is the truth", lambda answer, reference: reference == answer)


def _share(name: str, right: Callable[[str, str], bool]) -> Metric:
    def score(prediction: Prediction, case: Case) -> bool:
        formula = case.facts.get("dataset") == FORMULAS
        answer = _plain(prediction.text, formula)
        references = [_plain(each, formula) for each in case.references]
        return any(right(answer, each) for each in references if each)

    return Mean(name, score)


def _plain(text: str, formula: bool) -> str:
    text = text.strip().replace("\n", " ")
    return text.replace(" ", "") if formula else text.lower()
