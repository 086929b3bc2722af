"""The documentation's tables, and the figures behind them."""

import json

import pytest

from train import published
from train.__main__ import main


def test_the_documents_have_the_figures_of_train_results(capsys):
    assert main(["results"]) == 0, capsys.readouterr().out


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "ROOT", tmp_path)
    monkeypatch.setattr(published, "RESULTS", tmp_path / "train" / "results")
    (tmp_path / "train" / "results").mkdir(parents=True)
    (tmp_path / "train" / "results" / "tables.yaml").write_text(
        "speed:\n  head: ['', s]\n  rows:\n"
        "    - [a page, '**{times|page|fast|.1f}** s']\n    - [none, '{times|none|.1f}']\n"
    )
    made = {"command": "python -m train speed", "commit": "0123456789", "machine": "a machine", "date": "2026-11-27"}
    published.save("times", {"page": {"fast": 1.23}, "none": None}, "seconds", 7, made)
    (tmp_path / "README.md").write_text("# A\n\n<!-- results: speed -->\n| old |\n<!-- end of results -->\n\nb\n")
    return tmp_path


def test_a_table_that_differs_is_named_and_written_anew(results, capsys):
    assert main(["results"]) == 1 and "README.md: its tables differ" in capsys.readouterr().out
    assert main(["results", "--write"]) == 0 and main(["results"]) == 0
    table = "|  | s |\n| --- | --- |\n| a page | **1.2** s |\n| none |  |\n"
    assert (results / "README.md").read_text() == (
        f"# A\n\n<!-- results: speed -->\n{table}<!-- end of results -->\n\nb\n"
    )


def test_figures_without_their_making_are_refused(results, capsys):
    file = results / "train" / "results" / "times.json"
    row = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in row.items() if key != "commit"}))
    assert main(["results"]) == 2 and "times.json does not tell its commit" in capsys.readouterr().err
    file.write_text(json.dumps({**row, "values": {}}))
    assert main(["results"]) == 2 and "has no 'page'" in capsys.readouterr().err
