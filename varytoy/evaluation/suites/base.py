"""What the suites share: finding files, reading records, naming what is wrong with them."""

import argparse
import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from varytoy.data.boxes import Box
from varytoy.data.pictures import turned
from varytoy.data.questions import Question, first_file, read_data
from varytoy.data.sample import SampleError, image_size
from varytoy.data.shards import has_member, shard_of
from varytoy.evaluation.case import Case
from varytoy.evaluation.suite import Suite, SuiteError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")


class Record(NamedTuple):
    """A record of a file: its place, for errors (``FILE entry 3``), the part of the suite that it is in, a name that no
    other record of the suite has, and what it holds."""

    where: str
    part: str
    name: str
    content: Any


class QuestionSuite(Suite):
    """Base of the suites of questions about images: a subclass finds the records and reads one.

    Attributes:
        images: folder of the images in the official layout.
    """

    images: str = ""

    def options(self, parser):
        images_option(parser, self.images)

    def records(self, folder: Path, options: argparse.Namespace) -> Iterator[Record]:
        """Raises SuiteError, OSError."""
        raise NotImplementedError

    @staticmethod
    def question(record: Mapping[str, Any]) -> Question:
        """Raises what ``checked`` takes."""
        raise NotImplementedError

    def case(self, record: Record, question: Question, file: Path) -> Case:
        name = record.name if question.number is None else str(question.number)
        answers = tuple(question.answers)
        return Case(name, "vqa", file, prompt=question.text, references=answers, group=record.part)

    def cases(self, folder, options):
        cases = []
        for record in self.records(folder, options):
            with checked(record.where, self.layout):
                question = clean(self.question(record.content))
                file = folder_of(options, folder) / first_file(folder_of(options, folder), *question.files)
                cases.append(self.case(record, question, file))
        return with_pictures(cases, f"--images the folder that holds {self.images}")


class DataSuite(QuestionSuite):
    """Base of those whose records are the list ``data`` of one file.

    Attributes:
        files: its names, of which the first that is there is read.
    """

    files: tuple[str, ...] = ()

    def records(self, folder, options):
        file = find(folder, self.files, self.layout)
        try:
            for number, record in read_data(file, self.layout):
                yield Record(f"{file} entry {number}", "", str(number), record)
        except ValueError as error:
            raise SuiteError(str(error)) from error


def images_option(parser: argparse.ArgumentParser, images: str) -> None:
    help = f"folder that holds {images} (default: FOLDER)"
    parser.add_argument("--images", type=Path, metavar="DIR", help=help)


def folder_of(options: argparse.Namespace, folder: Path) -> Path:
    """The folder of the images."""
    return options.images or folder


def clean(question: Question) -> Question:
    """With single spaces, without empty answers. Raises ValueError, TypeError where it cannot be asked or scored."""
    if not isinstance(question.answers, (list, tuple)):
        raise TypeError(f"the answers {str(question.answers)[:80]!r} are not a list")
    answers = [" ".join(str(answer).split()) for answer in question.answers]
    answers = [answer for answer in answers if answer]
    text = " ".join(question.text.split())
    if not text:
        raise ValueError("a question without words")
    if not answers:
        raise ValueError("a question without an answer; those of test splits are not published")
    return question._replace(text=text, answers=answers)


