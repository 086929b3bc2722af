"""Suites of published data: each official layout in small, what becomes of its records, and its errors."""

import argparse
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.suite import SuiteError
from varytoy.evaluation.suites import SUITES

SIZE = (200, 100)


def picture(file: Path, size: tuple[int, int] = SIZE, **words) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "white").save(file, **words)
    return file


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


def options_of(name: str, *words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    SUITES[name].options(parser)
    return parser.parse_args([str(word) for word in words])


def cases_of(name: str, folder: Path, *words: object) -> list[Case]:
    return list(SUITES[name].cases(folder, options_of(name, *words)))


def scores(name: str, cases: list[Case], answers: list[str], *words: object) -> dict[str, float]:
    predictions = [Prediction(answer) for answer in answers]
    metrics = SUITES[name].metrics(options_of(name, *words))
    return {metric.name: round(metric.measure(predictions, cases), 3) for metric in metrics}


def error_of(name: str, folder: Path, *words: object) -> str:
    with pytest.raises(SuiteError) as error:
        cases_of(name, folder, *words)
    return str(error.value)


def test_each_suite_says_what_it_is():
    """What is in the help of ``varytoy evaluate``, in the words of its own options."""
    taken = {"engine", "model", "device", "dtype", "language", "together", "limit", "seed", "out", "markdown", "folder"}
    for name, suite in SUITES.items():
        assert suite.name == name and suite.help and suite.layout and "\n" not in suite.help
        assert not set(vars(options_of(name))) & taken, name
        assert suite.metrics(options_of(name)), name
        assert "nowhere" in error_of(name, Path("nowhere")), name


# ---- questions ------------------------------------------------------------------------------------------------------


def docvqa(number: int, image: str, question: str, answers: object) -> dict:
    page = image.rpartition("_")[2].partition(".")[0]
    return {"questionId": number, "question": question, "question_types": ["form"], "image": image, "docId": 9,
            "ucsf_document_id": "txpn0095", "ucsf_document_page_no": page, "answers": answers,
            "data_split": "val"}  # fmt: skip


def test_docvqa(tmp_path):
    """The file with the types of questions is taken before the older one; answers are equally good."""
    head = {"dataset_name": "SP-DocVQA", "dataset_split": "val", "dataset_version": "1.0"}
    records = [
        docvqa(24581, "documents/txpn0095_1.png", "What is  the name?", ["Edward R. Shannon", "Edward Shannon"]),
        docvqa(24582, "documents/txpn0095_1.png", "What is the date?", ["1/8/93", ""]),
        docvqa(57349, "documents/txpn0095_2.png", "Who?", ["nobody"]),
    ]
    write(tmp_path / "val_v1.0_withQT.json", {**head, "data": records})
    write(tmp_path / "val_v1.0.json", {**head, "data": records[:1]})
    picture(tmp_path / "documents/txpn0095_1.png")
    assert error_of("docvqa", tmp_path) == (
        f"1 of 2 pictures are missing, first {tmp_path}/documents/txpn0095_2.png: "
        "give --images the folder that holds documents/"
    )
    picture(tmp_path / "documents/txpn0095_2.png")
    cases = cases_of("docvqa", tmp_path)
    assert [case.id for case in cases] == ["24581", "24582", "57349"]
    assert cases[0] == Case("24581", "vqa", tmp_path / "documents/txpn0095_1.png", 1, "What is the name?",
                            ("Edward R. Shannon", "Edward Shannon"))  # fmt: skip
    assert cases[1].references == ("1/8/93",) and cases[0].open().size == SIZE
    assert scores("docvqa", cases, ["edward shannon", "1/8/93", "x"]) == {"ANLS": 0.667, "exact match": 0.667}
    (tmp_path / "documents").rename(tmp_path / "elsewhere")
    assert len(cases_of("docvqa", tmp_path, "--images", tmp_path / "elsewhere")) == 3

    (tmp_path / "val_v1.0_withQT.json").unlink()
    write(tmp_path / "val_v1.0.json", {"data": [records[0], docvqa(1, "a.png", "Why?", [])]})
    assert "val_v1.0.json entry 2: a question without an answer; those of test splits" in error_of("docvqa", tmp_path)
    write(tmp_path / "val_v1.0.json", {"data": [{**records[0], "answers": "one text"}]})
    assert "the answers 'one text' are not a list" in error_of("docvqa", tmp_path)
    write(tmp_path / "val_v1.0.json", {"data": [{"image": "a.png"}]})
    assert "entry 1: no key 'questionId'; give val_v1.0_withQT.json" in error_of("docvqa", tmp_path)
    write(tmp_path / "val_v1.0.json", "[]")
    assert "val_v1.0.json has no list 'data': give val_v1.0_withQT.json" in error_of("docvqa", tmp_path)
    (tmp_path / "val_v1.0.json").unlink()
    assert f"no val_v1.0_withQT.json or val_v1.0.json in {tmp_path}: give a folder" in error_of("docvqa", tmp_path)


@pytest.mark.parametrize("folder", ["images", "infographicsvqa_images", "."])
def test_infovqa(tmp_path, folder):
    record = {"questionId": 98313, "question": "How many females?", "image_local_name": "20471.jpeg",
              "image_url": "https://example.org/a.jpeg", "ocr_output_file": "20471.json", "answers": ["2", "two"],
              "data_split": "val", "answer_type": ["single span"], "evidence": [],
              "operation/reasoning": []}  # fmt: skip
    write(tmp_path / "infographicsVQA_val_v1.0_withQT.json", {"dataset_name": "infographicVQA", "data": [record]})
    file = picture(tmp_path / folder / "20471.jpeg")
    assert cases_of("infovqa", tmp_path) == [Case("98313", "vqa", file, 1, "How many females?", ("2", "two"))]


def test_chartqa(tmp_path):
    """Records have no ids. The label is a text, or a number in a few copies."""
    human = [{"imgname": "41699051005347.png", "query": "How many bars?", "label": "14"},
             {"imgname": "41699051005347.png", "query": "Which is largest?", "label": "Blue"}]  # fmt: skip
    write(tmp_path / "test/test_human.json", human)
    write(tmp_path / "test/test_augmented.json", [{"imgname": "two.png", "query": "Value in 2018?", "label": 55.5}])
    for name in ("41699051005347", "two"):
        picture(tmp_path / f"test/png/{name}.png")
    cases = cases_of("chartqa", tmp_path / "test")
    assert [(case.id, case.group, case.references) for case in cases] == [
        ("human-1", "human", ("14",)),
        ("human-2", "human", ("Blue",)),
        ("augmented-1", "augmented", ("55.5",)),
    ]
    assert scores("chartqa", cases, ["14.5", "blue", "60"]) == {"relaxed accuracy": 0.667, "exact match": 0.333}
    assert "no val_human.json in" in error_of("chartqa", tmp_path / "test", "--split", "val")


def test_textvqa_keeps_the_answers_of_all_ten(tmp_path):
    """A person who cannot tell says "unanswerable", which counts like any other answer."""
    answers = ["nokia"] * 2 + ["Nokia"] * 5 + ["unanswerable", "toshiba", "nokia"]
    record = {"question": "what is the brand?", "image_id": "003a8ae2ef43b901", "image_classes": ["Phone"],
              "flickr_original_url": "https://example.org/a.jpg", "image_width": 1024, "image_height": 730,
              "answers": answers, "question_tokens": ["what"], "question_id": 34602, "set_name": "val"}  # fmt: skip
    write(tmp_path / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [record], "dataset_version": "0.5.1"})
    file = picture(tmp_path / "train_images/003a8ae2ef43b901.jpg")
    cases = cases_of("textvqa", tmp_path)
    assert cases == [Case("34602", "vqa", file, 1, "what is the brand?", tuple(answers))]
    assert [scores("textvqa", cases, [said])["VQA accuracy"] for said in ("nokia", "Toshiba.", "")] == [1, 0.3, 0]


