"""The box grammar, each task from prompt to score, and golden values of the metrics."""

import random
import time

import pytest
from PIL import Image, ImageChops

from varytoy.data.boxes import Box, check_label, format_box, format_boxes, iou, parse_boxes, written_boxes
from varytoy.data.sample import Annotations, Sample
from varytoy.inference.parts import PARTS
from varytoy.tasks import TASKS, Answer, Region, get_task, metrics
from varytoy.tasks.cider import cider_d

# --- boxes ---

PEOPLE = [Box("Person", (9, 552, 58, 737)), Box("Person", (0, 0, 1000, 1000)), Box("Car", (400, 5, 401, 5))]


def test_boxes_are_written_as_the_paper_writes_them():
    assert format_box((9, 552, 58, 737)) == "[009, 552, 058, 737]"
    assert format_boxes(PEOPLE) == ("Person: [009, 552, 058, 737], [000, 000, 1000, 1000]; Car: [400, 005, 401, 005];")


def test_boxes_come_back():
    assert parse_boxes(format_boxes(PEOPLE)) == PEOPLE
    assert parse_boxes(format_box((9, 552, 58, 737))) == [Box("", (9, 552, 58, 737))]


LABELS = [
    "bow (weapon)",
    "T.V.",
    "Person: standing",
    "3, 4",
    "a [b]",
    "[b",
    '"quoted"',
    "(7)",
    ":",
    "a:",
    "..",
    "-x",
    "",
]


def test_boxes_with_any_label_come_back_or_are_refused():
    """What can be written is read back exactly, by the parser of answers and by that of places in training answers."""
    rng = random.Random(0)
    pieces = [*LABELS, *"abc .,:;-*[]()<>/|\n\t\u2028\u2603\0123'\"", "<ref>", "</ref>", "[1, 2, 3, 4]", "(1,2),(3,4)"]
    labels = LABELS + ["".join(rng.choices(pieces, k=rng.randint(1, 6))) for _ in range(3000)]
    good = []
    for label in labels:
        try:
            check_label(label)
            good.append(label)
        except ValueError as error:
            assert label not in LABELS and "cannot be written" in str(error)
            with pytest.raises(ValueError, match="cannot be written"):
                format_boxes([Box(label, (1, 2, 3, 4))])
    assert len(LABELS) + 1000 < len(good) < len(labels) - 100
    for _ in range(1000):
        chosen = dict.fromkeys(" ".join(label.split()) for label in rng.choices(good, k=3))
        boxes = [Box(label, (*corner, 900, 1000)) for label in chosen for corner in ((0, 7), (10, 899))]
        text = format_boxes(boxes)
        assert parse_boxes(text) == boxes, text
        found = [text[slice(*box.label)] if box.label else None for box in written_boxes(text)]
        assert found == [name for label in chosen for name in (label or None, None)], text
        assert get_task("detect").score([text], [sample(boxes=boxes)]) == 1.0


@pytest.mark.parametrize("label", ["a; b", "[1, 2, 3, 4]", "- a", "**a**", "<ref>a</ref>"])
def test_a_label_that_an_answer_cannot_hold_is_refused(label):
    with pytest.raises(ValueError, match="cannot be written in an answer"):
        get_task("detect").answer([Box(label, (1, 2, 3, 4))])


