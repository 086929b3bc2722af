"""Importers of conversations, questions, captions and pages; each reads a tiny source in its own layout, and its
prompts and answers are compared letter by letter."""

import json
import sys
from pathlib import Path

import pyarrow
import pytest
from conftest import noise
from pyarrow import parquet
from test_import_objects import dropped, evaluated, run, texts

from data_tools.importers.olmocr import is_plain
from varytoy.tasks import TASKS


def written(file: Path, tree: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree))
    return file


def talk(*turns: str) -> list[dict]:
    return [{"from": ("human", "gpt")[place % 2], "value": turn} for place, turn in enumerate(turns)]


def conversation(sample) -> list[str]:
    return [message["content"] for message in sample.messages]


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise(40, 30).save(file)


def test_the_mixture_of_llava(tmp_path, capsys):
    """Images under several roots, none, and the same twice; ``<image>`` behind the question; boxes from 0 to 1."""
    for name in ("coco/train2017/1.jpg", "vg/VG_100K_2/5.jpg"):
        picture(tmp_path / name)
    region = "<image>\nDescribe this region: [0.25, 0.5, 0.75, 1.0]"
    first = talk("What is it?\n<image>", "A cat.", "Sure?", "Yes.")
    records = [
        {"id": "1", "image": "coco/train2017/1.jpg", "conversations": first},
        {"id": "wg_0", "model": "", "conversations": talk("Write f([0, 1, 0, 1]).", "f()")},
        {"id": "5", "image": "vg/VG_100K_2/5.jpg", "conversations": talk(region, "a dog")},
        {"id": 1, "image": "coco/train2017/1.jpg", "conversations": talk("<image>\nAnd this?", "A hat.")},
        {"id": "9", "image": "gqa/images/9.jpg", "conversations": talk("<image>\nWhat?", "A cat.")},
        {"id": "8", "image": "coco/train2017/1.jpg", "conversations": talk("No place for the image", "A cat.")},
        {"id": "7", "conversations": talk("<image>\nWithout one", "A cat.")},
        {"id": "6", "conversations": talk("No answer")},
        {"id": "4"},
        "text",
    ]  # fmt: skip
    file = written(tmp_path / "llava_v1_5_mix665k.json", records)
    samples = run("llava", tmp_path, file)
    assert [conversation(sample) for sample in samples] == [
        ["<image>\nWhat is it?", "A cat.", "Sure?", "Yes."],
        ["<image>\nAnd this?", "A hat."],
        ["Write f([0, 1, 0, 1]).", "f()"],
        [region, "a dog"],
    ]
    assert [sample.images for sample in samples][2:] == [[], ["images/vg/VG_100K_2/5.jpg"]]
    assert {sample.task for sample in samples} == {"chat"}
    assert dropped(samples[0]) == {"image cannot be read": 1, "not a valid sample": 5}
    error = capsys.readouterr().err
    assert "gqa/images/9.jpg: no such file" in error and "entry 5" in error
    assert (
        "entry 6: 0 '<image>' in the messages but 1 in 'images'" in error and "entry 9: no key 'conversations'" in error
    )
    fewer = run("llava", tmp_path, file, "--without-boxes")
    assert len(fewer) == 3 and dropped(fewer[0])["box from 0 to 1"] == 1


def test_captions_of_blip(tmp_path):
    picture(tmp_path / "00453/1.jpg")
    records = [
        {
            "id": "1",
            "image": "00453/1.jpg",
            "conversations": talk("Share a concise view.\n<image>", "a woman with a cap"),
        },
        {"id": "2", "image": "00453/1.jpg", "conversations": talk("<image>\nDescribe.")},
    ]
    file = written(tmp_path / "blip_laion_cc_sbu_558k.json", records)
    (sample,) = evaluated("blip558k", tmp_path, file)
    assert (sample.task, sample.prompt) == ("caption", "Describe the content of this image in a sentence.")
    assert sample.answer == "A woman with a cap." and sample.annotations.references == ["A woman with a cap."]
    assert dropped(sample) == {"not a valid sample": 1}
    (trained,) = run("blip558k", tmp_path, file)
    assert trained.prompt in TASKS["caption"].prompts and trained.answer == sample.answer


