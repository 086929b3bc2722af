"""The benchmark of reading: a table, and the same texts from all engines."""

import pytest

from varytoy import bench


def test_all_engines_read_the_same(capsys):
    assert bench.main(["--paragraphs", "3", "--batch-size", "2", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    head, _, *rows = (dict(zip(table[0], row, strict=True)) for row in table)
    assert [row["engine"] for row in rows] == ["transformers' generate", "varytoy", "varytoy with drafts"]
    assert all(row["same text"] == "yes" for row in rows) and "3 blocks" in out
    assert float(rows[0]["times as fast"]) == pytest.approx(1)
    assert int(rows[2]["passes"]) < 0.5 * int(rows[1]["passes"]) and float(rows[2]["agreed"]) > 0.3
