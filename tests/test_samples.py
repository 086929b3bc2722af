"""The one sample schema: what is accepted, and that every refusal names its file and line."""

import io
import json

import pytest
from conftest import noise

from varytoy.boxes import Box
from varytoy.samples import Sample, SampleError, read_samples

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
        "boxes": [{"label": "cat", "box": [12, 40, 300, 400]}],
        "facts": {"objects": ["cat"]},
    }
    sample = only(tmp_path, row)
    assert sample.to_json() == row
    assert sample.boxes == [Box("cat", (12, 40, 300, 400))]
    assert sample.prompt == "Read."
    assert sample.answer == "The text."
    assert sample.image_paths() == [tmp_path / "a.png"]
    assert [image.size for image in sample.open_images()] == [(8, 8)]


def test_short_row_gets_an_id_that_leads_back_to_it(tmp_path):
    sample = only(tmp_path, "", GOOD)
    assert (sample.id, sample.task, sample.boxes, sample.facts) == ("samples:2", "chat", [], {})


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
    "'facts' must be an object": {**GOOD, "facts": []},
    "bad entry in 'boxes'": {**GOOD, "boxes": [{"label": "cat"}]},
    "bad entry in 'boxes' .*is not x1 <= x2": {**GOOD, "boxes": [{"label": "cat", "box": [9, 0, 1, 1]}]},
    "'conversations' needs turns": {"conversations": [{"from": "alien", "value": "x"}]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_row_names_its_file_and_line(tmp_path, message):
    with pytest.raises(SampleError, match=rf"samples\.jsonl line 2: {message}"):
        list(read_samples(write(tmp_path, GOOD, BAD[message])))


@pytest.mark.parametrize(
    "row",
    [
        {**GOOD, "boxes": 5},
        {**GOOD, "boxes": None},
        {**GOOD, "boxes": [{"label": "cat", "box": [0, 0, 1, float("inf")]}]},
        {**GOOD, "boxes": [{"label": "cat", "box": [0, 0, 1]}]},
        {**GOOD, "images": ["a\0.png"]},
        {**GOOD, "images": None},
        {"messages": [{"role": ["user"], "content": "x"}, ANSWER]},
        {"messages": [{"role": "user", "content": None}, ANSWER]},
        {"conversations": [{"from": ["human"], "value": "x"}]},
        {"messages": [TEXT_USER, {"role": "assistant", "content": "<image>"}], "images": ["a.png"]},
    ],
    ids=[
        "boxes 5",
        "boxes null",
        "infinite box",
        "three numbers",
        "NUL in a path",
        "images null",
        "role a list",
        "content null",
        "speaker a list",
        "placeholder in an answer",
    ],
)
def test_odd_row_is_refused_in_words(tmp_path, row):
    with pytest.raises(SampleError, match=r"samples\.jsonl line 1: "):
        list(read_samples(write(tmp_path, row)))


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
