"""The experiment on tokens a page: every way trains and reads, once."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import varytoy
from train import rendering
from train.experiments import compression
from train.experiments.compression import PAGE, SIDES, WAYS, Way, beginning
from varytoy.models.config import VaryConfig
from varytoy.models.connectors import build_connector, image_tokens
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


def test_all_connectors_begin_with_the_same_projection(tmp_path):
    """CLIP adds nothing at first, and a latent that sees one feature alone is that feature."""
    rows = {}
    features = {"vocabulary": torch.randn(1, 10, 10, 256), "clip": torch.randn(1, 10, 10, 256)}
    for way in (Way("linear", 100), Way("concatenation", 100), Way("resampler", 100)):
        folder = beginning(Path(varytoy.NANO), tmp_path / way.name, way)
        config = VaryConfig(**{key: value for key, value in way.preset().items() if key != "processor"})
        connector = build_connector(config)
        weights = load_file(folder / "model.safetensors")
        own = {name.removeprefix("connector."): each for name, each in weights.items() if name.startswith("connector.")}
        missing = connector.load_state_dict(own, strict=False).missing_keys
        if way.connector == "resampler":
            assert {name.split(".")[-2] for name in missing if "." in name} == {"q_proj"}
            with torch.no_grad():
                connector.sharpness.fill_(1e3)
                connector.offsets.zero_()
                connector.latent_query.zero_()
        given = features if way.connector == "concatenation" else {"vocabulary": features["vocabulary"]}
        rows[way.connector] = connector(given).detach()
    assert torch.allclose(rows["linear"], rows["concatenation"], atol=1e-5)
    # a latent sees itself too, which is zero here: half of the feature at the same place
    assert torch.allclose(rows["linear"], 2 * rows["resampler"], atol=1e-3)


@pytest.mark.slow
def test_the_experiment(source, tmp_path, monkeypatch, capsys):
    """At equal compute fewer tokens see more pages; what is there is not done again."""
    monkeypatch.setattr(compression, "_COUNTS", {"train": 16, "test": 2})
    monkeypatch.setattr(compression, "WAYS", [Way("linear", 64), Way("resampler", 400)])
    render = rendering.data_tools  # there are no fonts for tests alone
    monkeypatch.setattr(rendering, "data_tools", lambda words: render([{"test": "train"}.get(w, w) for w in words]))
    words = ["--folder", str(tmp_path), "--source", str(source), "--seeds", "1", "--compute", "4e11"]
    words += ["--start-compute", "4e11"]
    assert compression.main(words) == 0
    said = capsys.readouterr().out
    steps = [int(line.split("|")[3]) for line in said.splitlines() if line.startswith(("| linear", "| resampler"))]
    assert steps[0] > steps[1] >= 1 and (tmp_path / "compression.png").stat().st_size > 5000
    monkeypatch.setattr(compression, "call", None)
    assert (
        compression.main(words) == 0 and said.endswith(again := capsys.readouterr().out) and "| linear | 64 |" in again
    )
