"""Metrics of transcriptions. Texts are compared after ``tasks.metrics.normalise``; case counts.

Rates and F1 are of the whole set (micro): a long page weighs more than a short one. Distances and similarities are
means over pages (macro). "NED" is never used as a name: KOSMOS-2.5 means a similarity by it, other papers a distance.
"""

import re
from collections import Counter

import numpy as np

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import F1, Mean, Metric, Ratio
from varytoy.tasks import metrics
from varytoy.tasks.cider import CiderD

_CHINESE = "\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CHINESE}]|[^\s{_CHINESE}]+")
_ROUGE_WORD = re.compile(rf"[{_CHINESE}]|[^\W_{_CHINESE}]+")
_LONGEST = 4
"""Words of the longest n-gram of BLEU."""


def character_error_rate() -> Metric:
    """Edits over true characters, by jiwer. From 0, can exceed 1. Text where the truth is empty adds to the edits only;
    NaN if all truths are empty."""

    def count(prediction, case):
        import jiwer

        return _errors(jiwer.process_characters(_truth(case), metrics.normalise(prediction.text)))

    return Ratio("character error rate", count, is_error=True)


def word_error_rate() -> Metric:
    """As ``character_error_rate``, of words between white space."""

    def count(prediction, case):
        import jiwer

        return _errors(jiwer.process_words(_truth(case), metrics.normalise(prediction.text)))

    return Ratio("word error rate", count, is_error=True)


def _errors(output) -> tuple[int, int]:
    """Edits and length of the truth, of an output of jiwer."""
    wrong = output.substitutions + output.deletions
    return wrong + output.insertions, output.hits + wrong


def normalised_edit_distance() -> Metric:
    """Mean over pages of Levenshtein distance / length of the longer text; 0 for two empty texts, 1 if one is."""
    return Mean("normalised edit distance", _distance, is_error=True)


def edit_similarity() -> Metric:
    """1 - ``normalised_edit_distance``, which KOSMOS-2.5 and AnyText call NED."""
    return Mean("edit similarity", lambda *pair: 1.0 - _distance(*pair))


def _distance(prediction: Prediction, case: Case) -> float:
    return metrics.normalised_edit_distance(prediction.text, case.truth)


def words(text: str) -> list[str]:
    """Of the normalised text, between white space; each Chinese character is a word of its own."""
    return _WORD.findall(metrics.normalise(text))


def word_f1(macro: bool = False) -> Metric:
    """F1 of words; a word that is repeated must be found as often (KOSMOS-2.5's F1). Micro, or the mean of the pages'
    F1, where two empty texts give 1 and one empty text 0. KOSMOS-2.5's paper does not say which it takes."""
    if macro:
        return Mean("word F1, mean of pages", _page_f1)
    return F1("word F1", _word_counts)


def word_precision() -> Metric:
    """Found words over predicted words, micro. NaN if no word is predicted."""
    return Ratio("word precision", lambda *pair: _word_counts(*pair)[:2])


def word_recall() -> Metric:
    """Found words over true words, micro. NaN if there are no true words."""
    return Ratio("word recall", lambda *pair: _word_counts(*pair)[::2])


def _word_counts(prediction: Prediction, case: Case) -> tuple[int, int, int]:
    """Words found, predicted and true."""
    predicted, true = Counter(words(prediction.text)), Counter(words(case.truth))
    return (predicted & true).total(), predicted.total(), true.total()


def _page_f1(prediction: Prediction, case: Case) -> float:
    hits, predicted, true = _word_counts(prediction, case)
    return 2 * hits / (predicted + true) if predicted + true else 1.0


class _Bleu(Metric):
    """Rows: n-grams found (1 to 4), n-grams predicted (1 to 4), predicted words, true words."""

    name = "BLEU"

    def __init__(self, chinese: bool):
        self.tokenizer = "zh" if chinese else "13a"

    def rows(self, predictions, cases):
        from sacrebleu.metrics import BLEU

        bleu = BLEU(smooth_method="none", tokenize=self.tokenizer, effective_order=True)  # for one sentence; it warns
        scores = [
            bleu.sentence_score(each.text, case.references or ("",))
            for each, case in zip(predictions, cases, strict=True)
        ]
        rows = [(*score.counts, *score.totals, score.sys_len, score.ref_len) for score in scores]
        return np.array(rows, float).reshape(-1, 2 * _LONGEST + 2)

    def value(self, sums):
        found, predicted = sums[..., :_LONGEST], sums[..., _LONGEST : 2 * _LONGEST]
        length, true = sums[..., -2], sums[..., -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.exp(np.log(found / predicted).mean(-1))
            score = precision * np.exp(np.minimum(0, 1 - true / length))
        return np.where((found == 0).any(-1), np.where(length + true == 0, np.nan, 0.0), score)


def bleu(chinese: bool = False) -> Metric:
    """BLEU-4 of the corpus against all references, 0 to 1 (papers print it times 100), with sacrebleu's tokens "13a"
    or, for Chinese, "zh", without smoothing: 0 if no 4-gram of the whole set is right."""
    return _Bleu(chinese)


def rouge_l() -> Metric:
    """Mean over cases of the best reference's F1 of the longest common subsequence of words: runs of letters and digits
    in lower case, and Chinese characters. As rouge-score without stemming, which drops letters beyond a-z. Two empty
    texts give 1, one 0."""

    def score(prediction, case):
        predicted = _rouge_words(prediction.text)
        return max(_subsequence_f1(predicted, _rouge_words(each)) for each in case.references or ("",))

    return Mean("ROUGE-L", score)


def _rouge_words(text: str) -> list[str]:
    return _ROUGE_WORD.findall(metrics.normalise(text).lower())


def _subsequence_f1(predicted: list[str], true: list[str]) -> float:
    from rapidfuzz.distance import LCSseq

    total = len(predicted) + len(true)
    return 2 * LCSseq.similarity(predicted, true) / total if total else 1.0


class _CiderD(Mean):
    """With the document frequencies of all cases that ``rows`` is given, on resamples and in groups too."""

    def rows(self, predictions, cases):
        bare = next((case for case in cases if not case.references), None)
        if bare is not None:
            raise ValueError(f"case {bare.id}: CIDEr-D needs references; leave the case out")
        scorer = CiderD([case.references for case in cases])
        pairs = zip(predictions, cases, strict=True)
        return np.array([(scorer.score(each.text, case.references), 1.0) for each, case in pairs]).reshape(-1, 2)


def cider_d() -> Metric:
    """Mean CIDEr-D against all references, 0 to 10, with the document frequencies of the set's references: values of
    sets of different size do not compare, and a set of one case gives 0. Raises ValueError at a case without any."""
    return _CiderD("CIDEr-D", lambda *pair: 0.0)


def length() -> Metric:
    """Mean characters of an answer, without white space around it. A fact, neither good nor bad: where containing the
    truth is enough, long answers win."""
    return Mean("characters of an answer", lambda prediction, case: len(prediction.text.strip()))


def _truth(case: Case) -> str:
    return metrics.normalise(case.truth)
