"""Every recipe of the full-size model really runs: its way of training, in nano's shape, from the command line."""

import pytest
from conftest import ROOT, launch, losses

OPTIMIZERS = {"full-8bit": "train.RoundingAdamW8bit", "full-offload": "deepspeed.DeepSpeedCPUAdam"}
"""Those that really step, by the end of a recipe's name."""
RECIPES = sorted((ROOT / "train" / "recipes").glob("vary-*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_short_run(path, ten, tmp_path):
    said = launch(path, f"output={tmp_path / 'run'}", "--short", str(ten))
    steps = next((name for way, name in OPTIMIZERS.items() if path.stem.endswith(way)), "torch.AdamW")
    assert f"optimizer: {steps}, " in said and "0 bad samples" in said
    found = losses(tmp_path / "run-short")
    assert len(found) == 3 and all(0 < loss < 20 for loss in found)
