"""Metrics of the evaluation: golden values, worked out in comments from the original definitions."""

import inspect
import math
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from varytoy.data.boxes import Box
from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.metric import Metric
from varytoy.evaluation.metrics import MODULES, boxes, fox, ocrbench, questions, tables, text, vqa
from varytoy.tasks import metrics as tasks_metrics

TEXTS = st.text(alphabet="ab c\n", max_size=12)


def case(*references: str, **changes) -> Case:
    return Case("1", "ocr", Path("page.png"), references=references, **changes)


def value(metric: Metric, *pairs: tuple) -> float:
    """Of pairs of an answer and its references, a text or a case."""
    predictions = [Prediction(answer) for answer, _ in pairs]
    cases = [
        each if isinstance(each, Case) else case(*([each] if isinstance(each, str) else each)) for _, each in pairs
    ]
    return metric.measure(predictions, cases)


# --- text ---


def test_error_rates_are_of_the_whole_set():
    # 1 and 3 edits of 3 and 4 characters
    assert value(text.character_error_rate(), ("abd", "abc"), ("x", "xyzw")) == pytest.approx(4 / 7)
    # text on an empty page: 2 more edits, no more characters
    assert value(text.character_error_rate(), ("abd", "abc"), ("xy", "")) == pytest.approx(3 / 3)
    # b for c, d added, of 2 words; then none of 4
    assert value(text.word_error_rate(), ("a c d", "a b"), ("x y z w", "x y z w")) == pytest.approx(2 / 6)
    assert value(text.character_error_rate(), ("", "abc")) == 1.0
    assert math.isnan(value(text.character_error_rate(), ("abc", "")))
    assert text.character_error_rate().is_error and text.word_error_rate().is_error


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(TEXTS, TEXTS.filter(str.strip)), min_size=1, max_size=4))
def test_error_rates_are_those_of_the_tasks(pairs):
    answers, truths = zip(*pairs, strict=True)
    assert value(text.character_error_rate(), *pairs) == pytest.approx(
        tasks_metrics.character_error_rate(answers, truths)
    )
    assert value(text.word_error_rate(), *pairs) == pytest.approx(tasks_metrics.word_error_rate(answers, truths))


def test_edit_distance_and_similarity():
    pairs = (("kitten", "sitting"), ("", "ab"), ("", ""))  # 3 of 7; all; none
    assert value(text.normalised_edit_distance(), *pairs) == pytest.approx((3 / 7 + 1 + 0) / 3)
    assert value(text.edit_similarity(), *pairs) == pytest.approx((4 / 7 + 0 + 1) / 3)
    assert text.normalised_edit_distance().is_error and not text.edit_similarity().is_error


def test_words_are_found_as_often_as_they_stand_there():
    pair = ("the cat the", "the cat sat on")  # "the" once, "cat": 2 of 3 predicted and of 4 true words
    assert value(text.word_f1(), pair) == pytest.approx(4 / 7)
    assert value(text.word_precision(), pair) == pytest.approx(2 / 3)
    assert value(text.word_recall(), pair) == pytest.approx(2 / 4)
    assert value(text.word_f1(), pair, ("a b c", "a b c")) == pytest.approx(2 * 5 / 13)  # micro
    assert value(text.word_f1(macro=True), pair, ("", ""), ("", "x")) == pytest.approx((4 / 7 + 1 + 0) / 3)
    assert value(text.word_f1(), ("你好 吗", "你好呀")) == pytest.approx(2 / 3)  # characters are words
    assert math.isnan(value(text.word_precision(), ("", "x"))) and math.isnan(value(text.word_f1(), ("", "")))


