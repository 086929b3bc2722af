"""Importers of boxes: COCO, Objects365, Open Images, RefCOCO, Flickr30k Entities; each reads a tiny source in its own
layout, and its prompts and answers are compared letter by letter."""

import json
import os
import pickle
import re
from pathlib import Path

import pytest
from conftest import noise
from PIL import Image

from data_tools.__main__ import main
from varytoy.data.samples import read_samples
from varytoy.tasks import TASKS

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 90, "name": "toothbrush"}]


def run(name: str, folder: Path, annotations: Path, *options: str, code: int = 0) -> list:
    """The samples that an importer makes, with the default prompts."""
    out = folder / f"out-{name}-{len(list(folder.glob('out-*')))}"
    words = ["--annotations", str(annotations), "--out", str(out), "--workers", "1", *options]
    assert main([name, *words]) == code
    return list(read_samples(out)) if code == 0 else []


def evaluated(name: str, folder: Path, annotations: Path, *options: str) -> list:
    return run(name, folder, annotations, "--evaluate", *options)


def texts(samples: list) -> list[tuple[str, str]]:
    return [(sample.prompt, sample.answer) for sample in samples]


def dropped(sample) -> dict[str, int]:
    return json.loads((sample.folder / "manifest.json").read_text())["dropped"]


def coco(folder: Path, images: list[tuple], annotations: list[tuple], name: str = "instances.json") -> Path:
    """``images``: id, file name; ``annotations``: image, category, box, and more."""
    tree = {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"id": number, "file_name": file, "width": 200, "height": 100} for number, file in images],
        "annotations": [
            {"id": 100 + place, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": 0, "area": 1} | more
            for place, (image, kind, box, *(more,)) in enumerate((*each, {})[:4] for each in annotations)
        ],
        "categories": CATEGORIES,
    }
    (folder / name).write_text(json.dumps(tree))
    for _, file in images:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        noise(200, 100).save(folder / file)
    return folder / name


def test_coco_becomes_detection_and_grounding(tmp_path, capsys):
    objects = [(7, 18, [100, 50, 60, 49]), (7, 1, [20, 10, 40, 20]), (7, 1, [2, 0, 2, 100]), (7, 90, [150, 90, 80, 30])]
    samples = evaluated("coco", tmp_path, coco(tmp_path, [(7, "a.jpg")], objects))
    assert texts(samples) == [
        (
            "Detect all objects in this image.",
            "dog: [500, 500, 800, 990]; person: [010, 000, 020, 1000], [100, 100, 300, 300]; "
            "toothbrush: [750, 900, 1000, 1000];",  # the last is cut at the image's corner
        ),
        ("Detect an object: the dog.", "[500, 500, 800, 990]"),
        ("Detect an object: the toothbrush.", "[750, 900, 1000, 1000]"),
    ]
    detection, grounding, _ = samples
    assert detection.annotations.all_objects and not detection.annotations.classes and len(detection.boxes) == 4
    assert [sample.id for sample in samples] == ["7-0", "7-1", "7-2"] and grounding.images == ["images/a.jpg"]
    regions = TASKS["detect"].parse(detection.answer, (200, 100)).objects
    assert [(region.label, region.box) for region in regions][:2] == [
        ("dog", (100, 50, 160, 99)),
        ("person", (2, 0, 4, 100)),
    ]
    (region,) = TASKS["ground"].parse(grounding.answer, (200, 100), "the dog").objects
    assert region.box == (100, 50, 160, 99)
    assert capsys.readouterr().out.count("\n") == 1  # pycocotools prints what it does
    others = [sample.messages[0]["content"] for sample in run("coco", tmp_path, tmp_path / "instances.json")]
    assert others != [sample.messages[0]["content"] for sample in samples]
    for sample, prompt in zip(samples, others, strict=True):
        forms = [form.replace("{}", sample.boxes[0].label) for form in TASKS[sample.task].prompts]
        assert prompt.removeprefix("<image>\n") in forms


