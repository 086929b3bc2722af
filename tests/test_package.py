"""The package: what an import drags in, torchvision beside another torch, what a wheel holds, and the lock."""

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_packages

CONSTRAINTS = "varytoy/constraints.txt"
LATE = ("gradio", "deepspeed", "bitsandbytes", "open_clip", "pypdfium2")


def fresh(code: str, *paths: Path) -> dict:
    """Run Python code in a new process; its last line of output is JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in paths)}
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def test_import_is_light():
    found = fresh(
        f"""
        import json, sys
        import varytoy
        print(json.dumps([name for name in {LATE} if name in sys.modules]))
        """,
        ROOT,
    )
    assert found == []


def test_the_program_answers_before_torch_is_imported():
    """--help, a wrong option and a missing file take no seconds."""
    found = fresh(
        """
        import json, sys
        sys.argv = ["/usr/bin/varytoy", "read", "/no/such/file.png"]
        from varytoy.cli import build_parser, main
        build_parser().format_help()
        code = main(sys.argv[1:])
        print(json.dumps([code, *(name for name in ("torch", "transformers", "numpy") if name in sys.modules)]))
        """,
        ROOT,
    )
    assert found == [2]


MISMATCHED = """
import torch
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: None)
torch.library.register_fake("torchvision::qnms")(lambda dets, scores, iou_threshold: None)
"""
LOAD = """
import importlib.util, json
spec = importlib.util.spec_from_file_location("repair", {path!r})
repair = importlib.util.module_from_spec(spec)
spec.loader.exec_module(repair)
"""


def test_mismatched_torchvision_is_repaired_once(tmp_path):
    """A torchvision whose import dies with 'operator torchvision::nms does not exist', as the real one does."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(MISMATCHED)
    load = LOAD.format(path=str(ROOT / "varytoy" / "_torchvision.py"))
    assert fresh(load + "print(json.dumps([repair.ensure_torchvision(), repair.ensure_torchvision()]))", tmp_path) == [
        True,
        False,
    ]


def test_other_failures_of_torchvision_are_not_hidden(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('the disk is full')")
    load = LOAD.format(path=str(ROOT / "varytoy" / "_torchvision.py"))
    attempt = """
try:
    repair.ensure_torchvision()
except RuntimeError as error:
    print(json.dumps(str(error)))
"""
    assert fresh(load + attempt, tmp_path) == "the disk is full"


def test_torchvision_is_usable_here():
    import torchvision.transforms

    assert torchvision.transforms.InterpolationMode.BICUBIC


@pytest.fixture(scope="module")
def project() -> dict:
    return pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_wheel_holds_the_library_alone(project):
    chosen = project["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), include=chosen["include"], exclude=chosen.get("exclude", ()))
    assert "varytoy" in packages and "varytoy.tasks" in packages
    assert {name.split(".")[0] for name in packages} == {"varytoy"}
    folders = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in (ROOT / "varytoy").rglob("*.py")}
    assert folders == set(packages), "a folder with Python files lacks its __init__.py"


def test_wheel_holds_every_file_of_the_library(project):
    """Presets, weights and pages lie beside the code and travel with it."""
    patterns = project["tool"]["setuptools"]["package-data"]["varytoy"]
    held = {path for pattern in patterns for path in (ROOT / "varytoy").glob(pattern)}
    others = {
        path
        for path in (ROOT / "varytoy").rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert ROOT / "varytoy" / "models" / "presets" / "nano.json" in held
    assert sorted(str(path.relative_to(ROOT)) for path in others - held) == []


def test_programs_named_in_the_project_file_exist(project):
    for target in project["project"]["scripts"].values():
        module, function = target.split(":")
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_lock_holds_every_requirement_within_its_range(project):
    """``.ci/lock`` was run after the last change of the ranges, and both lines of the README install from its file."""
    extras = project["project"]["optional-dependencies"].values()
    wanted = [Requirement(line) for lines in (project["project"]["dependencies"], *extras) for line in lines]
    locked: dict[str, list[str]] = {}
    for line in (ROOT / CONSTRAINTS).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            entry = Requirement(line)
            locked.setdefault(canonicalize_name(entry.name), []).append(str(entry.specifier).removeprefix("=="))
    for each in wanted:
        name = canonicalize_name(each.name)
        if name != "varytoy":
            assert name in locked and all(version in each.specifier for version in locked[name]), name
    installs = [
        line for line in (ROOT / "README.md").read_text().splitlines() if "pip install" in line and "-e" in line
    ]
    assert len(installs) >= 2 and all(CONSTRAINTS in line for line in installs)