ASK = " Answer using a single word or phrase."


def question(number: int, image: str, answers: list | None, **more) -> dict:
    found = {} if answers is None else {"answers": answers}
    return {"questionId": number, "question": "What  is the date?", "image": image, "docId": 1, **found, **more}


def test_docvqa(tmp_path, capsys):
    picture(tmp_path / "documents/xnbl0037_1.png")
    data = [
        question(337, "documents/xnbl0037_1.png", ["1/8/93", "January 8"]),
        question(338, "documents/gone.png", ["x"]),
        question(339, "documents/xnbl0037_1.png", None),
        {"questionId": 340},
    ]
    file = written(
        tmp_path / "train_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "dataset_split": "train", "data": data}
    )
    (sample,) = evaluated("docvqa", tmp_path, file)
    assert texts([sample]) == [("What is the date?" + ASK, "1/8/93")] and sample.task == "vqa" and sample.id == "337"
    assert sample.annotations.references == ["1/8/93", "January 8"]
    assert sample.images == ["images/documents/xnbl0037_1.png"]
    assert dropped(sample) == {"image cannot be read": 1, "not a valid sample": 1, "question without an answer": 1}
    error = capsys.readouterr().err
    assert "entry 2" in error and "entry 3: question without an answer" in error and "entry 4: no key 'image'" in error
    many = [question(number, "documents/xnbl0037_1.png", ["1/8/93", "January 8"]) for number in range(60)]
    trained = run("docvqa", tmp_path, written(tmp_path / "many.json", {"data": many}))
    assert {sample.answer for sample in trained} == {"1/8/93", "January 8"}
    forms = {form.format("What is the date?") for form in TASKS["vqa"].prompts}
    assert {sample.prompt for sample in trained} == forms | {"What is the date?"}
    run("docvqa", tmp_path, written(tmp_path / "other.json", {"questions": []}), code=2)
    assert "has no list 'data': give train_v1.0_withQT.json" in capsys.readouterr().err


def test_chartqa(tmp_path, capsys):
    picture(tmp_path / "png/41699051005347.png")
    records = [
        {"imgname": "41699051005347.png", "query": "How many bars?", "label": "3"},
        {"imgname": "41699051005347.png", "query": "Which is {}?", "label": 5.5},
        {"imgname": "no.png", "query": "How many?", "label": "3"},
        {"query": "How many?", "label": "3"},
    ]
    samples = evaluated("chartqa", tmp_path, written(tmp_path / "train_human.json", records))
    assert texts(samples) == [("How many bars?" + ASK, "3"), ("Which is {}?" + ASK, "5.5")]
    assert samples[1].images == ["images/png/41699051005347.png"] and samples[1].id == "2"
    assert dropped(samples[0]) == {"image cannot be read": 1, "not a valid sample": 1}
    assert "entry 4: no key 'imgname'" in capsys.readouterr().err


def test_textvqa(tmp_path):
    picture(tmp_path / "train_images/0054c91397f2fe05.jpg")
    answers = ["nokia"] * 5 + ["Nokia phone", "Nokia phone", "nok", "unanswerable", " "]
    data = [
        {"question": "what brand?", "image_id": "0054c91397f2fe05", "question_id": number, "answers": answers}
        for number in range(40)
    ]  # fmt: skip
    file = written(tmp_path / "TextVQA_0.5.1_train.json", {"dataset_type": "train", "data": data})
    samples = evaluated("textvqa", tmp_path, file)
    assert set(texts(samples)) == {("what brand?" + ASK, "nokia")} and len(samples) == 40
    assert samples[0].annotations.references == answers[:-1]  # as often as they were given
    assert TASKS["vqa"].score(["unanswerable", "samsung"], samples[:2]) == 0.5
    trained = run("textvqa", tmp_path, file)
    assert {sample.answer for sample in trained} == {"nokia", "Nokia phone"}, "answers of one person alone"


