"""The experiment on tokens a page: every way trains and reads, once."""

import pytest

from train.experiments import compression
from train.experiments.compression import PAGE, SIDES, WAYS, Way
from varytoy.models.config import VaryConfig
from varytoy.models.connectors import image_tokens
from varytoy.models.vary import count_parameters


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_way_has_its_tokens(way):
    preset = way.preset()
    height, width = preset["processor"]["image_processor"]["size"]
    config = VaryConfig(**{key: value for key, value in preset.items() if key != "processor"})
    down, across = config.vocabulary_config.stride
    assert (width, height) == (PAGE if way.connector == "resampler" else SIDES[way.tokens])
    tokens = image_tokens(config) if way.connector == "resampler" else (width // across) * (height // down)
    assert tokens == way.tokens
    assert count_parameters(config) > 4_000_000


@pytest.mark.slow
def test_the_experiment(source, tmp_path, monkeypatch, capsys):
    """At equal compute fewer tokens see more pages; what is there is not done again."""
    monkeypatch.setattr(compression, "_COUNTS", {"train": 16, "test": 2})
    monkeypatch.setattr(compression, "WAYS", [Way("linear", 64), Way("resampler", 400)])
    render = compression.data_tools  # there are no fonts for tests alone
    monkeypatch.setattr(compression, "data_tools", lambda words: render([{"test": "train"}.get(w, w) for w in words]))
    words = ["--folder", str(tmp_path), "--source", str(source), "--seeds", "1", "--compute", "4e11"]
    assert compression.main(words) == 0
    said = capsys.readouterr().out
    steps = [int(line.split("|")[3]) for line in said.splitlines() if line.startswith(("| linear", "| resampler"))]
    assert steps[0] > steps[1] >= 1 and (tmp_path / "compression.png").stat().st_size > 5000
    monkeypatch.setattr(compression, "call", None)
    assert (
        compression.main(words) == 0 and said.endswith(again := capsys.readouterr().out) and "| linear | 64 |" in again
    )