def test_pope(tmp_path):
    rows = [{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?",
             "label": "yes"},
            {"question_id": 2, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a car in the image?",
             "label": "no"}]  # fmt: skip
    for part in ("random", "adversarial"):
        write(tmp_path / f"coco_pope_{part}.json", "".join(json.dumps(row) + "\n" for row in rows))
    picture(tmp_path / "val2014/COCO_val2014_000000310196.jpg")
    cases = cases_of("pope", tmp_path)
    assert [(case.id, case.group, case.truth) for case in cases] == [
        ("random-1", "random", "yes"),
        ("random-2", "random", "no"),
        ("adversarial-1", "adversarial", "yes"),
        ("adversarial-2", "adversarial", "no"),
    ]
    assert scores("pope", cases, ["Yes.", "yes", "Yes", "No, there is none."])["yes/no accuracy"] == 0.75
    assert [case.group for case in cases_of("pope", tmp_path, "--parts", "random")] == ["random", "random"]
    assert "no coco_pope_popular.json" in error_of("pope", tmp_path, "--parts", "popular")
    write(tmp_path / "coco_pope_random.json", json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], "label": "maybe"}))
    assert "coco_pope_random.json line 2: the label 'maybe' is not yes or no" in error_of("pope", tmp_path)
    write(tmp_path / "coco_pope_random.json", json.dumps(rows)[:-9])
    assert "coco_pope_random.json line 1 is not JSON" in error_of("pope", tmp_path)