FLOODS = [
    " ",
    "\n",
    "[",
    "(",
    ")",
    "(1,",
    "(1,2)",
    "(1,2) ",
    "[1, ",
    "7",
    "<ref>",
    "<ref>a",
    "*",
    "- ",
    ":",
    "; ",
    "[1, 2, 3, 4]",
]


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("before", ["", "(1,2)", "cat: [1, 2, 3, 4] "])
def test_parsing_takes_time_in_proportion_to_the_text(before, flood):
    text = before + flood * (200_000 // len(flood)) + ": [1, 2, 3, 4]"
    start = time.process_time()
    parse_boxes(text), list(written_boxes(text))
    assert time.process_time() - start < 2


CAT = [Box("cat", (9, 552, 58, 737))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat: [009, 552, 058, 737];", CAT),
        ("cat: [9,552,58,737]", CAT),
        ("cat [ 9 , 552 , 58 , 737 ]", CAT),
        ("cat: (9, 552, 58, 737)", CAT),
        ("cat: [58, 737, 9, 552]", CAT),
        ("cat: [58, 552, 9, 737]", CAT),
        ("cat: [[9, 552, 58, 737]]", CAT),
        ("- cat: [9, 552, 58, 737]", CAT),
        ("* **cat**: [9, 552, 58, 737]", CAT),
        ("**cat:** [9, 552, 58, 737]", CAT),
        ("Here is what I see:\ncat: [009, 552, 058, 737];", CAT),
        ("<ref>cat</ref><box>(9,552),(58,737)</box>", CAT),
        ("<ref>cat</ref><box>[9, 552, 58, 737]</box>", CAT),
        ("<|ref|>cat<|/ref|><|det|>[[9, 552, 58, 737]]<|/det|>", CAT),
        ("cat: [1001, 0, 10, 10]", []),
        ("cat: [12345, 0, 10, 10]", []),
        ("cat: [1, 2, 3]", []),
        ("cat: [-1, 2, 3, 4]", []),
        ("cat: [1, 2, 3, 4", []),
        ("None.", []),
        ("", []),
    ],
)
def test_dialects_of_one_box(text, expected):
    assert parse_boxes(text) == expected


def test_text_before_the_first_box_is_its_label():
    assert parse_boxes("the left woman [001, 002, 003, 004]")[0].label == "the left woman"


def test_missing_semicolon_and_a_label_for_several_boxes():
    found = parse_boxes("cat: [1, 2, 3, 4], [5, 6, 7, 8] dog: [9, 10, 11, 12]")
    assert [(box.label, box.xyxy[0]) for box in found] == [("cat", 1), ("cat", 5), ("dog", 9)]
    nested = parse_boxes("<|ref|>cat<|/ref|><|det|>[[1, 2, 3, 4], [5, 6, 7, 8]]<|/det|>")
    assert [(box.label, box.xyxy[0]) for box in nested] == [("cat", 1), ("cat", 5)]


def test_a_broken_box_takes_nothing_from_its_neighbours():
    assert parse_boxes("cat: [1, 2, 3, 4]; dog: [1, 2, 3, 2000]; cow: [5, 6, 7, 8];") == [
        Box("cat", (1, 2, 3, 4)),
        Box("cow", (5, 6, 7, 8)),
    ]


def test_dialect_that_divides_by_999():
    assert parse_boxes("cat: [0, 333, 999, 999]", scale=999) == [Box("cat", (0, 333, 1000, 1000))]
    assert parse_boxes("cat: [0, 333, 999, 1000]", scale=999) == []


def test_pixels_and_back():
    box = Box.from_pixels("cat", (64, 10, 640, 480), 640, 480)
    assert box == Box("cat", (100, 21, 1000, 1000))
    assert box.to_pixels(640, 480) == (64, 10, 640, 480)
    assert Box.from_pixels("cat", (700, -5, -20, 500), 640, 480).xyxy == (0, 0, 1000, 1000)


@pytest.mark.parametrize("xyxy", [(10, 0, 5, 5), (0, 0, 1001, 5), (-1, 0, 5, 5)])
def test_impossible_box_is_refused(xyxy):
    with pytest.raises(ValueError, match="of 'cat' is not x1 <= x2"):
        Box("cat", xyxy)


def test_garbage_never_raises():
    """Whatever a model writes can be parsed, drawn and scored."""
    rng = random.Random(0)
    pieces = [
        "[",
        "]",
        "(",
        ")",
        ",",
        ", ",
        ";",
        ":",
        "cat",
        "00",
        "7",
        "1000",
        "1001",
        "99999",
        "²",
        "٣",
        "-",
        ".5",
        "<ref>",
        "</ref>",
        "<box>",
        "<|det|>",
        "<|/det|>",
        "\n",
        "\0",
        "🙂",
        "[1, 2, 3, 4]",
        "(5,6),(7,8)",
        "{}",
        "# ",
        "**",
        "|",
        "`",
    ]
    image = Image.new("RGB", (64, 48))
    truth = sample("y", CAT, object_names=["cat"])
    for _ in range(400):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(0, 30)))
        for scale in (999, 1000):
            assert all(0 <= value <= 1000 for box in parse_boxes(text, scale) for value in box.xyxy)
        for task in TASKS.values():
            answer = task.parse(text, image.size, "a phrase")
            assert all(0 <= x <= 64 and 0 <= y <= 48 for _, box in answer.boxes for x, y in (box[:2], box[2:]))
            task.score([text], [truth])
    for text in ("cat: [1, 2, 3, 4]", "[0, 0, 0, 0]", "🙂\0: [999, 999, 1000, 1000]", "x" * 500 + " [1, 2, 3, 4]"):
        answer = get_task("detect").parse(text, image.size)
        assert len(answer.boxes) == 1
        get_task("detect").draw(image, answer)


