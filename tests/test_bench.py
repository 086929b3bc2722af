"""The benchmarks of reading: a table, and the same texts from all engines."""

import json

import pytest

from varytoy.bench.__main__ import main

GOT = {
    "vocabulary_config": {
        **{"image_size": 128, "hidden_size": 64, "num_layers": 2, "num_heads": 2, "global_layers": [1]},
        **{"window_size": 3, "neck_size": 32, "compressor_sizes": [64, 64]},
    },
    "text_config": {
        **{"model_type": "qwen2", "vocab_size": 600, "hidden_size": 64, "intermediate_size": 192},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"max_position_embeddings": 2048, "tie_word_embeddings": True},
        **{"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0},
    },
    "tie_word_embeddings": True,
    "processor": {"image_processor": {"clip_size": 0, "size": [128, 128]}, "template": "chatml", "system": ""},
}


def table(out: str) -> list[dict[str, str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_all_engines_read_the_same(capsys):
    assert main(["--paragraphs", "3", "--batch-size", "2", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    rows = table(out)
    assert [row["engine"] for row in rows] == ["transformers' generate", "varytoy", "varytoy with drafts"]
    assert all(row["same text"] == "yes" for row in rows) and "15 lines and cells" in out
    assert float(rows[0]["times as fast"]) == pytest.approx(1)
    assert int(rows[2]["passes"]) < 0.5 * int(rows[1]["passes"]) and float(rows[2]["agreed"]) > 0.3


def test_a_shape_is_compared_with_transformers_own_class(tmp_path, capsys):
    shape = tmp_path / "got.json"
    shape.write_text(json.dumps(GOT))
    assert main(["--shape", str(shape), "--batch-size", "2", "--new-tokens", "20", "--repeats", "1"]) == 0
    rows = table(capsys.readouterr().out)
    assert [row["engine"].rpartition(", ")[2] for row in rows] == ["GotOcr2", "our class", "varytoy"]
    assert all(row["same text"] == "2 of 2" for row in rows)