def test_ocrbench(tmp_path):
    """Recognition gets the model's own prompt for reading, formulas the question as it stands. An answer may be a text
    that is no list."""

    def record(dataset: str, kind: str, question: str, answers: object, number: int) -> dict:
        image = f"{dataset}/{number}.jpg"
        picture(tmp_path / "OCRBench_Images" / image)
        return {"dataset_name": dataset, "type": kind, "id": number, "image_path": image, "question": question,
                "answers": answers}  # fmt: skip

    latex = "Please write out the expression of the formula in the image using LaTeX format."
    write(tmp_path / "OCRBench/OCRBench.json", [
        record("IIIT5K", "Regular Text Recognition", "what is written in the image?", ["CENTRE"], 0),
        record("IAM", "Handwriting Recognition", "what is written in the image?", "move", 1),
        record("textVQA", "Scene Text-centric VQA", "what is it?", ["3", "three"], 2),
        record("HME100k", "Handwritten Mathematical Expression Recognition", latex, ["x ^ { 2 }"], 3),
    ])  # fmt: skip
    cases = cases_of("ocrbench", tmp_path)
    assert [(case.task, case.prompt, case.references) for case in cases] == [
        ("ocr", "", ("CENTRE",)),
        ("ocr", "", ("move",)),
        ("vqa", "what is it?", ("3", "three")),
        ("chat", latex, ("x ^ { 2 }",)),
    ]
    assert cases[3].group == "Handwritten Mathematical Expression Recognition"
    found = scores("ocrbench", cases, ["the centre", "MOVE", "three", "x^{2} = y"])
    assert found["answer contains the truth"] == 1 and found["answer is the truth"] == 0.5


# ---- boxes ----------------------------------------------------------------------------------------------------------


def ref(number: int, split: str, annotation: int, *phrases: str) -> dict:
    sentences = [{"raw": each, "sent": each, "sent_id": place, "tokens": each.split()}
                 for place, each in enumerate(phrases)]  # fmt: skip
    return {"ref_id": number, "ann_id": annotation, "category_id": 1, "image_id": 581857, "split": split,
            "file_name": "COCO_train2014_000000581857_16.jpg", "sentences": sentences, "sent_ids": [1]}  # fmt: skip


def refcoco(folder: Path, refs: list[dict]) -> None:
    name = "COCO_train2014_000000581857.jpg"
    box = {"category_id": 1, "image_id": 581857, "iscrowd": 0, "segmentation": [[1, 2, 3, 4]], "area": 4.0}
    tree = {"images": [{"id": 581857, "file_name": name, "width": 200, "height": 100}],
            "annotations": [{**box, "id": 17, "bbox": [20.0, 10.0, 40.0, 20.0]},
                            {**box, "id": 18, "bbox": [100.0, 50.0, 100.5, 60.0]}],
            "categories": [{"id": 1, "name": "person", "supercategory": "person"}]}  # fmt: skip
    write(folder / "instances.json", tree)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))


def test_refcoco_asks_each_sentence(tmp_path):
    refs = [ref(0, "testA", 17, "the lady with the blue shirt", "lady  in blue"), ref(1, "val", 18, "right"),
            ref(2, "train", 18, "never asked")]  # fmt: skip
    refcoco(tmp_path, refs)
    assert "1 of 1 pictures are missing" in error_of("refcoco", tmp_path)
    file = picture(tmp_path / "images/train2014/COCO_train2014_000000581857.jpg")
    cases = cases_of("refcoco", tmp_path, "--images", tmp_path / "images")
    assert [(case.id, case.group, case.prompt, case.boxes[0].xyxy) for case in cases] == [
        ("0-0", "testA", "the lady with the blue shirt", (100, 100, 300, 300)),
        ("0-1", "testA", "lady in blue", (100, 100, 300, 300)),
        ("1-0", "val", "right", (500, 500, 1000, 1000)),
    ]
    assert cases[0].task == "ground" and cases[0].file == file
    answers = [Prediction(boxes=case.boxes) for case in cases[:2]] + [Prediction()]
    metrics = SUITES["refcoco"].metrics(options_of("refcoco"))
    assert metrics[0].measure(answers, cases) == pytest.approx(2 / 3)
    words = ("--images", tmp_path / "images", "--split")
    assert [case.id for case in cases_of("refcoco", tmp_path, *words, "val")] == ["1-0"]
    assert "has no split testC: give --split testA train val" in error_of("refcoco", tmp_path, *words, "testC")
    refcoco(tmp_path, [ref(3, "val", 99, "nobody")])
    assert "refs(unc).p entry 1: instances.json lacks the image or the box of reference 3" in error_of(
        "refcoco", tmp_path
    )
    tree = json.loads((tmp_path / "instances.json").read_text())
    tree["annotations"][0]["bbox"] = None
    refcoco(tmp_path, refs)
    write(tmp_path / "instances.json", tree)
    assert "entry 1: the box of reference 0 in instances.json is not four numbers" in error_of("refcoco", tmp_path)
    refcoco(tmp_path, [{"split": "val"}])
    assert "refs(unc).p entry 1: no key 'image_id'; give refs(unc).p" in error_of("refcoco", tmp_path)