def test_sharegpt(tmp_path, capsys):
    records = [
        {
            "id": "a_0",
            "conversations": [{"from": "system", "value": "Be brief."}, *talk("Hi ", "Hello.", "Bye", "Bye!")],
        },
        {"id": "a_1", "conversations": [{"from": "gpt", "value": "Welcome."}, *talk("Hi", "Hello.", "and")]},
        {"id": "a_2", "conversations": [*talk("Hi", "Hello."), {"from": "gpt", "value": "Again."}]},
        {"id": "a_3", "conversations": talk("Hi", "")},
        {"id": "a_4", "conversations": [{"from": "gpt", "value": "Welcome."}]},
        {"id": "a_5", "conversations": [{"from": "robot", "value": "Welcome."}]},
        {"id": "a_6", "conversations": talk("What is <image>?", "A tag.")},
        {"id": "a_7", "conversations": []},
        {"id": "a_8", "conversations": [{"from": "user", "value": "Hé"}, {"from": "assistant", "value": "Ho"}]},
    ]
    file = written(tmp_path / "sharegpt.json", records)
    samples = run("sharegpt", tmp_path, file)
    assert [(sample.id, conversation(sample)) for sample in samples] == [
        ("a_0", ["Be brief.", "Hi", "Hello.", "Bye", "Bye!"]),
        ("a_1", ["Hi", "Hello."]),
        ("a_8", ["Hé", "Ho"]),
    ]
    assert samples[0].messages[0]["role"] == "system" and samples[0].task == "chat" and samples[0].images == []
    assert dropped(samples[0]) == {
        "conversation whose turns do not alternate": 1,
        "conversation with an empty turn": 1,
        "conversation without a question and an answer": 1,
        "not a valid sample": 2,
        "turn of an unknown speaker": 1,
    }
    assert "sharegpt.json entry 6: 'robot' is not one of human" in capsys.readouterr().err
    lines = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    lines[1] = lines[1][:-3]  # a cut line
    lines[2] = '{"id": "caf\xe9"}'.encode("latin-1")
    (tmp_path / "sharegpt.jsonl").write_bytes(b"\n".join(lines))
    from_lines = run("sharegpt", tmp_path, tmp_path / "sharegpt.jsonl")
    assert [conversation(sample) for sample in from_lines] == [conversation(samples[place]) for place in (0, 2)]
    assert dropped(from_lines[0])["not JSON"] == dropped(from_lines[0])["not UTF-8"] == 1
    error = capsys.readouterr().err
    assert "sharegpt.jsonl line 2: not JSON (Expecting" in error and "line 3: not UTF-8" in error


def test_alpaca(tmp_path, capsys):
    records = [
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "Sort.", "input": "3, 1", "output": "1, 3"},
        {"instruction": "Go.", "input": "<noinput>", "output": "Gone."},
        {"instruction": "Nothing.", "input": "", "output": ""},
        ["list"],
    ]
    samples = run("alpaca", tmp_path, written(tmp_path / "alpaca_data.json", records))
    assert [conversation(sample) for sample in samples] == [
        ["Name a colour.", "Red."],
        ["Sort.\n\n3, 1", "1, 3"],
        ["Go.", "Gone."],
    ]
    assert dropped(samples[0]) == {"instruction or output that is empty": 1, "not a valid sample": 1}
    assert "entry 4: instruction or output" in capsys.readouterr().err


def page(text: str | None, **more) -> str:
    return json.dumps({"primary_language": "en", "is_rotation_valid": True, "rotation_correction": 0, "is_table": False,
                       "is_diagram": False, "natural_text": text, **more})  # fmt: skip


