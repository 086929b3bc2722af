"""The experiment on question data: every arm trains and answers, once."""

import json

import pytest

from train import rendering
from train.experiments import questions
from train.experiments.questions import scores


def test_answers_are_scored_by_kind_of_page():
    """ANLS for documents, relaxed accuracy for charts; and what is right by the rules of ``data_tools square``."""
    rows = [
        {"of": "receipts", "kind": "field", "answers": ["$12.50", "12.50"]},
        {"of": "forms", "kind": "field", "answers": ["Emma Meyer"]},
        {"of": "charts", "kind": "cell", "answers": ["100"]},
    ]
    found = scores(rows, ["$12.50", "Emma Mayer", "104"])
    assert found["documents, ANLS"] == pytest.approx(0.95) and found["charts, relaxed accuracy"] == 1
    assert found["right"] == pytest.approx(2 / 3) and found["right, charts"] == 0 and found["right, field"] == 1


@pytest.mark.slow
def test_the_experiment(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(questions, "RENDERED", {"receipts": ("forms", "--kind-of-form", "receipt")})
    monkeypatch.setattr(questions, "FEWER", ())
    monkeypatch.setattr(questions, "ARMS", ("kept", "reasons"))
    render = rendering.data_tools  # there are no fonts for tests alone
    monkeypatch.setattr(rendering, "data_tools", lambda words: render([{"test": "train"}.get(w, w) for w in words]))
    words = ["--folder", str(tmp_path), "--source", str(source), "--pages", "8", "--test-pages", "1", "--seeds", "1"]
    assert questions.main([*words, "--copy-steps", "1", "--steps", "1"]) == 0
    said = capsys.readouterr().out
    arms = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ")][1:]
    assert arms == ["none", "kept", "reasons"]
    files = {name: (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in ("kept", "reasons", "test")}
    assert len(files["reasons"]) > len(files["kept"]) > 0
    asked = [json.loads(line) for line in files["test"]]
    assert all(row["read"] and "\n" in row["printed"] for row in asked)
    monkeypatch.setattr(questions, "call", None)
    assert questions.main([*words, "--copy-steps", "1", "--steps", "1"]) == 0  # nothing is done again