def test_where_boxes_are_many_or_lacking_classes_are_named(tmp_path):
    row = [[place * 5, 10, 4, 20] for place in range(29)]
    many = [(1, 1, box) for box in row] + [(1, 18, [0, 50, 50, 50]), (1, 90, [50, 50, 50, 50])]
    crowd = [(2, 1, [0, 0, 50, 50]), (2, 1, [0, 0, 200, 50], {"iscrowd": 1}), (2, 18, [100, 0, 50, 50])]
    alone = [(3, 1, [0, 0, 200, 50], {"iscrowd": 1})]
    crowded = [(4, 1, [place * 5, 10, 4, 20]) for place in range(31)]
    file = coco(tmp_path, [(number, f"{number}.jpg") for number in range(1, 5)], many + crowd + alone + crowded)
    samples = evaluated("coco", tmp_path, file)
    first, *_ = [sample for sample in samples if sample.task == "detect" and sample.id.startswith("1-")]
    assert first.prompt == "Detect dog, person in this image." and len(first.boxes) == 30
    assert first.annotations.classes == ["dog", "person"] and first.annotations.all_objects is False
    assert ("Detect an object: the toothbrush.", "[250, 500, 500, 1000]") in texts(samples)
    second = [(sample.prompt, sample.answer) for sample in samples if sample.id.startswith("2-")]
    assert second == [
        ("Detect dog in this image.", "dog: [500, 000, 750, 500];"),
        ("Detect an object: the dog.", "[500, 000, 750, 500]"),
    ]
    assert {sample.id[0] for sample in samples} == {"1", "2"}
    assert dropped(first) == {
        "box of a group of objects": 2,
        "image with over 30 of each class": 1,
        "image without objects": 1,
    }


BAD = [
    ((1, 1, [10, 10, 0, 5]), "box without area", "of 'person' has no area"),
    ((1, 1, [10, 10, 0.05, 5]), "box without area", "is thinner than 1/1000 of the image"),
    ((1, 1, [250, 10, 20, 5]), "box outside its image", "of 'person' is outside the image of 200 x 100"),
    ((1, 1, [10, -30, 20, 30]), "box outside its image", "of 'person' is outside the image of 200 x 100"),
    ((1, 1, [-30, 10, 30, 30]), "box outside its image", "of 'person' is outside the image of 200 x 100"),
    ((1, 1, [30, 100, 30, 30]), "box outside its image", "of 'person' is outside the image of 200 x 100"),
    ((1, 1, [10, float("nan"), 5, 5]), "box that is not four finite numbers", "annotation 100"),
    ((1, 1, ["10", "10", "5", "5"]), "box that is not four finite numbers", "annotation 100"),
    ((1, 1, [10, 10, 5]), "box that is not four finite numbers", "annotation 100"),
    ((1, 1, None), "box that is not four finite numbers", "annotation 100"),
    ((1, 5, [10, 10, 20, 20]), "box of an unknown class", "image 1: annotation 100: the class 5 has no name"),
    ((8, 1, [10, 10, 20, 20]), "box of an unknown image", "annotation 100: there is no image 8"),
    (("one", 1, [1, 1, 20, 20]), "not a valid sample", "entry 1 of 'annotations': 'one' is not a whole number"),
]


@pytest.mark.parametrize("name", ["coco", "objects365"])
@pytest.mark.parametrize(("annotation", "reason", "words"), BAD)
def test_a_bad_box_is_counted_and_named(tmp_path, capsys, name, annotation, reason, words):
    file = coco(tmp_path, [(1, "a.jpg")], [annotation, (1, 18, [0, 0, 50, 50])])
    (detection, grounding) = evaluated(name, tmp_path, file)
    assert grounding.answer == "[000, 000, 250, 500]" and dropped(detection) == {reason: 1}
    error = capsys.readouterr().err
    assert words in error and str(file) in error
    whole = reason in ("box of an unknown image", "not a valid sample")  # no box of this image is lacking
    assert detection.prompt == ("Detect all objects in this image." if whole else "Detect dog in this image.")