# --- tasks ---

STANDARD = {
    "ocr": ("", "Provide the OCR results of this image."),
    "markdown": ("", "Convert the image to markdown format."),
    "spot": ("", "Read the text with its boxes."),
    "formula": ("", "Write the formula in LaTeX."),
    "music": ("", "Write the sheet music as kern."),
    "geometry": ("", "Write the figure in TikZ."),
    "molecule": ("", "Write the molecule as SMILES."),
    "erase": ("", "Erase the text in the marked place."),
    "edit": ("Open", 'Fill the masked part in this image with "Open".'),
    "generate": ("Open", 'Write "Open" in the marked place.'),
    "detect": ("", "Detect all objects in this image."),
    "ground": ("the left woman", "Detect an object: the left woman."),
    "caption": ("", "Describe the content of this image in a sentence."),
    "vqa": ("What year?", "What year? Answer using a single word or phrase."),
    "chat": ("Hello {you}", "Hello {you}"),
}


def test_every_task_is_covered_here():
    assert set(STANDARD) == set(TASKS)


@pytest.mark.parametrize("name", STANDARD)
def test_prompts(name):
    task, (argument, prompt) = get_task(name), STANDARD[name]
    assert task.name == name
    assert task.view in ("text", "drawing", *PARTS)
    assert task.prompt(argument) == prompt
    paraphrases = {task.prompt(argument, random.Random(seed)) for seed in range(200)}
    assert prompt in paraphrases and len(paraphrases) == len(task.prompts)
    assert all(argument in paraphrase for paraphrase in paraphrases)


@pytest.mark.parametrize("name", ["ground", "vqa", "chat"])
def test_missing_argument_is_one_sentence(name):
    with pytest.raises(ValueError, match=f"the task '{name}' needs .+: give it as the prompt"):
        get_task(name).prompt(" ")


def test_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match=f"^no task 'read'; the tasks are {', '.join(TASKS)}$"):
        get_task("read")


def test_detection_of_named_classes():
    assert get_task("detect").prompt("cat, car") == "Detect cat, car in this image."


def test_reading_tasks_answer_with_the_text():
    assert get_task("ocr").answer("Two\nlines") == "Two\nlines"
    assert get_task("ocr").parse(" Two\nlines\n", (10, 10)) == Answer("Two\nlines")
    assert get_task("markdown").parse("# Title\n", (10, 10)) == Answer("# Title", markup="# Title")


def test_detection_answers_in_pixels_of_the_file():
    task = get_task("detect")
    text = task.answer([Box("cat", (100, 200, 500, 1000)), Box("dog", (0, 0, 250, 250))])
    assert text == "cat: [100, 200, 500, 1000]; dog: [000, 000, 250, 250];"
    answer = task.parse(text, (640, 480))
    assert answer.boxes == [("cat", (64, 96, 320, 480)), ("dog", (0, 0, 160, 120))]
    assert answer.text == text
    assert task.parse(task.answer([]), (640, 480)).boxes == []


def test_grounding_answers_with_the_one_box_of_the_phrase():
    task = get_task("ground")
    assert task.answer(Box("woman", (100, 200, 500, 1000))) == "[100, 200, 500, 1000]"
    answer = task.parse("woman: [100, 200, 500, 1000], [1, 2, 3, 4]", (640, 480), " the left woman ")
    assert answer.boxes == [("the left woman", (64, 96, 320, 480))]
    assert task.parse("I see none.", (640, 480), "a cat").boxes == []


