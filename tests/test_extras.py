"""Programs say which packages they lack before they begin, and need none that they do not use."""

import subprocess
import sys

import pytest
from conftest import ROOT, TINY, start_of

import data_tools.__main__
import train.__main__

LINE = "pip install -c varytoy/constraints.txt -e '.[train]'"


@pytest.mark.parametrize(
    ("program", "arguments", "module"),
    [
        (data_tools, ["fetch", "--out", "out"], "resvg_py"),
        (train, ["evaluate", "--source", "nowhere"], "apted"),
        (train, ["curve", "nowhere"], "matplotlib"),
        (train, ["merge", "nowhere", "out"], "peft"),
        (train, ["run", "nowhere.yaml"], "tensorboard"),
        (train, ["run", "train/recipes/vary_toy/sft.yaml", "--overlay", "full-8bit"], "bitsandbytes"),
        (train, ["memory", "train/recipes/vary_toy/sft.yaml", "--overlay", "lora"], "peft"),
        (train, ["run", "train/recipes/vary_toy/sft.yaml", "--smoke-test", "nowhere"], "deepspeed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_package_is_named_with_its_pip_line(program, arguments, module, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, module, None)
    assert program.__main__.main(arguments) == 2
    error = capsys.readouterr().err
    assert module in error and LINE in error and error.count("\n") == 1


def test_a_plain_run_needs_no_package_that_it_does_not_use(ten, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"output: {tmp_path / 'run'}\nmodel: {{preset: {TINY}}}\ndata: [{{path: {ten}}}]\n")
    blocked = ("bitsandbytes", "datasets", "deepspeed", "matplotlib", "peft", "pycocotools")
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked}))"
    code = f"{block}; import train.__main__ as program; sys.exit(program.main())"
    command = {**start_of(path), "args": [sys.executable, "-c", code, "run", str(path), "train.max_steps=1"]}
    done = subprocess.run(**command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
