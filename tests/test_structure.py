"""How the code is laid out: the size of a file, who may import whom, and no text run as code."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

LONGEST = 500
"""Lines of a Python file."""
FOLDERS = ("varytoy", "train", "data_tools", "demo", "tests")
FORBIDDEN = {
    "varytoy": {"train", "data_tools", "demo", "tests"},
    "train": {"demo", "tests"},
    "data_tools": {"train", "demo", "tests"},
    "demo": {"train", "data_tools", "tests"},
}
"""Folder -> what nothing in it imports."""
ALLOWED = {
    "errors": "",
    "folder_lock": "",
    "extras": "",
    "options": "",
    "schema": "",
    "settings": "schema",
    "_torchvision": "",
    "layout": "",
    "data": "errors schema",
    "formats": "extras",
    "tasks": "data formats",
    "outputs": "data formats",
    "models": "extras _torchvision",
    "processing": "errors data layout tasks models",
    "devices": "errors extras options _torchvision",
    "registration": "_torchvision models processing",
    "checkpoints": "errors extras devices models processing registration",
    "inference": "errors extras options data formats outputs layout tasks models processing devices checkpoints",
    "reader": "checkpoints inference",
    "__init__": "_torchvision registration",
    "serving": "errors extras options data tasks layout outputs processing inference",
    "evaluation": "__init__ errors folder_lock extras options data tasks outputs processing devices layout inference",
    "bench": "options data models processing devices checkpoints inference",
    "cli": "__init__ options formats tasks outputs devices checkpoints inference serving evaluation",
}
"""Room of varytoy -> the rooms that it may import, which all stand above it."""


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """The module of a file, dotted."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at the top or inside functions; ``from a import b`` gives ``a`` and ``a.b``."""
    package = name_of(path).split(".")[: None if path.name == "__init__.py" else -1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*above, node.module] if node.module else above)
            names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return names


def imported(path: Path) -> set[str]:
    """First names of all modules that a file imports."""
    return {name.split(".")[0] for name in imports(path)}


def rooms(path: Path) -> set[str]:
    """The rooms of varytoy that a file imports, ``__init__`` for what varytoy itself defines."""
    names = {name for name in imports(path) if name.split(".")[0] == "varytoy"}
    if names != {"varytoy"}:
        names.discard("varytoy")  # ``from varytoy import layout`` is about layout
    return {room if (room := room_of(name)) in ALLOWED else "__init__" for name in names}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_run_one_way(folder):
    assert sources(folder)
    wrong = {str(path.relative_to(ROOT)): sorted(imported(path) & FORBIDDEN[folder]) for path in sources(folder)}
    assert {path: names for path, names in wrong.items() if names} == {}


def test_the_table_of_rooms_has_no_circle():
    """Each room imports only rooms that stand above it in the table."""
    above: set[str] = set()
    for room, allowed in ALLOWED.items():
        assert set(allowed.split()) <= above, room
        above.add(room)
    assert above == {room_of(name_of(path)) for path in sources("varytoy")}


def test_rooms_of_the_library_import_as_the_table_says():
    found = {
        (name_of(path), room)
        for path in sources("varytoy")
        for room in rooms(path) - {room_of(name_of(path))}
        if room not in ALLOWED[room_of(name_of(path))].split()
    }
    assert found == set(), "move the code, or write the edge into ALLOWED if it makes no circle"


def test_no_file_is_too_long():
    paths = [path for folder in FOLDERS for path in sources(folder)]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}


PLAIN_PICKLE = ROOT / "varytoy" / "data" / "plain_pickle.py"


def test_no_unpickling_and_no_evaluated_text():
    """Nothing evaluates text as code; nothing unpickles what a stranger wrote, but a file that makes plain data."""
    for path in [path for folder in FORBIDDEN for path in sources(folder)]:
        where = str(path.relative_to(ROOT))
        if path != PLAIN_PICKLE:
            assert not imported(path) & {"pickle", "marshal", "shelve"}, where
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{where}:{node.lineno}"


def test_the_one_unpickler_finds_no_class():
    tree = ast.parse(PLAIN_PICKLE.read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle"
    }
    assert used == {"Unpickler", "UnpicklingError"} and not imported(PLAIN_PICKLE) & {"marshal", "shelve"}
    (own,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    (method,) = own.body
    assert method.name == "find_class" and [type(step) for step in method.body] == [ast.Raise]