def test_drawing_marks_the_box_on_a_copy():
    image = Image.new("L", (200, 160), 255)
    task = get_task("detect")
    drawn = task.draw(image, Answer("", [Region((50, 60, 150, 140), "cat"), Region((10, 10, 40, 40), "dog")]))
    assert image.getextrema() == (255, 255)
    assert drawn.mode == "RGB" and drawn.size == image.size
    assert drawn.getpixel((100, 140)) != drawn.getpixel((25, 40)) != (255, 255, 255)
    assert drawn.getpixel((100, 100)) == drawn.getpixel((190, 150)) == (255, 255, 255)
    changed = ImageChops.difference(drawn, image.convert("RGB")).getbbox()
    assert changed[2] <= 152 and changed[3] <= 142


def sample(answer: str = "", boxes=(), **annotations) -> Sample:
    messages = [{"role": "user", "content": "<image>\nx"}, {"role": "assistant", "content": answer}]
    return Sample(messages, ["a.png"], boxes=list(boxes), annotations=Annotations(**annotations))


@pytest.mark.parametrize(
    ("name", "predictions", "samples", "expected"),
    [
        ("ocr", ["abd", "wx"], [sample("abc"), sample("wxyz")], 3 / 7),
        ("markdown", ["# Title", "Title"], [sample("# Title"), sample("# Title")], (1 + 2 / 3) / 2),
        ("detect", ["cat: [0, 0, 100, 100];", "None."], [sample(boxes=[Box("Cat", (0, 0, 100, 90))]), sample()], 1.0),
        ("detect", ["dog: [0, 0, 100, 100];"], [sample(boxes=[Box("cat", (0, 0, 100, 100))])], 0.0),
        ("ground", ["[0, 0, 100, 100]", "no box"], [sample(boxes=[Box("", (0, 0, 100, 90))])] * 2, 0.5),
        ("ground", ["None.", "[0, 0, 100, 100]"], [sample("None."), sample("[000, 000, 100, 100]")], 1.0),
        ("ground", ["[0, 0, 1, 1]", "None."], [sample("None."), sample("[000, 000, 100, 100]")], 0.0),
        ("detect", ["cat: [0, 0, 100, 100];"], [sample("cat: [000, 000, 100, 100];")], 1.0),
        ("formula", [r"x^{2}", "y"], [sample(r"x^{2}"), sample("x")], 1 / 2),
        ("music", ["4c 4d", "4c"], [sample("4c\n4d"), sample("4d")], 1 / 4),
        ("geometry", [r"\draw (0,0);"], [sample(r"\draw (0,1);")], 1 / 12),
        ("molecule", ["OCC", "CO", "C1("], [sample("CCO"), sample("CCO"), sample("C")], 1 / 3),
        ("caption", ["Two dogs on a bench."], [sample(object_names=["dog", "bench", "cat", "tree"])], 0.5),
        ("vqa", ["The Cat.", "a dog"], [sample("cat"), sample("cat")], 0.5),
        ("vqa", ["red", "blue"], [sample("red", references=["red", "pink"]), sample("red", references=["blue"])], 1.0),
        ("chat", ["Paris"], [sample("paris!")], 1.0),
    ],
)
def test_scores(name, predictions, samples, expected):
    task = get_task(name)
    assert task.metric
    assert task.score(predictions, samples) == pytest.approx(expected)


# --- metrics ---


def test_character_error_rate_counts_over_the_whole_set():
    assert metrics.character_error_rate(["abd", "x"], ["abc", "xyzw"]) == pytest.approx(4 / 7)
    assert metrics.character_error_rate(["kitten"], ["sitting"]) == pytest.approx(3 / 7)
    assert metrics.character_error_rate(["aaaa"], ["b"]) == 4.0
    assert metrics.character_error_rate([""], [""]) == 0.0


def test_cider_d_is_that_of_pycocoevalcap():
    """2.092947141054062 is what its CiderScorer(n=4, sigma=6.0) gives for these."""
    captions = ["A dog runs on the grass.", "Two men in red shirts play football", "a child on a slide"]
    references = [
        ["A brown dog is running through the grass .", "A dog runs in a field ."],
        ["Two men are playing football .", "Men in red play soccer ."],
        ["A little girl slides down a slide .", "A child goes down a red slide ."],
    ]
    assert cider_d(captions, references) == pytest.approx(2.092947141054062)
    assert cider_d(["", "x"], references[:2]) == 0.0 and cider_d([], []) == 0.0
    samples = [sample("", references=group) for group in references]
    assert get_task("caption").score(captions, samples) == cider_d(captions, references)
    assert get_task("caption").metric_of(samples) == "CIDEr-D"


