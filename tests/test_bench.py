"""The benchmark of reading: a table, and the same texts from both engines."""

import re

import pytest

from varytoy import bench


def test_both_engines_read_the_same(capsys):
    assert bench.main(["--paragraphs", "3", "--batch-size", "2", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (\S+)[^|]* \| ([\d.]+) \| (\d+) \| ([\d.]+) \| (yes|no) \|$", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["transformers'", "varytoy"] and [row[4] for row in rows] == ["yes", "yes"]
    assert float(rows[0][3]) == pytest.approx(1) and "3 blocks" in out