def test_bleu():
    long = ("the cat sat on the mat today", "the cat sat on a mat")  # 5/7, 3/6, 2/5, 1/4; 7 words for 6: no penalty
    short = ("the cat sat on", "the cat sat on the mat")  # all right; 4 words for 6
    assert value(text.bleu(), long) == pytest.approx((5 / 7 * 3 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    assert value(text.bleu(), short) == pytest.approx(math.exp(1 - 6 / 4))
    corpus = (9 / 11 * 6 / 9 * 4 / 7 * 2 / 5) ** 0.25 * math.exp(1 - 12 / 11)  # sums of counts, 11 words for 12
    assert value(text.bleu(), long, short) == pytest.approx(corpus)
    assert value(text.bleu(), ("a b c", "a b c")) == 0.0  # no 4-gram
    assert value(text.bleu(), ("", "a b c d")) == 0.0 and math.isnan(value(text.bleu(), ("", "")))
    assert value(text.bleu(chinese=True), ("今天天气", "今天天气")) == pytest.approx(1.0)


def test_bleu_of_several_references_is_sacrebleus():
    import sacrebleu

    answers = ["the cat sat on the mat today", "a dog ran in the park quickly now"]
    first, second = ["the cat sat on a mat today", "the dog ran in the park now"], ["cat on mat", "a dog ran in a park"]
    theirs = sacrebleu.corpus_bleu(answers, [first, second], smooth_method="none").score
    assert value(text.bleu(), *zip(answers, zip(first, second, strict=True), strict=True)) == pytest.approx(
        theirs / 100
    )


def test_rouge_l_is_of_the_longest_common_subsequence():
    pair = ("police kill the gunman", "Police killed the gunman.")  # 3 of 4 and 4: an example of Lin's paper
    assert value(text.rouge_l(), pair) == pytest.approx(0.75)
    assert value(text.rouge_l(), (pair[0], ("no word of it", pair[1]))) == pytest.approx(0.75)  # the best
    assert value(text.rouge_l(), ("今天 很好", "今天不好")) == pytest.approx(0.75)
    assert value(text.rouge_l(), ("", "a"), ("", "")) == 0.5


def test_cider_d():
    """2.092947141054062 is what pycocoevalcap's CiderScorer(n=4, sigma=6.0) gives."""
    answers = ["A dog runs on the grass.", "Two men in red shirts play football", "a child on a slide"]
    references = [
        ["A brown dog is running through the grass .", "A dog runs in a field ."],
        ["Two men are playing football .", "Men in red play soccer ."],
        ["A little girl slides down a slide .", "A child goes down a red slide ."],
    ]
    assert value(text.cider_d(), *zip(answers, references, strict=True)) == pytest.approx(2.092947141054062)
    with pytest.raises(ValueError, match="case 1: CIDEr-D needs references"):
        value(text.cider_d(), ("a", case()))


def test_length_of_answers():
    assert value(text.length(), (" abcd\n", "x"), ("", "x")) == 2.0


# --- pages as Fox and GOT score them ---


def page_scores(protocol: str, *pairs: tuple, **options) -> list[float]:
    """Distance, F1, precision, recall, BLEU."""
    return [value(metric, *pairs) for metric in fox.page_scores(protocol, **options)[:5]]


def test_fox_has_the_roles_of_answer_and_truth_swapped():
    pair = ("a b c d", "a b c d e")
    # two characters of nine are missing; 4 words are common, of 4 predicted and 5 true
    assert page_scores("strict", pair) == pytest.approx([2 / 9, 8 / 9, 4 / 4, 4 / 5, math.exp(1 - 5 / 4)])
    # the truth is scored against the answer: BLEU has 4/5, 3/4, 2/3, 1/2 and no penalty for what is missing
    assert page_scores("fox-compat", pair) == pytest.approx([2 / 9, 8 / 9, 4 / 5, 4 / 4, 0.2**0.25])


def test_fox_leaves_out_blank_answers():
    pairs = (("a b c d", "a b c d"), ("", "lost"), (" ", "lost"))
    assert page_scores("fox-compat", *pairs) == pytest.approx([0, 1, 1, 1, 1])
    assert page_scores("strict", *pairs) == pytest.approx([2 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert page_scores("strict", ("", "")) == [0, 1, 1, 1, 1]
    assert np.isnan(page_scores("fox-compat", ("", "lost"))).all()


def test_fox_counts_a_word_once_and_compares_texts_as_they_are():
    assert page_scores("strict", ("a a a", "a"))[1:4] == [1, 1, 1]
    assert page_scores("strict", ("a  b", "a b"))[0] == 1 / 4
    # sets of letters: 2 of 3 predicted and of 2 true
    assert page_scores("strict", ("abc", "ab"), characters=True)[:4] == pytest.approx([1 / 3, 4 / 5, 2 / 3, 1])
    with pytest.raises(ValueError, match="choose one of fox-compat, strict"):
        fox.page_scores("got")


def test_fox_splits_chinese_with_jieba():
    assert fox.split("我来到北京清华大学", "Tsinghua in") == (
        ["我", "来到", "北京", "清华大学"],
        ["Tsinghua", " ", "in"],
    )
    # 3 of 4 words, and 7 of 9 characters are the same
    pair = ("我来到北京", "我来到北京清华大学")
    assert page_scores("strict", pair)[:4] == pytest.approx([4 / 9, 6 / 7, 1, 3 / 4])


@settings(deadline=None, max_examples=30)
@given(TEXTS.filter(str.strip), TEXTS.filter(str.strip))
def test_the_protocols_of_fox_differ_in_precision_recall_and_bleu(answer, truth):
    compat, strict = page_scores("fox-compat", (answer, truth)), page_scores("strict", (answer, truth))
    assert compat[:2] == strict[:2] and compat[2] == strict[3] and compat[3] == strict[2]
    assert compat == page_scores("strict", (truth, answer))


def test_strict_adds_error_rates():
    names = [metric.name for metric in fox.page_scores("strict")]
    assert names[-2:] == ["character error rate", "word error rate"] and len(fox.page_scores("fox-compat")) == 5


# --- questions ---


def test_anls_is_zero_at_a_similarity_of_one_half():
    assert value(questions.anls(), ("abcx", "abcd")) == 0.75
    assert value(questions.anls(), ("abxx", "abcd")) == 0.0
    assert value(questions.anls(keep_half=True), ("abxx", "abcd")) == 0.5
    assert value(questions.anls(), (" New  YORK", "new york")) == 1.0
    assert value(questions.anls(), ("abxx", ("abcd", "abxy"))) == 0.75  # the best reference
    assert value(questions.anls(), ("", "abcd")) == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("105", "100", True),
        ("105.1", "100", False),
        ("-100", "100", False),
        ("12%", "0.12", True),
        ("12", "12%", False),
        ("0.0", "0", False),  # to the letter
        ("0", "0", True),
        ("1,000", "1000", False),
        ("Yes", "yes", True),
        ("yes.", "yes", False),
        ("nan", "nan", True),
        ("", "0", False),
        ("5 ", "5", True),
    ],
)
def test_relaxed_accuracy(answer, truth, right):
    assert value(questions.relaxed_accuracy(), (answer, truth)) == right


def test_exact_match():
    assert value(questions.exact_match(), ("The Cat.", ("dog", "cat")), ("", "cat")) == 0.5


def test_yes_no():
    answers = ["Yes, there is.", "No", "There is not a cat. Yes", "", "yes"]
    truths = ["yes", "yes", "no", "yes", "no"]
    # right: the first and the third; "yes" is said twice, once rightly, and true three times
    found = [value(metric, *zip(answers, truths, strict=True)) for metric in questions.yes_no()]
    assert found == pytest.approx([2 / 5, 1 / 2, 1 / 3, 2 / 5, 2 / 5])


def test_entities():
    receipt = case(facts={"fields": {"company": "A Ltd", "total": "5.00", "date": ["1/1", "2/1"]}})
    answer = '```json\n{"Company": "A  Ltd", "total": "5.0", "tax": null, "date": ["2/1"]}\n```'
    assert value(questions.entity_f1(), (answer, receipt)) == pytest.approx(2 * 2 / (3 + 4))  # company, one date
    assert value(questions.entity_f1(), ("company: A Ltd\n- total: 5.00\n", receipt)) == pytest.approx(2 * 2 / (2 + 4))
    assert value(questions.entity_f1(), ("", receipt)) == 0.0
    assert questions.fields("time: 10:30\nno field\nempty:") == {("time", "10:30"): 1}


# --- VQA ---


@pytest.mark.parametrize(
    ("count", "score"),
    # of ten annotators ``count`` say "cat". Each of these sees one fewer: 2 (1/3) + 8 (2/3), over 10; then 3 (2/3) + 7
    [(0, 0.0), (1, (0 + 9 / 3) / 10), (2, (2 / 3 + 16 / 3) / 10), (3, (3 * 2 / 3 + 7) / 10), (4, 1.0), (10, 1.0)],
)
def test_vqa_accuracy_leaves_out_one_annotator_at_a_time(count, score):
    references = ["cat"] * count + [f"dog {number}" for number in range(10 - count)]
    for official in (False, True):
        assert value(vqa.vqa_accuracy(official), ("A cat.", references)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The Dog!", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),  # as it stands in the program
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("1,000", "1000"),
        ("3.5 p.m.", "3.5 pm"),
        ("10:30", "10:30"),
        ("it's", "it's"),
    ],
)
def test_vqa_answers_are_normalised_as_in_the_official_program(answer, plain):
    assert vqa.normalise(answer) == plain


def test_the_official_program_takes_agreeing_references_as_they_are():
    assert value(vqa.vqa_accuracy(), ("yes.", ["Yes."] * 10)) == 1.0
    assert value(vqa.vqa_accuracy(official=True), ("yes.", ["Yes."] * 10)) == 0.0
    assert value(vqa.vqa_accuracy(), ("", [""] * 10)) == 0.0


# --- OCRBench ---


def test_ocrbench_is_containment():
    formula = case("\\frac{a}{b}", facts={"dataset": "HME100k"})
    pairs = [
        ("It says STOP.", "stop"),
        ("stop", "Stop"),
        ("\\frac { a } { b } = 1", formula),
        ("\\FRAC{a}{b}", formula),
    ]
    assert [value(ocrbench.contained(), pair) for pair in pairs] == [1, 1, 1, 0]
    assert [value(ocrbench.exact(), pair) for pair in pairs] == [0, 1, 0, 0]
    assert value(ocrbench.contained(), ("two\nlines", "two lines"), ("", "x"), ("x", "")) == pytest.approx(1 / 3)
    assert sum(ocrbench.CATEGORIES.values()) == 1000


# --- boxes ---


def measured(metric: Metric, *pairs: tuple) -> float:
    """Of pairs of predicted and true boxes."""
    return metric.measure([Prediction("", tuple(each)) for each, _ in pairs], [case(boxes=tuple(t)) for _, t in pairs])


def test_grounding_looks_at_the_first_box():
    truth, half, less = Box("cat", (0, 0, 100, 100)), Box("", (0, 0, 100, 50)), Box("", (0, 0, 100, 49))
    pairs = [([half, less], [truth]), ([less, half], [truth]), ([], [truth]), ([], []), ([half], [])]
    assert [measured(boxes.grounding_accuracy(), pair) for pair in pairs] == [1, 0, 0, 1, 0]


def test_detection_f1():
    truth = [Box("cat", (0, 0, 100, 100)), Box("dog", (500, 500, 600, 600)), Box("cat", (300, 0, 400, 100))]
    found = [Box("CAT", (0, 0, 100, 50)), Box("cat", (0, 0, 100, 100))]  # one truth cannot be hit twice
    assert measured(boxes.detection_f1(), (found, truth)) == pytest.approx(2 / 5)
    assert measured(boxes.detection_f1(), (found, truth), (truth, truth)) == pytest.approx(2 * 4 / 11)
    assert math.isnan(measured(boxes.detection_f1(), ([], [])))


def test_spotted_lines_are_paired_by_iou_and_then_read():
    truth = [Box("Hello", (0, 0, 100, 10)), Box("world", (0, 20, 100, 30))]
    near, best = Box("Hello", (0, 0, 90, 10)), Box("Hallo", (0, 0, 95, 10))  # the better box has the wrong text
    below = Box("WORLD", (0, 20, 100, 31))
    assert measured(boxes.spotting_f1(), ([near, best, below], truth)) == pytest.approx(2 * 1 / 5)
    assert measured(boxes.spotting_f1(), ([near, below], truth)) == 1.0
    assert measured(boxes.spotting_f1(text=False), ([near, best, below], truth)) == pytest.approx(2 * 2 / 5)
    assert measured(boxes.spotting_f1(threshold=0.92), ([near, below], truth)) == 0.0  # 0.9 and 10/11
    # 0.95 and 10/11 over three predicted lines
    assert measured(boxes.line_iou(), ([near, best, below], truth)) == pytest.approx((0.95 + 10 / 11) / 3)
    assert measured(boxes.line_iou(), ([], truth), ([], [])) == 0.5


def test_average_precision_is_cocos():
    # one of two boxes found gives precision 1 up to recall 0.5: at 51 of 101 points; 0.72 passes 5 of 10 thresholds
    truth = [Box("cat", (0, 0, 100, 100)), Box("Cat", (500, 500, 600, 600))]
    near = Box("cat", (0, 0, 100, 72))
    assert measured(boxes.average_precision(), ([near], truth)) == pytest.approx(0.5 * 51 / 101)
    assert measured(boxes.average_precision(at_half=True), ([near], truth)) == pytest.approx(51 / 101)
    assert math.isnan(measured(boxes.average_precision(), ([near], [])))
    assert math.isnan(measured(boxes.average_precision()))


def test_average_precision_of_a_choice_is_that_of_its_images():
    rng = np.random.default_rng(0)

    def drawn():
        corners = rng.integers(0, 40, (rng.integers(0, 4), 2)).tolist()
        return [Box(str(rng.choice(["cat", "dog"])), (x, y, x + 60, y + 60)) for x, y in corners]

    predictions, truths = [drawn() for _ in range(6)], [drawn() for _ in range(6)]
    of_choice = tasks_metrics.average_precision_of_choices(predictions, truths)
    for choice in ([0, 1, 2, 3, 4, 5], [3, 3, 3, 1], [5, 0], []):
        chosen = [predictions[image] for image in choice], [truths[image] for image in choice]
        assert of_choice(choice) == tasks_metrics.average_precision(*chosen)


# --- tables and markdown ---

TABLE = "<table><tr><td>a</td><td>bc</td></tr></table>"  # three elements
MARKDOWN = "Text.\n\n| a | b |\n|---|---|\n| c | d |\n"  # thead, tbody, two rows, four cells
SAME = "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>c</td><td>d</td></tr></tbody></table>"


@pytest.mark.parametrize(
    ("answer", "truth", "teds", "structure"),
    [
        (TABLE, TABLE, 1, 1),
        (TABLE.replace("bc", "bd"), TABLE, 1 - 0.5 / 3, 1),  # half of a cell
        (TABLE.replace("<td>bc", "<td colspan=2>bc"), TABLE, 1 - 1 / 3, 1 - 1 / 3),
        (TABLE.replace("</table>", "<tr><td>x</td><td></td></tr></table>"), TABLE, 1 - 3 / 6, 1 - 3 / 6),  # another row
        ("<table><tr><td><b>a</b></td><td>bc</td></tr></table>", TABLE, 1 - 2 / 3 / 4, 1),  # <b>, a, </b>; 4 elements
        (MARKDOWN, SAME, 1, 1),
        (MARKDOWN, SAME.replace("th>", "td>"), 1, 1),
        (MARKDOWN, SAME.replace("<tbody>", "").replace("</tbody>", ""), 1 - 1 / 8, 1 - 1 / 8),
        ("no table", TABLE, 0, 0),
        ("", TABLE, 0, 0),
        (TABLE, "no | table", 0, 0),
        (TABLE + MARKDOWN, TABLE, 1 / 2, 1 / 2),  # the second has no partner
        ("<table><tr><td>a<td>bc", TABLE, 1, 1),  # cut off
        ("<table><tr><td colspan='x'>a</td><td>bc</td></tr></table>", TABLE, 1, 1),
        ("<table></table>", "<table></table>", 1, 1),
        ("<!-- | --> <!-->", TABLE, 0, 0),
    ],
)
def test_teds(answer, truth, teds, structure):
    assert value(tables.teds(), (answer, truth)) == pytest.approx(teds)
    assert value(tables.teds(structure=True), (answer, truth)) == pytest.approx(structure)


def test_pages_without_tables_are_left_out_of_teds():
    assert value(tables.teds(), (TABLE, TABLE), ("text", "other")) == 1.0
    assert math.isnan(value(tables.teds(), ("text", "other")))


def test_tables_stay_in_their_order_and_need_no_blank_line():
    found = tables.tables(f"{MARKDOWN}\n{TABLE}\n\n<TABLE><tr>\n\n    <td>é中</td></tr></TABLE>\n\n{MARKDOWN}")
    assert ["".join("".join(table.itertext()).split()) for table in found] == ["abcd", "abc", "é中", "abcd"]


def test_markdown_trees():
    # document, h1 or p, word: one of three nodes has another name; without an answer the root is left
    assert value(tables.markdown_similarity(), ("A", "# A"), ("", "# A")) == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert value(tables.markdown_distance(), ("A", "# A"), ("", "# A")) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert tables.markdown_distance().is_error


# --- documentation ---


def test_every_metric_is_in_the_table_of_the_documentation():
    table = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "varytoy/evaluation/metrics").glob("[a-z]*.py")):
        module = import_module(f"varytoy.evaluation.metrics.{path.stem}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and inspect.signature(function).return_annotation in (Metric, list[Metric]):
                assert f"`{path.stem}.{name}" in table, f"{path.stem}.{name}"


def test_the_extra_installs_what_the_metrics_import():
    extra = re.search(r"^evaluate = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.S | re.M)[1]
    others = {"jieba", "openai", "scikit"}  # for Chinese, for servers, and for drawn pictures
    assert set(re.findall(r'"([a-z]+)', extra)) == {*MODULES, *others}
