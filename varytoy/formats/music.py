"""Sheet music in **kern (https://www.humdrum.org/rep/kern/), drawn by Verovio."""

import json
import re
import subprocess
import sys

from varytoy.extras import require
from varytoy.formats import engraver
from varytoy.formats.problem import NotationError, check_length, short

_SECONDS = 60
_KERN = "**kern"
_PITCH = re.compile(r"([a-g])\1*|([A-G])\2*|r")
_LENGTH = re.compile(r"\d+(?:%\d+)?\.*|q")
_SIGNS = re.compile(r"[\d%.q#n\-a-gA-Gr\[\]_(){}&/\\LJkKTtMmWwSsOo$R'\"`~^;:,uvHhijlNPpQVxXyYzZ<>|!@+? ]*")
_CLEF, _METER = re.compile(r"\*clef(?:[GFC][v^]*[1-5]|X)"), re.compile(r"\*M[1-9]\d?/[1-9]\d?")
_MOVES = {"*^": 1, "*+": 1, "*-": -1}


def check(kern: str) -> list[str]:
    """Sentences about what is doubtful in music that can be drawn.

    Raises:
        NotationError: it is not **kern; the place is a line, from 1.
    """
    check_length(kern, "the music")
    spines: list[str] = []
    begun = False
    for number, line in enumerate(kern.splitlines(), 1):
        if not line.strip() or line.startswith("!!"):
            continue
        fields = line.rstrip("\r").split("\t")
        if not begun:
            if _KERN not in fields or not all(field.startswith("**") for field in fields):
                raise NotationError(f"line {number} of the music must be '{_KERN}', and is '{_short(line)}'")
            spines, begun = fields, True
            continue
        if not spines:
            raise NotationError(f"line {number} of the music follows the end of all staves (*-): '{_short(line)}'")
        if len(fields) != len(spines):
            counts = f"{len(fields)} columns, and {len(spines)} are open"
            raise NotationError(f"line {number} of the music has {counts}: '{_short(line)}'")
        if all(field.startswith("*") for field in fields):
            spines = _moved(spines, fields, number)
            continue
        for spine, field in zip(spines, fields, strict=True):
            if spine == _KERN and field != "." and field[:1] not in ("!", "="):
                for note in field.split(" "):
                    _check_note(note, number)
    if not begun:
        raise NotationError(f"the music has no line '{_KERN}'")
    return ["the music does not end with *-, so something may be missing"] if spines else []


def svg(kern: str) -> str:
    """A picture of all the staves. Raises as ``check``, and NotationError where Verovio cannot draw them."""
    require("render", "verovio", by="sheet music")
    check(kern)
    try:
        program = [sys.executable, engraver.__file__]
        done = subprocess.run(program, input=kern.encode(), capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotationError(f"the music is not drawn within {_SECONDS} s; it may be broken") from error
    pages = json.loads(done.stdout) if done.returncode == 0 and done.stdout else []
    if not pages:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        place = next((line.rstrip(": ") for line in said if " line " in line), "it does not say why")
        raise NotationError(f"Verovio cannot draw the music ({place})")
    if len(pages) > 1:
        raise NotationError(f"the music fills {len(pages)} pages; draw it in parts")
    return pages[0]


def _moved(spines: list[str], fields: list[str], number: int) -> list[str]:
    """The staves after a line of interpretations, which can part, join, begin and end them."""
    after: list[str] = []
    joined = 0
    for spine, field in zip(spines, fields, strict=True):
        if field == "*v":
            joined += 1
            if joined == 1:
                after.append(spine)
            continue
        if joined == 1:
            raise NotationError(f"line {number} of the music joins one column (*v) with no other")
        joined = 0
        known = _CLEF if field.startswith("*clef") else _METER if re.match(r"\*M\d", field) else None
        if spine == _KERN and known and not known.fullmatch(field):
            raise NotationError(
                f"line {number} of the music: '{_short(field)}' is no {'clef' if known is _CLEF else 'meter'}"
            )
        if field.startswith("**"):
            after.append(field)
        elif field in _MOVES:
            after += [spine] * (1 + _MOVES[field])
        else:
            after.append(spine)
    if joined == 1:
        raise NotationError(f"line {number} of the music joins one column (*v) with no other")
    return after


def _check_note(note: str, number: int) -> None:
    if not _PITCH.search(note) or not _SIGNS.fullmatch(note):
        raise NotationError(f"line {number} of the music: '{_short(note)}' is no note or rest")
    if not _LENGTH.search(note):
        raise NotationError(f"line {number} of the music: '{_short(note)}' has no length")


def _short(text: str) -> str:
    return short(text, 40)