@contextlib.contextmanager
def checked(where: str, form: str) -> Iterator[None]:
    """Turns what reading a record of another form raises into a SuiteError with its place."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else error
        raise SuiteError(f"{where}: {reason}; give {form}") from error


def find(folder: Path, names: Sequence[str], layout: str, inside: Sequence[str] = ("",)) -> Path:
    """The first of the files that is in the folder, or in one of the folders ``inside`` it. Raises SuiteError."""
    if not folder.is_dir():
        raise SuiteError(f"there is no folder {folder}: give one with {layout}")
    for each in inside:
        for name in names:
            if (folder / each / name).is_file():
                return folder / each / name
    raise SuiteError(f"no {' or '.join(names)} in {folder}: give a folder with {layout}")


def read_list(file: Path, layout: str) -> Iterator[tuple[str, Any]]:
    """(place, record) of each of a JSON list. Raises SuiteError."""
    tree = read_json(file, layout)
    if not isinstance(tree, list):
        raise SuiteError(f"{file} is not a list: give {layout}")
    for number, record in enumerate(tree, 1):
        yield f"{file} entry {number}", record


def read_json(file: Path, layout: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{file} is not JSON ({error}): give {layout}") from error


def read_lines(file: Path, layout: str) -> Iterator[tuple[str, Any]]:
    """(place, record) of each of the JSON lines. Raises SuiteError."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{file} line {number}"
                try:
                    yield where, json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    raise SuiteError(f"{where} is not JSON ({error}): give {layout}") from error


def read_text(file: Path, or_else: str = "") -> str:
    """Raises SuiteError for what is not UTF-8; ``or_else``: an encoding that is tried then."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if or_else:
            return data.decode(or_else)
        raise SuiteError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def with_pictures(cases: Sequence[Case], cure: str) -> Sequence[Case]:
    """The cases, all of whose files are there. Raises SuiteError that counts those that are not and names the first."""
    files = dict.fromkeys(case.file for case in cases)
    missing = [file for file in files if not _is_there(file)]
    if missing:
        raise SuiteError(f"{len(missing)} of {len(files)} pictures are missing, first {missing[0]}: give {cure}")
    return cases


def _is_there(file: Path) -> bool:
    shard = shard_of(file)
    return os.path.isfile(file) or bool(shard and has_member(*shard))


def with_answers(folder: Path, suffixes: Sequence[str], answer: str, layout: str) -> list[tuple[Path, Path]]:
    """The pictures or documents of a folder with the files of the same name that end in ``answer``, by name.

    Raises:
        SuiteError: there are none, one lacks its partner, or two have one.
    """
    if not folder.is_dir():
        raise SuiteError(f"there is no folder {folder}: give one with {layout}")
    files = sorted(folder.iterdir())
    pictures = {file.stem: file for file in files if file.suffix.lower() in suffixes}
    answers = {file.stem: file for file in files if file.suffix == answer}
    if len(pictures) < sum(file.suffix.lower() in suffixes for file in files):
        twice = next(file for file in files if file.suffix.lower() in suffixes and file not in pictures.values())
        raise SuiteError(f"{twice} and {pictures[twice.stem].name} have one name: rename one, with its answer")
    for stem, file in {**pictures, **answers}.items():
        if (stem in pictures) != (stem in answers):
            raise SuiteError(f"{file} has no partner: give {layout}")
    if not pictures:
        raise SuiteError(f"no pairs of files in {folder}: give {layout}")
    return [(pictures[stem], answers[stem]) for stem in pictures]


def size_of(file: Path) -> tuple[int, int]:
    """Width and height as the file stores the picture. Raises SuiteError, also for one that EXIF turns: it would be
    shown beside its boxes."""
    try:
        size = image_size(file)
    except SampleError as error:
        raise SuiteError(str(error)) from error
    if turned(file, size):
        raise SuiteError(f"{file}: EXIF turns it, but its boxes are of the picture as stored: save it without EXIF")
    return size


def in_rows(boxes: Iterable[Box]) -> list[list[Box]]:
    """Boxes in rows from top to bottom, each from left to right: a box is in the last row if its middle is above the
    lower side of the row's first box."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: (box.xyxy[1] + box.xyxy[3], box.xyxy[0])):
        middle = (box.xyxy[1] + box.xyxy[3]) / 2
        if rows and middle < rows[-1][0].xyxy[3]:
            rows[-1].append(box)
        else:
            rows.append([box])
    return [sorted(row, key=lambda box: box.xyxy[0]) for row in rows]


def parts_option(parser: argparse.ArgumentParser, name: str, choices: Sequence[str], help: str) -> None:
    """An option that takes some of ``choices``."""
    parser.add_argument(name, nargs="+", choices=list(choices), help=help)
