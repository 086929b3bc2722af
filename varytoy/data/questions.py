"""Questions about images as the files of DocVQA, InfographicVQA, ChartQA and TextVQA write them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from varytoy.data.json_stream import stream_json


class Question(NamedTuple):
    """A record. ``number``: its id, None where it has none. ``files``: names, of which one is the image's."""

    number: object
    files: tuple[str, ...]
    text: str
    answers: list[str]


def docvqa(record: Mapping[str, Any]) -> Question:
    """Raises KeyError, TypeError, AttributeError for a record of another form, as the others here."""
    name = record["image"]
    files = (name, name.rpartition("/")[2])
    return Question(record["questionId"], files, record["question"], record.get("answers", []))


def infovqa(record: Mapping[str, Any]) -> Question:
    name = record["image_local_name"]
    files = (*(f"{folder}/{name}" for folder in ("images", "infographicsvqa_images", "infographicVQA_images")), name)
    return Question(record["questionId"], files, record["question"], record.get("answers", []))


def chartqa(record: Mapping[str, Any]) -> Question:
    name = record["imgname"]
    return Question(None, (f"png/{name}", name), record["query"], [str(record["label"])])


def textvqa(record: Mapping[str, Any]) -> Question:
    name = f"{record['image_id']}.jpg"
    files = (name, f"train_images/{name}", f"test_images/{name}")
    return Question(record["question_id"], files, record["question"], record.get("answers", []))


def read_data(file: Path, form: str) -> Iterator[tuple[int, Any]]:
    """The records of the list ``data`` of an object, numbered from 1.

    Args:
        form: what the file should be, for the error.

    Raises:
        ValueError: it has no such list, or stops being JSON. OSError.
    """
    found = False
    for key, number, record in stream_json(file, form):
        if key == "data" and number:
            found = True
            yield number, record
    if not found:
        raise ValueError(f"{file} has no list 'data': give {form}")


def first_file(folder: Path, *names: str) -> str:
    """The first of the names that is a file in the folder; where none is, the first."""
    return next((name for name in names if os.path.isfile(folder / name)), names[0])
