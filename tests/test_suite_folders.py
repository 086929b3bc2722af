"""Suites of one's own data: texts, hOCR, JSON and samples beside pictures."""

import json
import tarfile

import pytest
from PIL import Image
from test_suites import SIZE, cases_of, error_of, options_of, picture, scores, write

from varytoy.evaluation.case import Case, Prediction
from varytoy.evaluation.suites import SUITES


def test_blocks_and_pages(tmp_path):
    picture(tmp_path / "000.png")
    write(tmp_path / "000.txt", "Two\nlines, é.\n")
    (block,) = cases_of("blocks", tmp_path)
    assert block == Case("000", "ocr", tmp_path / "000.png", references=("Two\nlines, é.",))
    assert SUITES["blocks"].single_block and not SUITES["pages"].single_block
    picture(tmp_path / "001.pdf")
    assert "001.pdf has no partner" in error_of("pages", tmp_path)
    write(tmp_path / "001.txt", "A page.")
    assert [case.id for case in cases_of("pages", tmp_path)] == ["000", "001"]
    found = scores("pages", cases_of("pages", tmp_path), ["Two lines, é.", "A pages."])
    assert found == {"normalised edit distance": 0.062, "character error rate": 0.05, "word error rate": 0.2,
                     "word F1": 0.8}  # fmt: skip
    page = Image.new("RGB", SIZE)
    page.save(tmp_path / "001.pdf", save_all=True, append_images=[page])
    assert "001.pdf has 2 pages: give each a file of its own" in error_of("pages", tmp_path)
    (tmp_path / "001.pdf").unlink()
    (tmp_path / "001.txt").unlink()
    (tmp_path / "000.txt").write_bytes(b"caf\xe9")
    assert "000.txt is not UTF-8" in error_of("pages", tmp_path)
    picture(tmp_path / "000.jpg")
    assert "000.jpg and 000.png have one name: rename one" in error_of("blocks", tmp_path)


HOCR = """<?xml version="1.0" encoding="UTF-8"?>
<html xmlns="http://www.w3.org/1999/xhtml"><body><div class='ocr_page' title='bbox 0 0 200 100'>
 <span class='ocr_line' title="bbox 20 10 120 20; baseline 0 -8">
  <span class='ocrx_word' title='bbox 20 10 60 20;x_wconf 99'>Right &amp;</span>
  <span class='ocrx_word' title='bbox 70 11 120 20'><strong>bold</strong></span>
 </span>
 <span class='ocr_line' title="bbox 20 30 60 40"><span class='ocrx_word' title='bbox 20 30 60 40'>end</span>
  <span class='ocrx_word' title='bbox 70 30 80 40'> </span></span>
</div></body></html>"""


def test_scans(tmp_path):
    picture(tmp_path / "chart_02.png")
    write(tmp_path / "chart_02.hocr", HOCR)
    (case,) = cases_of("scans", tmp_path)
    assert case.truth == "Right & bold\nend"
    assert [(box.label, box.xyxy) for box in case.boxes] == [
        ("Right & bold", (100, 100, 600, 200)),
        ("end", (100, 300, 300, 400)),
    ]
    write(tmp_path / "chart_02.hocr", HOCR.replace("bbox 70 11 120 20", "x_wconf 1"))
    assert "chart_02.hocr: line 5: a word without bbox" in error_of("scans", tmp_path)
    write(tmp_path / "chart_02.hocr", "<html></html>")
    assert "chart_02.hocr has no words" in error_of("scans", tmp_path)


def test_receipts(tmp_path):
    picture(tmp_path / "500.jpg")
    lines = [{"quad": [100, 60, 180, 60, 180, 70, 100, 70], "text": "8.70"},
             {"quad": [20, 61, 90, 59, 90, 69, 20, 71], "text": "TOTAL:"}]  # fmt: skip
    write(tmp_path / "500.json", {"lines": lines, "fields": {"total": "8.70"}})
    (case,) = cases_of("receipts", tmp_path)
    assert case.truth == "TOTAL:\n8.70" and case.boxes[1].xyxy == (100, 590, 450, 710)
    assert scores("receipts", [case], ["Total: 8.70"])["character error rate without case"] == 0
    write(tmp_path / "500.json", {"lines": [lines[0], {"quad": [1, 2, 3, 4], "text": "a"}]})
    assert "500.json line 2: not four corners" in error_of("receipts", tmp_path)


