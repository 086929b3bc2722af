"""``python -m train evaluate``: the table of a model, with the embedded one on pictures that are rendered here."""

import json

from conftest import TEXT, picture_source

from train.__main__ import main


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
    monkeypatch.setattr("data_tools.sources.HELD_OUT_FONTS", ("DejaVu Sans",))
    assert main(["evaluate", "--source", str(folder), "--count", "2"]) == 0
    printed = capsys.readouterr().out
    for name in ("blank pages left empty", "detection F1", "grounding accuracy", "right, CLIP off", "captions"):
        assert name in printed
