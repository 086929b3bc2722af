"""The one sample schema: what is accepted, and that every refusal names its file and line."""

import io
import json
import os
import re
import zlib

import pytest
from conftest import noise, tiny_recipe
from PIL import Image

from data_tools.__main__ import main
from train.data.dataset import BadSamples, SampleDataset
from varytoy.data.boxes import Box
from varytoy.data.sample import Annotations, Sample, SampleError
from varytoy.data.samples import read_samples

USER = {"role": "user", "content": "<image>\nRead."}
TEXT_USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "The text."}
GOOD = {"messages": [USER, ANSWER], "images": ["a.png"]}


def write(folder, *rows):
    """A samples.jsonl of these rows (strings are written as they are) beside one picture."""
    noise(8, 8).save(folder / "a.png")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def only(folder, *rows) -> Sample:
    (sample,) = read_samples(write(folder, *rows))
    return sample


def test_full_row_comes_back(tmp_path):
    row = {
        "id": "blocks-17",
        "task": "detect",
        **GOOD,
        "target_images": ["b.png"],
        "boxes": [{"label": "cat", "box": [12, 40, 300, 400]}],
        "annotations": {"letters": "ab", "letter_positions": [1, 2.5, 3, 4], "object_names": ["cat"]},
        "metadata": {"font": "Serif"},
    }
    Image.new("RGB", (9, 9)).save(tmp_path / "b.png")
    sample = only(tmp_path, row)
    assert sample.to_json() == row
    assert sample.boxes == [Box("cat", (12, 40, 300, 400))]
    assert sample.prompt == "Read."
    assert sample.answer == "The text."
    assert sample.image_paths() == [tmp_path / "a.png"]
    assert [image.size for image in sample.open_images()] == [(8, 8)]
    assert [image.size for image in sample.open_target_images()] == [(9, 9)]
    assert sample.annotations.points == [(1, 2.5), (3, 4)]


def test_short_row_gets_an_id_that_leads_back_to_it(tmp_path):
    sample = only(tmp_path, "", GOOD)
    assert (sample.id, sample.task, sample.boxes, sample.annotations) == ("samples:2", "chat", [], Annotations())


def test_file_may_be_named_itself(tmp_path):
    write(tmp_path, GOOD)
    assert len(list(read_samples(tmp_path / "samples.jsonl"))) == 1


def test_text_only_row(tmp_path):
    sample = only(tmp_path, {"messages": [{"role": "system", "content": "Be short."}, TEXT_USER, ANSWER]})
    assert sample.images == [] and sample.open_images() == []


def test_llava_conversations(tmp_path):
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "Yes."},
    ]
    sample = only(tmp_path, {"id": 7, "image": "a.png", "conversations": turns, "model": "someone's"})
    assert [message["role"] for message in sample.messages] == ["user", "assistant"] * 2
    assert (sample.id, sample.prompt, sample.answer, sample.images) == ("7", "Sure?", "Yes.", ["a.png"])
    assert only(tmp_path, {"conversations": [{"from": "human", "value": "Hi"}, turns[1]]}).images == []


