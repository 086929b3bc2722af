"""``python -m train evaluate`` and ``study``: tables of models, with the embedded one on pictures rendered here."""

import json

import pytest
from conftest import ROOT, TEXT, picture_source

from train.__main__ import main
from train.experiments import study


def test_samples_of_ones_own_each_task_by_its_metric(ten, capsys, tmp_path):
    assert main(["evaluate", "--samples", str(ten), "--write", str(tmp_path / "table.json")]) == 0
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["ocr, 10 samples: character error rate"] < 0.2
    assert "character error rate" in capsys.readouterr().out


def test_the_whole_table(source, monkeypatch, capsys, tmp_path):
    folder = picture_source(tmp_path)
    (folder / "fonts").symlink_to(source / "fonts")
    (folder / "texts").mkdir()
    (folder / "texts" / "postgresql-doc-15.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr("data_tools.assets.sources.HELD_OUT_FONTS", ("DejaVu Sans",))
    assert main(["evaluate", "--source", str(folder), "--count", "2"]) == 0
    printed = capsys.readouterr().out
    for name in ("blank pages left empty", "detection F1", "grounding accuracy", "right, vision off", "captions"):
        assert name in printed


@pytest.mark.slow
def test_a_study_runs_what_is_missing(ten, monkeypatch, capsys, tmp_path):
    recipe = tmp_path / "base.yaml"
    recipe.write_text(
        f"stage: sft\noutput: unused\nmodel: {{init: [{ROOT / 'varytoy' / 'nano'}]}}\ndata: [{{path: {ten}}}]\n"
        "freeze: [vision_vocabulary, clip]\ntrain: {max_steps: 2, batch_size: 2, log_steps: 1}\n"
    )
    ways = [
        study.Way("base", "first", test=str(ten), recipe=str(recipe)),
        study.Way("on", "second", ("train.learning_rate=1e-5",), str(ten), str(recipe), start="base"),
    ]
    monkeypatch.setattr(study, "WAYS", ways)
    asked = ["study", "--folder", str(tmp_path / "runs"), "--seeds", "1", "--out", str(tmp_path / "curves.png")]
    assert main(asked) == 0
    table = capsys.readouterr().out
    assert "| base | " in table and "| on | " in table
    assert "base-1" in (tmp_path / "runs" / "on-1" / "recipe.yaml").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 5000
    made = (tmp_path / "runs" / "on-1" / "score.json").stat().st_mtime
    assert main(asked) == 0
    assert (tmp_path / "runs" / "on-1" / "score.json").stat().st_mtime == made
    assert capsys.readouterr().out.endswith(table[-200:])
