"""Each recipe of the full-size model really runs, plain and with each overlay: in nano's shape, in its own process."""

import os
import sys

import pytest
from conftest import BASES, OVERLAID, forked, losses

from train.__main__ import main

OPTIMIZERS = {"full-8bit": "train.RoundingAdamW8bit", "full-offload": "deepspeed.DeepSpeedCPUAdam"}
"""Those that really step, by the end of an overlay's name."""
CASES = [(path, *name) for path, *name in (*((path,) for path in BASES), *OVERLAID) if path.parent.name != "nano"]


def command(words: list[str], log: str) -> None:
    """``python -m train`` in a process that has imported torch already; what it says goes into the file ``log``."""
    os.environ.update({"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"})
    sys.stdout = sys.stderr = open(log, "w", encoding="utf-8")
    sys.exit(main(words))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join((case[0].stem, *case[1:])))
def test_short_run(case, ten, tmp_path):
    path, *overlay = case
    words = ["run", str(path), *(f"--overlay={name}" for name in overlay), f"output={tmp_path / 'run'}"]
    process = forked(command, [*words, "--smoke-test", str(ten)], str(tmp_path / "log"))
    process.join(400)
    process.kill()  # if it has not ended
    process.join()
    said = (tmp_path / "log").read_text("utf-8")
    assert process.exitcode == 0, said[-5000:]
    steps = next((name for way, name in OPTIMIZERS.items() if f"{case[-1]}".endswith(way)), "torch.AdamW")
    assert f"optimizer: {steps}, " in said and "0 bad samples" in said
    output = tmp_path / "run-smoke-test"
    for folder in sorted(output.glob("stage-*")) or [output]:
        found = losses(folder)
        assert len(found) == 3 and all(0 < loss < 20 for loss in found)
    assert any((output / name).is_file() for name in ("config.json", "adapter_config.json"))