def test_normalised_edit_distance():
    assert metrics.normalised_edit_distance("abcd", "abxx") == 0.5
    assert metrics.normalised_edit_distance("", "") == 0.0
    assert metrics.normalised_edit_distance("abc", "") == 1.0


def test_quotes_dashes_widths_and_spaces_are_no_errors():
    assert metrics.normalised_edit_distance("“Hi” – it’s ﬁne\n\n ok", '"Hi" - it\'s fine ok') == 0.0


def test_unequal_sets_are_refused():
    with pytest.raises(ValueError):
        metrics.character_error_rate(["a"], ["a", "b"])


def test_detection_f1():
    truth = [[Box("cat", (0, 0, 100, 100)), Box("dog", (500, 500, 600, 600)), Box("cat", (300, 0, 400, 100))]]
    found = [[Box("CAT", (0, 0, 100, 50)), Box("cat", (0, 0, 100, 100))]]
    assert metrics.detection_f1(found, truth) == pytest.approx(2 / 5)  # one truth cannot be hit twice
    assert metrics.detection_f1(truth, truth) == 1.0
    assert metrics.detection_f1([[]], truth) == 0.0
    assert metrics.detection_f1([[]], [[]]) == 1.0


def test_average_precision_is_cocos():
    """By hand: 101 points of recall; one of two boxes found gives precision up to recall 0.5, that is at 51 of them."""
    truth = [[Box("cat", (0, 0, 100, 100)), Box("Cat", (500, 500, 600, 600))]]
    hit, near, miss = Box("cat", (0, 0, 100, 100)), Box("cat", (0, 0, 100, 72)), Box("cat", (800, 800, 900, 900))
    assert metrics.average_precision([[hit, miss]], truth) == pytest.approx((51 / 101, 51 / 101))
    assert metrics.average_precision([[miss, hit]], truth) == pytest.approx((51 / 202, 51 / 202))
    assert metrics.average_precision([[near]], truth) == pytest.approx((0.5 * 51 / 101, 51 / 101))  # 5 of 10 bounds
    assert metrics.average_precision(truth, truth) == (1.0, 1.0)
    assert metrics.average_precision([[]], truth) == (0.0, 0.0)
    assert metrics.average_precision([[hit]], [[]]) is None


def test_iou():
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1.0
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    assert iou((5, 5, 5, 5), (5, 5, 5, 5)) == 0.0


def test_names_are_whole_words():
    assert metrics.names_found("Two Dogs and a catfish", ["dog", "cat"]) == 0.5
    assert metrics.names_found("a bus, two buses", ["bus"]) == 1.0
    assert metrics.names_found("anything", []) == 0.0


@pytest.mark.parametrize(
    ("predicted", "truth", "same"),
    [
        ("The Cat.", "cat", True),
        ("an apple!", "Apple", True),
        ("“yes”", "yes", True),
        ("dog", "cat", False),
        ("5", "-5", False),
        ("", "A", False),
        ("the", "A", False),
    ],
)
def test_same_answer(predicted, truth, same):
    assert metrics.same_answer(predicted, truth) is same


def test_markdown_tree_similarity():
    similarity = metrics.markdown_tree_similarity
    text = "# Title\n\nSome *words* here\n\n- one\n- two"
    assert similarity(text, text) == 1.0
    assert similarity("", "") == 1.0
    assert similarity("Title", "# Title") == pytest.approx(2 / 3)  # document, h1, word: one renamed
    assert similarity("# Titles", "# Title") == pytest.approx(1 - (1 / 6) / 3)
    assert similarity("", "# Title") == pytest.approx(1 / 3)
    assert similarity(text, "other") == pytest.approx(similarity("other", text))


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [("word", "*word*"), ("word", "`word`"), ("word", "word\n\n---"), ("word", "```\nword\n```"), ("# a", "## a")],
)
def test_every_mark_counts(predicted, truth):
    """A tree has a node for each block and inline mark."""
    assert 0.0 < metrics.markdown_tree_similarity(predicted, truth) < 1.0