BAD = {
    "not JSON": '{"messages": [',
    "a sample is a JSON object, this is list": [1],
    "unknown key 'mesages'": {"mesages": []},
    "'messages' must be a list of turns": {"images": []},
    "'messages' must be a list of turns, and not empty": {"messages": []},
    "each message is": {"messages": [{"role": "user"}]},
    "a role is one of system, user, assistant": {"messages": [{"role": "robot", "content": "x"}, ANSWER]},
    "turns must alternate user, assistant and end with the assistant": {"messages": [TEXT_USER]},
    "turns must alternate": {"messages": [TEXT_USER, TEXT_USER, ANSWER]},
    "'images' must be a list of paths": {**GOOD, "images": "a.png"},
    "1 '<image>' in the messages but 0 in 'images'; write one placeholder": {"messages": [USER, ANSWER]},
    "0 '<image>' in the messages but 1 in 'images'": {"messages": [TEXT_USER, ANSWER], "images": ["a.png"]},
    "'target_images' must be a list of paths": {**GOOD, "target_images": "a.png"},
    "'annotations'": {**GOOD, "annotations": []},
    "'metadata' must be an object": {**GOOD, "metadata": []},
    "'facts' is now 'annotations' and 'metadata'": {**GOOD, "facts": {}},
    "bad entry in 'boxes'": {**GOOD, "boxes": [{"label": "cat"}]},
    "bad entry in 'boxes' .*is not x1 <= x2": {**GOOD, "boxes": [{"label": "cat", "box": [9, 0, 1, 1]}]},
    "'conversations' needs turns": {"conversations": [{"from": "alien", "value": "x"}]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_row_names_its_file_and_line(tmp_path, message):
    with pytest.raises(SampleError, match=rf"samples\.jsonl line 2: {message}"):
        list(read_samples(write(tmp_path, GOOD, BAD[message])))


def box(*sides, label="cat", **more) -> dict:
    return {**GOOD, "boxes": [{"label": label, "box": list(sides), **more}]}


def annotated(**annotations) -> dict:
    return {**GOOD, "annotations": annotations}


def nested(levels: int) -> str:
    return json.dumps(GOOD)[:-1] + ', "metadata": {"x": ' + "[" * levels + "]" * levels + "}}"


HALF = "smile \ud83d"
ODD = {
    "boxes 5": ({**GOOD, "boxes": 5}, "boxes"),
    "boxes null": ({**GOOD, "boxes": None}, "boxes"),
    "box entry 5": ({**GOOD, "boxes": [5]}, "boxes"),
    "infinite box": (box(0, 0, 1, float("inf")), "finite"),
    "NaN in a box": (box(0, 0, 1, float("nan")), "finite"),
    "true in a box": (box(0, 0, 1, True), "boxes"),
    "half a pixel": (box(0, 0, 1, 0.5), "whole"),
    "number of 4000 digits in a box": (box(0, 0, 1, 10**4000), "from 0 to 1000"),
    "three numbers": (box(0, 0, 1), "four numbers"),
    "label a number": (box(0, 0, 1, 1, label=5), "boxes"),
    "label that cannot be written": (box(0, 0, 1, 1, label="a; b"), "'a; b'"),
    "key in a box": (box(0, 0, 1, 1, score=0.5), "boxes"),
    "NUL in a path": ({**GOOD, "images": ["a\0.png"]}, "image path"),
    "path without end": ({**GOOD, "images": ["a" * 5000]}, "image path"),
    "folder as picture": ({**GOOD, "images": ["."]}, "not lead to a file"),
    "circle of links": ({**GOOD, "images": ["circle.png"]}, "circle.png"),
    "FIFO as picture": ({**GOOD, "images": ["fifo.png"]}, "not lead to a file"),
    "images null": ({**GOOD, "images": None}, "images"),
    "role a list": ({"messages": [{"role": ["user"], "content": "x"}, ANSWER]}, "role"),
    "content null": ({"messages": [{"role": "user", "content": None}, ANSWER]}, "content"),
    "system last": ({"messages": [TEXT_USER, ANSWER, {"role": "system", "content": "x"}]}, "end with the assistant"),
    "speaker a list": ({"conversations": [{"from": ["human"], "value": "x"}]}, "conversations"),
    "placeholder in an answer": (
        {"messages": [TEXT_USER, {"role": "assistant", "content": "<image>"}], "images": ["a.png"]},
        "assistant turn",
    ),
    "id a list": ({**GOOD, "id": [1]}, "'id'"),
    "id true": ({**GOOD, "id": True}, "'id'"),
    "task a number": ({**GOOD, "task": 7}, "'task'"),
    "unknown task": ({**GOOD, "task": "orc"}, "ocr"),
    "half an emoji in an answer": ({"messages": [TEXT_USER, {**ANSWER, "content": HALF}]}, "messages.1.content"),
    "half an emoji in a question": ({"messages": [{**TEXT_USER, "content": HALF}, ANSWER]}, "messages.0.content"),
    "half an emoji in the id": ({**GOOD, "id": HALF}, "'id'"),
    "half an emoji in a label": (box(0, 0, 1, 1, label=HALF), "boxes.0.label"),
    "half an emoji in a path": ({**GOOD, "images": ["images/\ud83d.png"]}, "images.0"),
    "half an emoji in a key": ({**GOOD, "metadata": {HALF: 1}}, "key"),
    "positions without letters": (annotated(letter_positions=[5, 10]), "letter_positions"),
    "letters without positions": (annotated(letters="ab"), "letter_positions"),
    "odd positions": (annotated(letters="a", letter_positions=[5]), "letter_positions"),
    "positions a word": (annotated(letters="a", letter_positions="56"), "annotations.letter_positions"),
    "positions of words": (annotated(letters="a", letter_positions=["5", "6"]), "annotations.letter_positions"),
    "positions true": (annotated(letters="a", letter_positions=[True, 6]), "annotations.letter_positions"),
    "positions out of this world": (annotated(letters="a", letter_positions=[5, 10**400]), "letter_positions"),
    "positions null": (annotated(letter_positions=None), "annotations.letter_positions"),
    "letters a list": (annotated(letters=["a"], letter_positions=[5, 6]), "annotations.letters"),
    "plain_text a number": (annotated(plain_text=5), "annotations.plain_text"),
    "classes a word": (annotated(classes="cat"), "annotations.classes"),
    "all_objects a word": (annotated(all_objects="yes"), "annotations.all_objects"),
    "object_names a word": (annotated(object_names="cat"), "annotations.object_names"),
    "unknown annotation": (annotated(leters="a"), "annotations.leters.* letters"),
    "NaN in metadata": ({**GOOD, "metadata": {"y": [float("nan")]}}, "metadata.y.0"),
    "target outside": ({**GOOD, "target_images": ["../a.png"]}, "a.png"),
    "5000 digits": (json.dumps({**GOOD, "metadata": {"n": 0}}).replace(": 0", ": " + "9" * 5000), "digits"),
    "nested 40 deep": (nested(40), "nested"),
    "nested 100,000 deep": (nested(100_000), "nested"),
    "key twice": ('{"id": "a", "id": "b"}', "'id' stands twice"),
}


def spoil(folder) -> None:
    """What ends a program, or holds it for ever, when it is opened as a picture."""
    (folder / "circle.png").symlink_to(folder / "circle.png")
    os.mkfifo(folder / "fifo.png")


@pytest.mark.parametrize("name", ODD)
def test_odd_row_is_refused_in_words_and_costs_only_itself(tmp_path, name):
    row, words = ODD[name]
    spoil(tmp_path)
    errors = []
    found = list(read_samples(write(tmp_path, GOOD, row, GOOD), on_error=errors.append))
    assert [sample.id for sample in found] == ["samples:1", "samples:3"]
    assert len(errors) == 1 and isinstance(errors[0], SampleError)
    said = str(errors[0])
    assert "samples.jsonl line 2: " in said and re.search(words, said) and len(said) < 600 and "\n" not in said
    said.encode()


def test_all_annotations_and_a_byte_order_mark_are_taken(tmp_path):
    annotations = {
        "letters": "ab",
        "letter_positions": [1, 2, 3.5, -4],
        "plain_text": "ab",
        "object_names": [],
        "classes": ["cat"],
        "all_objects": False,
    }
    row = {**GOOD, "task": "markdown", "annotations": annotations, "metadata": {"any": ["thing", None, 10**300]}}
    write(tmp_path, row)
    file = tmp_path / "samples.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (sample,) = read_samples(tmp_path)
    assert sample.annotations.to_json() == annotations and sample.metadata == row["metadata"]


@pytest.mark.parametrize("kind", ["folder", "FIFO", "circle", "unreadable"])
def test_a_samples_file_that_is_none_is_named(tmp_path, kind):
    file = tmp_path / "samples.jsonl"
    if kind == "folder":
        (file / "samples.jsonl").mkdir(parents=True)
    elif kind == "FIFO":
        os.mkfifo(file)
    elif kind == "circle":
        file.symlink_to(file)
    else:
        file.write_text("{}")
        file.chmod(0)
    user = os.geteuid()
    try:
        if not user:
            os.seteuid(65534)  # the superuser may read everything
        with pytest.raises(SampleError, match=r"samples\.jsonl"):
            list(read_samples(file))
        errors = []
        assert list(read_samples(file, on_error=errors.append)) == [] and len(errors) == 1
    finally:
        os.seteuid(user)


def test_check_names_every_bad_sample(tmp_path, capsys):
    write(tmp_path, GOOD, "{", {**GOOD, "images": ["none.png"]}, {**GOOD, "id": "c", "images": ["text.png"]}, GOOD)
    (tmp_path / "text.png").write_text("no picture")
    assert main(["check", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out.strip() == "2 samples are valid, 3 are not"
    assert ["line 2:" in err, "line 3, sample 'samples:3'" in err, "line 4, sample 'c'" in err] == [True] * 3
    assert len(err.splitlines()) == 3
    write(tmp_path, GOOD)
    assert main(["check", str(tmp_path)]) == 0


def test_training_data_is_what_is_left(tmp_path):
    """No bad sample ends a run: what can be seen in a file is left out at once, a broken picture when it is opened."""
    write(tmp_path, GOOD, *(row for row, _ in ODD.values()), {**GOOD, "images": ["bomb.png"]})
    spoil(tmp_path)
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    bad = BadSamples(report=lambda text: None)
    data = SampleDataset(tiny_recipe(tmp_path, tmp_path).data, 0, bad)
    assert (len(data), bad.count) == (2, len(ODD))
    assert len(data.shapes((8, 8))) == 2
    assert [data[n] is None for n in range(2)] == [False, True]
    assert bad.count == len(ODD) + 1


def test_bytes_that_are_no_text_name_the_file(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / "samples.jsonl").write_bytes(b'{"messages": "\xff\xfe"}\n')
    with pytest.raises(SampleError, match=r"samples\.jsonl"):
        list(read_samples(tmp_path))


def test_bad_rows_are_reported_and_the_others_read(tmp_path):
    errors = []
    found = list(read_samples(write(tmp_path, GOOD, "{", GOOD, {"messages": 1}), on_error=errors.append))
    assert [sample.id for sample in found] == ["samples:1", "samples:3"]
    assert [str(error).split(": ")[0].rsplit(" ", 1)[-1] for error in errors] == ["2", "4"]


def test_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no samples at .*samples.jsonl: make some with"):
        list(read_samples(tmp_path))


ESCAPES = ["absolute", "../outside.png", "inner/../../outside.png", "link.png", "linked/outside.png"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_picture_outside_the_folder_is_refused(tmp_path, escape):
    folder = tmp_path / "samples"
    folder.mkdir()
    noise(8, 8).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "linked").symlink_to(tmp_path)
    name = str(tmp_path / "outside.png") if escape == "absolute" else escape
    with pytest.raises(SampleError, match=r"samples\.jsonl line 1: the image path .* leaves the sample folder"):
        list(read_samples(write(folder, {**GOOD, "images": [name]})))


def broken_png() -> bytes:
    """A PNG with a damaged name in the middle of its pixels: Pillow raises SyntaxError for it, not OSError."""
    file = io.BytesIO()
    noise(200, 200).save(file, "PNG")
    first, second, rest = file.getvalue().split(b"IDAT", 2)
    return first + b"IDAT" + second + b"\xe9.\1\xed" + rest


@pytest.mark.parametrize(
    "content", [None, b"", b"no picture", broken_png()], ids=["missing", "empty", "text", "broken"]
)
def test_unreadable_picture_is_named(tmp_path, content):
    sample = only(tmp_path, {"id": "page-3", **GOOD})
    (tmp_path / "a.png").unlink()
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(SampleError, match=r"sample 'page-3': cannot read the image .*a\.png"):
        sample.open_images()


def test_lines_and_words_have_boxes(tmp_path):
    places = {"lines": ["one two"], "line_boxes": [1, 2, 30, 4], "words": ["one", "two"]}
    row = {**GOOD, "annotations": {**places, "word_boxes": [1, 2, 15, 4, 17, 2, 30, 4]}}
    annotations = only(tmp_path, row).annotations
    assert annotations.text_lines == [Box("one two", (1, 2, 30, 4))]
    assert annotations.text_words[1] == Box("two", (17, 2, 30, 4))
    for boxes in ([1, 2, 15, 4], [1, 2, 15, 4, 17, 2, 30, 1001]):
        row["annotations"]["word_boxes"] = boxes
        with pytest.raises(SampleError, match="word_boxes must have four numbers from 0 to 1000 for each of the 2"):
            only(tmp_path, row)


def test_llava_is_imported(tmp_path, capsys):
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    Image.new("RGB", (12, 8)).save(tmp_path / "pictures" / "a" / "cat.png")
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    entries = [{"id": 7, "image": "a/cat.png", "conversations": talk}] * 2
    entries.append({"image": "a/dog.png", "conversations": talk})
    (tmp_path / "llava.json").write_text(json.dumps(entries))
    words = [
        "llava",
        "--annotations",
        str(tmp_path / "llava.json"),
        "--out",
        str(tmp_path / "out"),
        "--images",
        str(tmp_path / "pictures"),
    ]
    assert main(words) == 0
    samples = list(read_samples(tmp_path / "out"))
    assert [sample.id for sample in samples] == ["7", "7"]
    assert samples[0].images == ["images/a/cat.png"] and samples[0].open_images()[0].size == (12, 8)
    assert "1 dropped" in capsys.readouterr().out
    assert main(words) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--limit", "1"]) == 0 and len(list(read_samples(tmp_path / "out"))) == 1
    Image.new("RGB", (5, 4)).save(tmp_path / "pictures" / "a" / "cat.png")
    entries = [{"image": "../pictures/a/../a/cat.png", "conversations": talk}]
    (tmp_path / "llava.json").write_text(json.dumps(entries))
    assert main([*words, "--overwrite"]) == 0
    (sample,) = read_samples(tmp_path / "out")
    assert sample.images == ["images/a/cat.png"] and sample.open_images()[0].size == (5, 4)  # not the old picture
    (tmp_path / "llava.json").write_text(json.dumps([{"image": "none.png", "conversations": talk}]))
    assert main([*words, "--overwrite"]) == 2 and len(list(read_samples(tmp_path / "out"))) == 1
    (tmp_path / "llava.json").write_text("{}")
    assert main([*words, "--overwrite"]) == 2 and "llava.json" in capsys.readouterr().err
    assert len(list(read_samples(tmp_path / "out"))) == 1, "the samples before are lost"