def test_refcoco_does_not_ask_about_pictures_that_are_turned(tmp_path):
    refcoco(tmp_path, [ref(0, "val", 17, "left")])
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(tmp_path / "train2014/COCO_train2014_000000581857.jpg", exif=turned)
    assert "is turned by its EXIF" in error_of("refcoco", tmp_path)


# ---- pages ----------------------------------------------------------------------------------------------------------


def test_fox(tmp_path):
    """Line pictures are found in the folder of the other language too, where Fox's README has them."""

    def part(name: str, image: str, question: str, answer: str) -> None:
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        write(tmp_path / f"{name}.json", [{"image": image, "conversations": turns}])

    part("en_page_ocr", "en_1.png", "OCR this page.", "Dense English words.")
    part("cn_page_ocr", "cn_1.png", "OCR this page.", "中文。")
    part("en_line_ocr", "en_2.png", "OCR the line at [1, 2, 3, 4].", "One line.")
    picture(tmp_path / "en_pdf_png/en_1.png")
    picture(tmp_path / "cn_pdf_png/cn_1.png")
    picture(tmp_path / "cn_pdf_png/en_2.png")
    cases = cases_of("fox", tmp_path)
    assert [(case.id, case.task, case.prompt, case.truth) for case in cases] == [
        ("en-page-1", "ocr", "", "Dense English words."),
        ("cn-page-1", "ocr", "", "中文。"),
    ]
    assert scores("fox", cases, ["Dense English words.", "中文。"])["edit distance (fox-compat)"] == 0
    assert scores("fox", cases, ["", ""], "--protocol", "strict")["edit distance (strict)"] == 1
    (line,) = cases_of("fox", tmp_path, "--parts", "en-line")
    assert (line.task, line.prompt) == ("chat", "OCR the line at [1, 2, 3, 4].")
    assert line.file == tmp_path / "cn_pdf_png/en_2.png"
    assert "no en_box_ocr.json in" in error_of("fox", tmp_path, "--parts", "en-box")
    (tmp_path / "cn_page_ocr.json").unlink()
    assert [case.group for case in cases_of("fox", tmp_path)] == ["en-page"]
    write(tmp_path / "en_page_ocr.json", [{"image": ["1.png", "2.png"], "conversations": []}])
    assert "en_page_ocr.json entry 1: image must be one file name" in error_of("fox", tmp_path)


