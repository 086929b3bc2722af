"""Each recipe of the full-size model really runs, plain and with each overlay: in nano's shape, as a command."""

import pytest
from conftest import BASES, OVERLAID, launch, losses

OPTIMIZERS = {"full-8bit": "train.RoundingAdamW8bit", "full-offload": "deepspeed.DeepSpeedCPUAdam"}
"""Those that really step, by the end of an overlay's name."""
CASES = [(path, *name) for path, *name in (*((path,) for path in BASES), *OVERLAID) if path.parent.name != "nano"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join((case[0].stem, *case[1:])))
def test_short_run(case, ten, tmp_path):
    path, *overlay = case
    said = launch(
        path, *(f"--overlay={name}" for name in overlay), f"output={tmp_path / 'run'}", "--smoke-test", str(ten)
    )
    steps = next((name for way, name in OPTIMIZERS.items() if f"{case[-1]}".endswith(way)), "torch.AdamW")
    assert f"optimizer: {steps}, " in said and "0 bad samples" in said
    output = tmp_path / "run-smoke-test"
    for folder in sorted(output.glob("stage-*")) or [output]:
        found = losses(folder)
        assert len(found) == 3 and all(0 < loss < 20 for loss in found)
    assert (output / "config.json").is_file()