def test_docbank(tmp_path):
    picture(tmp_path / "1.tar_a.gz_b_0_ori.jpg")
    rows = ["FIG.\t90\t905\t113\t917\t0\t0\t0\tNimbus\tcaption", "##LTFigure##\t1\t2\t3\t4\t0\t0\t0\tdefault\tfigure",
            "7.—\t117\t905\t141\t917\t0\t0\t0\tNimbus\tcaption"]  # fmt: skip
    write(tmp_path / "1.tar_a.gz_b_0.txt", "\n".join(rows))
    (case,) = cases_of("docbank", tmp_path)
    assert (case.id, case.truth) == ("1.tar_a.gz_b_0", "FIG. 7.—")
    write(tmp_path / "1.tar_a.gz_b_0.txt", "one two")
    assert "line 1 has no token and four numbers" in error_of("docbank", tmp_path)


def sample(task: str, prompt: str, answer: str, **rest: object) -> dict:
    messages = [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}]
    return {"id": f"{task}-{prompt[:9]}", "task": task, "messages": messages, "images": ["images/a.png"], **rest}


def test_samples(tmp_path):
    """Prompts in any wording become what the task takes. Captions are scored by their references, boxes by the answer
    where the sample has none."""
    picture(tmp_path / "images/a.png")
    cat = {"label": "cat", "box": [100, 100, 300, 300]}
    rows = [
        sample("ocr", "What does this image say?", "Words.", metadata={"kind": "sign"}),
        sample("vqa", "In a word or a short phrase: What colour?", "grey", annotations={"references": ["gray"]}),
        sample("vqa", "How many?", "two"),
        sample("ground", "Where is the left cat?", "[100, 100, 300, 300]"),
        sample("detect", "Find every cat in this image.", "cat: [100, 100, 300, 300];", boxes=[cat],
               annotations={"classes": ["cat"]}),
        sample("caption", "Caption this image.", "a cat", annotations={"references": ["a cat", "one cat"]}),
        sample("caption", "图中是什么？", "一只猫", annotations={"references": ["一只猫"]}),
    ]  # fmt: skip
    write(tmp_path / "samples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    cases = cases_of("samples", tmp_path)
    assert [(case.task, case.group, case.prompt, case.references) for case in cases] == [
        ("ocr", "ocr sign", "", ("Words.",)),
        ("vqa", "vqa", "What colour?", ("grey", "gray")),
        ("vqa", "vqa", "How many?", ("two",)),
        ("ground", "ground", "the left cat", ()),
        ("detect", "detect", "cat", ()),
        ("caption", "caption", "", ("a cat", "one cat")),
        ("chat", "caption", "图中是什么？", ("一只猫",)),
    ]
    assert cases[3].boxes[0].xyxy == cases[4].boxes[0].xyxy == (100, 100, 300, 300)
    answers = [Prediction(text) for text in ("Word.", "gray", "3")] + [Prediction(boxes=cases[4].boxes)] * 2
    answers += [Prediction("a cat"), Prediction("一只猫")]
    metrics = SUITES["samples"].metrics(options_of("samples"))
    found = {metric.name: metric.measure(answers, cases) for metric in metrics}
    assert found["ocr: character error rate"] == pytest.approx(1 / 6)
    assert found["vqa: exact match"] == 0.5 and found["caption: CIDEr-D"] > 1
    assert found["ground: accuracy at IoU 0.5"] == found["detect: F1 at IoU 0.5"] == 1
    assert min(found["detect: AP"], found["detect: AP50"]) > 0.999
    assert found["markdown: markdown tree similarity"] != found["markdown: markdown tree similarity"], "there is none"
    assert [case.task for case in cases_of("samples", tmp_path, "--tasks", "vqa")] == ["vqa", "vqa"]
    with tarfile.open(tmp_path / "shards.tar", "w") as shard:
        shard.add(tmp_path / "images/a.png", "images/a.png")
        shard.add(write(tmp_path / "one.json", rows[0]), "one.json")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards.tar").rename(tmp_path / "shards/shard-000000.tar")
    (case,) = cases_of("samples", tmp_path / "shards")
    assert case.open().size == SIZE
    write(tmp_path / "samples.jsonl", json.dumps(sample("chat", "Hello", "Hi")))
    assert "the task chat is not scored; choose with --tasks" in error_of("samples", tmp_path)
    write(tmp_path / "samples.jsonl", json.dumps({"task": "ocr"}))
    assert "samples.jsonl line 1" in error_of("samples", tmp_path)
