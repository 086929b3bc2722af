"""What importers do with damaged files, images of every kind, and runs that stop in the middle."""

import io
import json
import os
from pathlib import Path

import pytest
from conftest import noise
from PIL import Image
from test_import_objects import coco, dropped, evaluated, run

from data_tools.__main__ import main
from varytoy.data import json_stream
from varytoy.data.json_stream import stream_json
from varytoy.data.samples import read_samples


def bytes_of(image: Image.Image, form: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


JPEG = bytes_of(noise(60, 40), "JPEG")
READ = {
    "cmyk.jpg": (bytes_of(noise(60, 40).convert("CMYK"), "JPEG"), (60, 40)),
    "grey16.png": (bytes_of(Image.new("I;16", (60, 40), 40_000), "PNG"), (60, 40)),
    "animated.gif": (bytes_of(noise(60, 40), "GIF", save_all=True, append_images=[noise(60, 40, 1)]), (60, 40)),
    "one.png": (bytes_of(noise(1, 1), "PNG"), (1, 1)),
    "long.png": (bytes_of(Image.new("1", (30_000, 2)), "PNG"), (30_000, 2)),
    "a b é.jpg": (JPEG, (60, 40)),
}
REFUSED = {
    "empty.jpg": b"",
    "cut.jpg": JPEG[: len(JPEG) // 2],
    "huge.png": bytes_of(Image.new("1", (30_000, 3_000)), "PNG"),
    "text.jpg": b"<html>not found</html>",
    "folder.jpg": None,
}
OUTSIDE = ("../outside.jpg", "/etc/passwd", "link.jpg")


def test_images_of_every_kind_are_taken_or_named(tmp_path, capsys):
    folder = tmp_path / "in"
    (folder / "folder.jpg").mkdir(parents=True)
    (tmp_path / "outside.jpg").write_bytes(JPEG)
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    for name, data in {**{name: data for name, (data, _) in READ.items()}, **REFUSED}.items():
        if data is not None:
            (folder / name).write_bytes(data)
    names = [*READ, *REFUSED, *OUTSIDE, 7, ""]
    talk = [{"from": "human", "value": "<image>\nHi"}, {"from": "gpt", "value": "Ho"}]
    rows = [{"id": str(name), "image": name, "conversations": talk} for name in names]
    (folder / "llava.json").write_text(json.dumps(rows))
    samples = run("llava", tmp_path, folder / "llava.json")
    assert {sample.id: sample.open_images()[0].size for sample in samples} == {
        name: size for name, (_, size) in READ.items()
    }
    for sample in samples:
        assert sample.image_paths()[0].read_bytes() == READ[sample.id][0], "copied as it is"
    assert dropped(samples[0]) == {"image cannot be read": 4, "not a valid sample": 6}
    error = capsys.readouterr().err
    for number in range(len(READ) + 1, len(names) + 1):
        assert f"llava.json entry {number}" in error, names[number - 1]
    assert error.count("leaves the sample folder") == 3 and "has over 80 megapixels (30000 x 3000)" in error


DAMAGED = {
    "a missing brace": b'[{"id": "1", "conversations": [{"from": "human", "value": "Hi"}]}, {"id": "2"',
    "a missing comma": b'[{"id": "1"} {"id": "2"}]',
    "a missing bracket": b'[{"id": "1"}, {"id": "2"}',
    "more behind it": b'[{"id": "1"}] {"id": "2"}',
    "not UTF-8": b'[{"id": "caf\xe9"}]',
    "no JSON": b"<html>",
    "nothing": b"",
    "deep": b"[" * 100_000,
    "long number": b"[" + b"9" * 10_000 + b"]",
    "an object": b'{"id": "1"}',
}


@pytest.mark.parametrize(
    "name", ["llava", "blip558k", "sharegpt", "alpaca", "chartqa", "docvqa", "coco", "coco-captions"]
)
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_json_file_is_one_sentence(tmp_path, capsys, name, damage):
    (tmp_path / "file.json").write_bytes(DAMAGED[damage])
    words = [name, "--annotations", str(tmp_path / "file.json"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err and "file.json" in printed.err
    begins = damage in ("a missing brace", "a missing comma", "a missing bracket", "more behind it")
    lines = name in ("sharegpt", "alpaca") and damage in ("no JSON", "an object")
    assert begins or lines or not (tmp_path / "out").exists()


def test_a_file_that_ends_early_goes_on_when_it_is_whole(tmp_path, capsys):
    """The samples before the damage are kept, the run says where it is, and does not pass for a whole one."""
    records = [{"instruction": f"Say {number}.", "input": "", "output": f"{number}."} for number in range(40)]
    whole = json.dumps(records)
    for name, text in (("cut", whole[: len(whole) // 2]), ("whole", whole)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "alpaca.json").write_text(text)
    words = ["--shards", "7", "--workers", "2"]
    cut = ["alpaca", "--annotations", str(tmp_path / "cut/alpaca.json"), "--out", str(tmp_path / "cut/out"), *words]
    assert main(cut) == 2
    error = capsys.readouterr().err
    assert "cut/alpaca.json is not JSON behind entry" in error and not (tmp_path / "cut/out/manifest.json").exists()
    assert 0 < len(list(read_samples(tmp_path / "cut/out"))) < 40
    (tmp_path / "cut/alpaca.json").write_text(whole)
    assert main(cut) == 2 and "--resume" in capsys.readouterr().err
    assert main([*cut, "--resume"]) == 0
    again = ["alpaca", "--annotations", str(tmp_path / "whole/alpaca.json"), "--out", str(tmp_path / "whole/out")]
    assert main([*again, "--shards", "7", "--workers", "1"]) == 0
    for file in sorted((tmp_path / "whole/out").glob("*.tar")):
        assert file.read_bytes() == (tmp_path / "cut/out" / file.name).read_bytes()


def test_a_limit_needs_no_more_of_the_file_than_it_takes(tmp_path):
    row = "00a{number},xclick,/m/1,1,0.1,0.3,0.2,0.9"
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax"
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join([header, *(row.format(number=number) for number in range(1000))]) + "\n,,,\0broken\x00")
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/1,Cat\n")
    for number in range(3):
        noise(20, 20).save(tmp_path / f"00a{number}.jpg")
    samples = evaluated("openimages", tmp_path, file, "--limit", "3")
    assert [sample.id for sample in samples] == ["00a0-0", "00a0-1", "00a1-0"] and dropped(samples[0]) == {}


def test_the_number_of_workers_does_not_change_a_byte(tmp_path):
    objects = [(place % 5, 1 + 17 * (place % 2), [place * 3, 10, 8, 9]) for place in range(45)]
    objects += [(2, 1, [0, 0, 0, 0]), (9, 1, [0, 0, 9, 9]), (3, 4, [0, 0, 9, 9]), (4, 18, [0, 0, 9, 9], {"iscrowd": 1})]
    file = coco(tmp_path, [(number, f"{number}.jpg") for number in range(5)], objects)
    words = ["coco", "--annotations", str(file), "--seed", "4", "--shards", "3"]
    for workers in (1, 2):
        assert main([*words, "--workers", str(workers), "--out", str(tmp_path / f"w{workers}")]) == 0
    names = sorted(path.name for path in (tmp_path / "w1").iterdir())
    assert len(names) > 2 and sum(json.loads((tmp_path / "w1/manifest.json").read_text())["dropped"].values()) == 4
    for name in names:
        assert (tmp_path / "w1" / name).read_bytes() == (tmp_path / "w2" / name).read_bytes()


def test_records_are_read_across_windows(tmp_path, monkeypatch):
    """A window may end anywhere: in a number, in a character of three bytes, between records."""
    tree = {"info": {"a": [1]}, "images": [{"id": 10, "é": "…"}, [], 123456, -1.5e3, 'a\\"]'], "none": [], "year": 2017}
    text = json.dumps(tree, ensure_ascii=False, indent=1).encode()
    expected = [
        ("info", 0, {"a": [1]}),
        *(("images", n, each) for n, each in enumerate(tree["images"], 1)),
        ("year", 0, 2017),
    ]
    for window in (1, 2, 3, 7, 1000):
        monkeypatch.setattr(json_stream, "_WINDOW", window)
        (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" * (window % 2) + text)
        assert list(stream_json(tmp_path / "a.json", "")) == expected
        (tmp_path / "b.json").write_bytes(b" [] ")
        assert list(stream_json(tmp_path / "b.json", "")) == []
        for place in range(len(text)):
            (tmp_path / "c.json").write_bytes(text[:place])
            with pytest.raises(ValueError, match="c.json is not JSON behind"):
                list(stream_json(tmp_path / "c.json", ""))


def test_a_folder_of_images_that_is_not_there_is_named_at_once(tmp_path, capsys):
    file = coco(tmp_path, [(1, "a.jpg")], [(1, 1, [0, 0, 9, 9])])
    run("coco", tmp_path, file, "--images", str(tmp_path / "nowhere"), code=2)
    assert "there is no folder" in capsys.readouterr().err and not list(tmp_path.glob("out-*"))
    assert not Path(os.devnull).is_dir()


def test_bad_captions_and_photographs_are_counted(tmp_path, capsys):
    noise(20, 20).save(tmp_path / "1.jpg")
    tree = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "caption": "A cat"}, {"image_id": 1}, 5],
    }
    (tmp_path / "captions.json").write_text(json.dumps(tree))
    (sample,) = run("coco-captions", tmp_path, tmp_path / "captions.json")
    assert sample.answer == "A cat." and dropped(sample) == {"not a caption": 2}
    assert "captions.json annotation 2" in capsys.readouterr().err
    good = {
        "id": "1",
        "captions": [{"text": "A man ."}],
        "entities": [{"type": "people", "phrases": ["a man"], "boxes": [[1, 1, 90, 90]]}],
    }
    bad = [
        {**good, "captions": [3]},
        {**good, "entities": [{"type": "people", "phrases": [], "boxes": [[9, 9, 1, 1]]}]},
        {"id": 3},
    ]
    lines = [json.dumps(row) for row in (good, *bad)] + ["{", "\ud800"]
    (tmp_path / "photos.jsonl").write_bytes("\n".join(lines[:-1]).encode() + b"\n\xff\n")
    samples = run("entities", tmp_path, tmp_path / "photos.jsonl", "--suffix", ".jpg")
    assert dropped(samples[0]) == {"not JSON": 1, "not UTF-8": 1, "not a valid sample": 3} and len(samples) >= 3
    assert "photos.jsonl line 6: not UTF-8" in capsys.readouterr().err