def test_sroie(tmp_path):
    """Texts have commas; lines are read from top to bottom and, beside each other, from left to right."""
    lines = ["100,60,180,60,180,70,100,70,8.70", "20,10,120,10,120,20,20,20,TAN, WOON & YANN",
             "20,59,90,59,90,69,20,69,TOTAL:", ""]  # fmt: skip
    picture(tmp_path / "test/img/X51005365187.jpg")
    write(tmp_path / "test/box/X51005365187.txt", "\r\n".join(lines))
    fields = {"company": "TAN, WOON & YANN", "date": "19/01/2018", "total": "8.70"}
    write(tmp_path / "test/entities/X51005365187.txt", json.dumps(fields, indent=4))
    (case,) = cases_of("sroie", tmp_path)
    assert case.truth == "TAN, WOON & YANN\nTOTAL:\n8.70" and case.task == "ocr"
    assert case.boxes[1].label == "TAN, WOON & YANN" and case.boxes[1].xyxy == (100, 100, 600, 200)
    perfect, metrics = Prediction(case.truth.title(), case.boxes), SUITES["sroie"].metrics(options_of("sroie"))
    assert [metric.measure([perfect], [case]) for metric in metrics] == [1, 0, 1, 1]
    asked = cases_of("sroie", tmp_path, "--fields")
    assert [(each.group, each.prompt, each.truth) for each in asked] == [
        ("company", "What is the name of the company?", "TAN, WOON & YANN"),
        ("date", "What is the date?", "19/01/2018"),
        ("total", "What is the total amount?", "8.70"),
    ]
    (tmp_path / "test/box/X51005365187.txt").write_bytes("1,2,3,4,5,6,7,8,café".encode("latin-1"))
    assert cases_of("sroie", tmp_path)[0].truth == "café"
    write(tmp_path / "test/box/X51005365187.txt", "1,2,3,4,5,6,7,8,a\n1,2,3,b")
    assert "X51005365187.txt line 2: not eight numbers and a text" in error_of("sroie", tmp_path)
    (tmp_path / "test/box/X51005365187.txt").unlink()
    assert "X51005365187.jpg has no box/X51005365187.txt" in error_of("sroie", tmp_path)


def test_funsd(tmp_path):
    """Words of the file are in the order of its entities; the page is read row by row."""

    def entity(number: int, *words: tuple[str, list[int]]) -> dict:
        box = [min(box[0] for _, box in words), 0, 0, 0]
        return {"id": number, "box": box, "text": " ".join(word for word, _ in words), "label": "question",
                "linking": [[number, 1]], "words": [{"text": word, "box": box} for word, box in words]}  # fmt: skip

    form = [
        entity(0, ("12", [100, 40, 120, 50])),
        entity(1, ("Date", [20, 40, 50, 50]), ("of", [60, 41, 70, 51]), ("birth", [20, 60, 50, 70])),
        entity(2, ("FORM", [20, 10, 80, 20]), ("", [90, 10, 95, 20])),
    ]
    write(tmp_path / "dataset/testing_data/annotations/82092117.json", {"form": form})
    assert "1 of 1 pictures are missing" in error_of("funsd", tmp_path)
    picture(tmp_path / "dataset/testing_data/images/82092117.png")
    (case,) = cases_of("funsd", tmp_path)
    assert case.id == "82092117" and case.truth == "FORM\nDate of 12\nbirth"
    assert [box.label for box in case.boxes] == ["12", "Date of", "birth", "FORM"]
    assert case.boxes[1].xyxy == (100, 400, 350, 510)
    write(tmp_path / "dataset/testing_data/annotations/82092117.json", {"form": [{"id": 0}]})
    assert "82092117.json entity 1: no key 'words'" in error_of("funsd", tmp_path)


def omnidocbench() -> list[dict]:
    def part(kind: str, order: int | None, **rest: object) -> dict:
        return {"category_type": kind, "poly": [0.0] * 8, "ignore": False, "order": order, "anno_id": 1, **rest}

    parts = [
        part("table", 3, html="<table><tr><td>1</td></tr></table>", latex=r"\begin{tabular}"),
        part("text_block", 2, text="A paragraph."),
        part("header", None, text="Running head"),
        part("title", 1, text="Title"),
        part("equation_isolated", 4, latex="$$x^2$$"),
        part("text_block", 5, text="ignored") | {"ignore": True},
        part("figure", 6),
    ]
    info = {"page_no": 0, "height": 100, "width": 200, "image_path": "paper.pdf_12.jpg",
            "page_attribute": {"data_source": "academic_literature", "language": "english"}}  # fmt: skip
    return [{"layout_dets": parts, "page_info": info, "extra": {"relation": []}}]


def test_omnidocbench(tmp_path):
    write(tmp_path / "OmniDocBench.json", omnidocbench())
    picture(tmp_path / "images/paper.pdf_12.jpg")
    (case,) = cases_of("omnidocbench", tmp_path)
    assert case.truth == "# Title\n\nA paragraph.\n\n<table><tr><td>1</td></tr></table>\n\n$$\nx^2\n$$"
    assert (case.task, case.group) == ("markdown", "academic_literature")
    assert cases_of("omnidocbench", tmp_path, "--task", "ocr")[0].task == "ocr"
    assert set(scores("omnidocbench", [case], [case.truth]).values()) == {0, 1}
    SUITES["omnidocbench"].write_markdown(tmp_path / "out", [case], [Prediction(" # Title\n")])
    assert (tmp_path / "out/paper.pdf_12.md").read_text() == "# Title\n"