def test_objects365_reads_what_coco_reads(tmp_path, capsys):
    names = [(1, "a/patch3/o_1.jpg"), (2, "images/v2/patch4/o_2.jpg"), (3, "patch5/o_3.jpg"), (4, "patch6/o_4.jpg")]
    objects = [(2, 1, [0, 0, 20.5, 30]), (1, 18, [3, 4, 50, 60]), (3, 90, [1, 1, 9, 9]), (2, 18, [30, 30, 50, 50])]
    file = coco(tmp_path, names, [*objects, (4, 1, [0, 0, 9, 9])])
    whole = texts(evaluated("coco", tmp_path, file))
    renames = {"person": "Person", "dog": "Tape Measur/ Ruler", "toothbrush": "Moniter/TV"}
    tree = json.loads(file.read_text())
    for category in tree["categories"]:
        category["name"] = renames[category["name"]]
    (tmp_path / "objects.json").write_text(json.dumps(tree))
    for old, new in (
        ("a/patch3/o_1", "train/patch3/o_1"),
        ("images/v2/patch4/o_2", "patch4/o_2"),
        ("patch5/o_3", "o_3"),
    ):
        (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{old}.jpg").rename(tmp_path / f"{new}.jpg")
    (tmp_path / "patch6/o_4.jpg").unlink()
    samples = evaluated("objects365", tmp_path, tmp_path / "objects.json")
    assert texts(samples)[:2] == [
        ("Detect all objects in this image.", "tape measure/ruler: [015, 040, 265, 640];"),
        ("Detect an object: the tape measure/ruler.", "[015, 040, 265, 640]"),
    ]
    assert ("Detect an object: the monitor/TV.", "[005, 010, 050, 100]") in texts(samples)

    def boxes(pairs):
        return sorted(box for _, answer in pairs for box in re.findall(r"\[.*?\]", answer))

    assert boxes(texts(samples)) == boxes(whole[:-2])
    images = ["images/train/patch3/o_1.jpg", "images/patch4/o_2.jpg", "images/o_3.jpg"]
    assert list(dict.fromkeys(sample.images[0] for sample in samples)) == images
    assert dropped(samples[0]) == {"image cannot be read": 2}
    assert "patch6/o_4.jpg: no such file" in capsys.readouterr().err


OPEN_IMAGES = """\
ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
00a1,xclick,/m/01g317,1,0.1,0.3,0.2,0.9,0,0,0,0,0
00a1,xclick,/m/0k4j,1,0.5,1,0.55,0.75,0,0,0,0,0
00b2,xclick,/m/01g317,1,0.1,0.3,0.2,0.9,0,0,1,0,0
00b2,xclick,/m/0k4j,1,0.5,0.9,0.55,0.75,0,0,0,0,0
00c3,xclick,/m/none,1,0.5,0.9,0.55,0.75,0,0,0,0,0
00c3,xclick,/m/0k4j,1,0.5,0.4,0.55,0.75,0,0,0,0,0
00c3,xclick,/m/0k4j,1,x,0.4,0.55,0.75,0,0,0,0,0
00d4,xclick,/m/0k4j,1,0.5
00a1,xclick,/m/0k4j,1,0.5,1,0.55,0.75,0,0,0,0,0
00e5,xclick,/m/0k4j,1,0,1,0,1,0,0,0,0,1
"""


def test_open_images_writes_both_x_before_both_y(tmp_path, capsys):
    (tmp_path / "boxes.csv").write_text(OPEN_IMAGES)
    (tmp_path / "images/train_0").mkdir(parents=True)
    for name in ("00a1", "train_0/00b2", "00c3", "00d4", "00e5"):
        noise(60, 40).save(tmp_path / f"images/{name}.jpg")
    words = ("--images", str(tmp_path / "images"))
    run("openimages", tmp_path, tmp_path / "boxes.csv", *words, code=2)
    assert "class-descriptions-boxable.csv: give --classes" in capsys.readouterr().err
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01g317,Person\n/m/0k4j,Sports Car\n")
    samples = evaluated("openimages", tmp_path, tmp_path / "boxes.csv", *words)
    assert texts(samples) == [
        ("Detect all objects in this image.", "person: [100, 200, 300, 900]; sports car: [500, 550, 1000, 750];"),
        ("Detect an object: the person.", "[100, 200, 300, 900]"),
        ("Detect an object: the sports car.", "[500, 550, 1000, 750]"),
        ("Detect sports car in this image.", "sports car: [500, 550, 900, 750];"),
        ("Detect an object: the sports car.", "[500, 550, 900, 750]"),
    ]
    assert samples[3].images == ["images/train_0/00b2.jpg"] and samples[3].id == "00b2-0"
    assert dropped(samples[0]) == {
        "box of a group of objects": 1,
        "box of an object that is seen from inside": 1,
        "box of an unknown class": 1,
        "box that is not four finite numbers": 2,
        "box without area": 1,
        "image with boxes in two places of the file": 1,
        "image without objects": 3,
    }
    error = capsys.readouterr().err
    assert "line 6: the class /m/none has no name" in error and "line 8: the box" in error
    assert "boxes.csv line 10: 1 boxes of 00a1" in error
    (tmp_path / "boxes.csv").write_text("ImageID,LabelName\n")
    run("openimages", tmp_path, tmp_path / "boxes.csv", *words, code=2)
    assert "has no column XMin" in capsys.readouterr().err


def ref(number: int, split: str, annotation: int, *phrases: str, image: int = 7) -> dict:
    sentences = [{"raw": phrase, "sent": phrase, "sent_id": 1, "tokens": phrase.split()} for phrase in phrases]
    file = "COCO_train2014_000000000007_0.jpg"
    return {"ref_id": number, "ann_id": annotation, "category_id": 1, "file_name": file, "image_id": image,
            "split": split, "sentences": sentences, "sent_ids": [1]}  # fmt: skip


@pytest.fixture
def refcoco(tmp_path) -> Path:
    objects = [(7, 1, [20, 10, 40, 20]), (7, 1, [100, 50, 60, 50])]
    coco(tmp_path, [(7, "COCO_train2014_000000000007.jpg")], objects)
    (tmp_path / "COCO_train2014_000000000007.jpg").rename(tmp_path / "000000000007.jpg")  # as in train2017
    refs = [
        ref(3, "train", 101, "the left woman", "woman  in red"),
        ref(4, "testA", 100, "man"),
        ref(5, "train", 100, "right [1, 2, 3, 4]"),
        ref(6, "train", 999, "nobody"),
        ref(8, "train", 100, "nothing", image=9),
        {"split": "train"},
    ]
    (tmp_path / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    return tmp_path / "refs(unc).p"


def test_refcoco_becomes_grounding(tmp_path, refcoco, capsys):
    samples = evaluated("refcoco", tmp_path, refcoco)
    assert texts(samples) == [
        ("Detect an object: the left woman.", "[500, 500, 800, 1000]"),
        ("Detect an object: woman in red.", "[500, 500, 800, 1000]"),
    ]
    assert [sample.id for sample in samples] == ["3-0", "3-1"] and samples[0].boxes[0].label == "the left woman"
    assert samples[0].images == ["images/000000000007.jpg"]
    assert dropped(samples[0]) == {"not a valid sample": 2, "phrase without its image or box": 2}
    error = capsys.readouterr().err
    assert "refs(unc).p entry 4: instances.json lacks those of reference 6" in error
    assert "entry 6: no key 'image_id'" in error and "entry 3: bad entry in 'boxes'" in error
    assert texts(evaluated("refcoco", tmp_path, refcoco, "--split", "testA")) == [
        ("Detect an object: man.", "[100, 100, 300, 300]")
    ]
    run("refcoco", tmp_path, refcoco, "--split", "val", code=2)
    assert "has no split val: give --split testA, train" in capsys.readouterr().err


def test_refcoco_of_python_2_is_read(tmp_path, refcoco):
    """Its strings are bytes: ``S'sent'`` and ``U\\x04sent``."""
    text = (
        "(lp0\n(dp1\nS'ref_id'\np2\nI3\nsS'ann_id'\np3\nI101\nsS'image_id'\np4\nL7L\nsS'split'\np5\nS'train'\np6\n"
        "sS'sentences'\np7\n(lp8\n(dp9\nS'sent'\np10\nS'caf\\xc3\\xa9 left'\np11\nsasa."
    )
    refcoco.write_text(text)
    assert texts(evaluated("refcoco", tmp_path, refcoco)) == [("Detect an object: café left.", "[500, 500, 800, 1000]")]


class Harmful:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_that_would_run_something_is_refused(tmp_path, refcoco, capsys):
    harmful = Harmful()
    harmful.folder = str(tmp_path / "ran")
    built = b'c__builtin__\neval\n(S\'__import__("os").mkdir("' + str(tmp_path / "ran").encode() + b"\")'\ntR."
    instance = b"(S'" + str(tmp_path / "ran").encode() + b"'\nios\nmkdir\n."
    bomb = b"\x80\x02]r\xff\xff\xff\x00."  # a list in the place 2 ** 24 of a table, which could be 2 ** 32
    other = pickle.dumps(bytearray(b"bytes"), 5)
    for number, data in enumerate(
        [
            *(pickle.dumps([ref(1, "train", 1, "a"), harmful], protocol) for protocol in (0, 2, 4)),
            built,
            instance,
            bomb,
            other,
        ]
    ):
        refcoco.write_bytes(data)
        run("refcoco", tmp_path, refcoco, code=2)
        error = capsys.readouterr().err
        assert "is not a pickle of plain lists and texts" in error and "give RefCOCO's refs(unc).p" in error, number
    assert not (tmp_path / "ran").exists()
    for data in (b"", b"no pickle", pickle.dumps([ref(1, "train", 1, "a")])[:-9], pickle.dumps({}), b"\x80\xff."):
        refcoco.write_bytes(data)
        run("refcoco", tmp_path, refcoco, code=2)
        assert "give RefCOCO's refs(unc).p" in capsys.readouterr().err
    pickle.loads(pickle.dumps(harmful))
    assert (tmp_path / "ran").exists(), "the pickle of this test is harmless"


ANNOTATION = """<annotation>
<filename>36.jpg</filename><size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>11</name><name>13</name><bndbox><xmin>21</xmin><ymin>11</ymin><xmax>60</xmax><ymax>30</ymax></bndbox></object>
<object><name>11</name><bndbox><xmin>101</xmin><ymin>51</ymin><xmax>160</xmax><ymax>100</ymax></bndbox></object>
<object><name>12</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>200</xmax><ymax>50</ymax></bndbox></object>
<object><name>12</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>5</xmax><ymax>50</ymax></bndbox></object>
<object><name>14</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""
SENTENCES = """[/EN#11/people Two men] in [/EN#12/clothing a red shirt] are riding [/EN#0/notvisual a breeze] .
[/EN#13/bodyparts/people A man 's arm] at [/EN#14/scene a formal event] .
"""


def test_flickr30k_entities_is_read_as_published(tmp_path, capsys):
    for name in ("Sentences", "Annotations"):
        (tmp_path / name).mkdir()
    for number in ("36", "37"):
        (tmp_path / f"Sentences/{number}.txt").write_text(SENTENCES)
        (tmp_path / f"Annotations/{number}.xml").write_text(ANNOTATION)
        noise(200, 100).save(tmp_path / f"{number}.jpg")
    (tmp_path / "Sentences/38.txt").write_text(SENTENCES)
    (tmp_path / "Sentences/39.txt").write_bytes(b"[/EN#1/people A caf\xe9] .")
    (tmp_path / "Sentences/40.txt").write_text(SENTENCES)
    (tmp_path / "Annotations/40.xml").write_text(ANNOTATION[:200])
    (tmp_path / "val.txt").write_text("37\n")
    words = ("--images", str(tmp_path))
    samples = evaluated("flickr30k-entities", tmp_path, tmp_path, *words)
    assert texts([sample for sample in samples if sample.id.startswith("36-") and sample.task != "vqa"]) == [
        ("Describe the content of this image in a sentence.", "Two men in a red shirt are riding a breeze."),
        ("Detect an object: two men.", "[100, 100, 800, 1000]"),
        ("Detect an object: a red shirt.", "[000, 000, 1000, 500]"),
        ("Detect an object: a man's arm.", "[100, 100, 300, 300]"),
        ("Detect people, animals, vehicles in this image.", "people: [100, 100, 300, 300], [500, 500, 800, 1000];"),
    ]
    assert not [sample.prompt for sample in samples if "breeze" in sample.prompt], "it is not in the picture"
    assert samples[0].annotations.references[1] == "A man's arm at a formal event."
    assert dropped(samples[0]) == {"box without area": 2, "photograph without sentences or boxes": 3}
    error = capsys.readouterr().err
    assert "36.txt: 36.xml: the box [8.0, 0.0, 5.0, 50.0] of 'EN#12' has no area" in error
    assert "38.xml" in error and "39.txt: 'utf-8'" in error and "40.xml is not VOC's XML" in error
    assert {sample.id[:2] for sample in run("flickr30k-entities", tmp_path, tmp_path, "--split", "val", *words)} == {
        "37"
    }
    run("flickr30k-entities", tmp_path, tmp_path / "Sentences", *words, code=2)
    assert "give --annotations the folder that holds Sentences and Annotations" in capsys.readouterr().err


def test_boxes_of_images_that_their_exif_turns(tmp_path, capsys):
    exif = Image.Exif()
    file = coco(tmp_path, [(1, "a.jpg"), (2, "b.jpg")], [(1, 1, [0, 0, 100, 50]), (2, 1, [0, 0, 100, 50])])
    exif[0x0112] = 6
    noise(200, 100).save(tmp_path / "a.jpg", exif=exif)  # boxes of 200 x 100, shown as 100 x 200
    noise(100, 200).save(tmp_path / "b.jpg", exif=exif)  # shown as 200 x 100
    samples = evaluated("coco", tmp_path, file)
    assert {sample.id for sample in samples} == {"2-0", "2-1"} and samples[0].open_images()[0].size == (200, 100)
    assert "image 1: image that its EXIF turns" in capsys.readouterr().err