@pytest.fixture
def mix(tmp_path) -> Path:
    rows = [
        ("aaaa-1", page("A plain page.\nIt has\n\ntwo paragraphs for $5.")),
        ("bbbb-2", page("# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |", is_table=True)),
        ("cccc-3", page("The area is \\(x^2\\).")),
        ("dddd-4", page("Zu drehen.", rotation_correction=90)),
        ("eeee-5", page(None)),
        ("ffff-6", page("The file is gone.")),
        ("gggg-7", "{"),
        ("hhhh-8", page("Der Text.", primary_language="de")),
        ("iiii-9", page("The file is broken.")),
        ("../aaaa-1", page("Elsewhere.")),
        ("jjjj-0", page("Zu drehen.", is_rotation_valid=False)),
    ]
    (tmp_path / "pdfs/bbbb").mkdir(parents=True)
    for place, name in enumerate(("aaaa-1", "bbbb/-2", "cccc-3", "hhhh-8")):
        more = [noise(60, 80, 8), noise(60, 80, 0)] if place == 2 else []
        noise(60, 80, place).save(tmp_path / f"pdfs/{name}.pdf", save_all=True, append_images=more)
    (tmp_path / "pdfs/iiii-9.pdf").write_bytes((tmp_path / "pdfs/aaaa-1.pdf").read_bytes()[:300])
    columns = {
        "url": ["u"] * 11,
        "page_number": [3] * 11,
        "response": [text for _, text in rows],
        "id": [name for name, _ in rows],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "train-s2pdf.parquet", row_group_size=4)
    return tmp_path / "train-s2pdf.parquet"


def test_pages_of_olmocr(tmp_path, mix, capsys, monkeypatch):
    words = ("--images", str(tmp_path / "pdfs"), "--dpi", "72", "--format", "png")
    samples = evaluated("olmocr-mix", tmp_path, mix, *words)
    assert [(sample.task, *pair) for sample, pair in zip(samples, texts(samples), strict=True)] == [
        ("ocr", "Provide the OCR results of this image.", "A plain page.\nIt has\n\ntwo paragraphs for $5."),
        ("markdown", "Convert the image to markdown format.", "# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        ("markdown", "Convert the image to markdown format.", "The area is \\(x^2\\)."),
        ("ocr", "Provide the OCR results of this image.", "Der Text."),
    ]
    first, _, third, _ = (sample.open_images()[0] for sample in samples)
    assert first.size == (632, 842)  # a small page is drawn as large as A4
    assert third.tobytes() == first.tobytes() and samples[2].images == ["images/cccc-3-page3.png"]
    assert dropped(samples[0]) == {
        "image cannot be read": 2,
        "not a valid sample": 2,
        "page that is turned": 2,
        "page without text": 1,
    }
    error = capsys.readouterr().err
    assert "train-s2pdf.parquet row 6" in error and "ffff-6.pdf: no such file" in error
    assert "iiii-9.pdf is a broken PDF" in error and "row 10: the image path '../aaaa-1-page3.png' leaves" in error
    german = run("olmocr-mix", tmp_path, mix, *words, "--languages", "de", "--limit", "1")
    assert [sample.answer for sample in german] == ["Der Text."]
    parquet.write_table(pyarrow.table({"id": ["a"]}), mix)
    run("olmocr-mix", tmp_path, mix, *words, code=2)
    assert "has no column response: give train-s2pdf.parquet" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run("olmocr-mix", tmp_path, mix, *words, code=2)
    assert "olmocr-mix needs pyarrow: pip install -c varytoy/constraints.txt -e '.[data]'" in capsys.readouterr().err
    monkeypatch.undo()
    mix.write_bytes(b"PAR1 no table PAR1")
    run("olmocr-mix", tmp_path, mix, *words, code=2)
    assert "is not parquet" in capsys.readouterr().err


def test_text_without_formatting_is_plain():
    assert is_plain("It costs $5 or $6.\n\nTwo\nlines - and a dash * or a star")
    for text in (
        "**bold**",
        "# Title",
        "- list",
        "$$x$$",
        "$x_1$",
        "\\[x\\]",
        "\\frac{1}{2}",
        "<b>x</b>",
        "`code`",
        "a\\*b",
        "&amp;",
    ):
        assert not is_plain(text), text
