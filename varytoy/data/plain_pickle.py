"""Pickles of plain data: lists, dicts, tuples, sets, strings and numbers. Anything else is refused before it is made,
so nothing in the file can run."""

import pickle
import pickletools
from pathlib import Path
from typing import BinaryIO

_PLAIN = frozenset(
    "PROTO FRAME STOP MARK POP POP_MARK DUP MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET NONE NEWTRUE "
    "NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND "
    "APPENDS EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_SET "
    "ADDITEMS FROZENSET".split()
)
"""Instructions of a pickle that make plain data. The others name a class or call it."""
_INSTRUCTIONS = {each.code.encode("latin-1"): each for each in pickletools.opcodes}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_plain_pickle(file: Path, form: str) -> object:
    """The content of a pickle; texts of Python 2 are taken as UTF-8.

    Args:
        form: what the file should hold, for the error.

    Raises:
        ValueError: it is no pickle, or holds more than plain data. OSError: it cannot be read.
    """
    with file.open("rb") as data:
        try:
            _check(data)
            data.seek(0)
            return _PlainUnpickler(data, encoding="utf-8", errors="replace").load()
        except OSError:
            raise
        except Exception as error:  # unpicklers raise nearly anything on malformed data
            raise ValueError(f"{file} is not a pickle of plain lists and texts ({error}): give {form}") from None


def _check(data: BinaryIO) -> None:
    """Raises ValueError for an instruction that makes more than plain data, and what pickletools raises for one that is
    cut."""
    while code := data.read(1):
        place = data.tell() - 1
        instruction = _INSTRUCTIONS.get(code)
        if instruction is None or instruction.name not in _PLAIN:
            name = instruction.name if instruction else repr(code)
            raise ValueError(f"instruction {name} at byte {place} makes more than plain data")
        if instruction.name == "STOP":
            return
        if instruction.name == "STRING":  # pickletools takes ASCII alone
            data.readline()
        elif instruction.arg:
            argument = instruction.arg.reader(data)
            if instruction.name.endswith("PUT") and argument > place:  # memory is taken for so many
                raise ValueError(f"number {argument} at byte {place} is beyond the file")
