"""What one sample does never ends a run, features or a table: it is counted and named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from train.__main__ import main
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset
from train.objectives import GuidedAttention, Letters
from train.predictions import write as write_predictions
from train.recipe import DataSettings
from varytoy.data.samples import read_samples
from varytoy.inference.engine import TransformersEngine


@pytest.fixture
def odd(ten):
    """Samples that no reader should let through, each wrong at another place."""
    first = next(read_samples(ten))
    turns = [first.messages[0], {"role": "assistant", "content": "smile \ud83d"}]
    return [
        replace(first, id="half an emoji", messages=turns),
        replace(first, id="a name that is none", images=[5]),
        replace(first, id="no content", messages=[{"role": "user"}, {"role": "assistant"}]),
    ]


def test_a_batch_is_made_without_them(ten, odd, processor):
    said = []
    bad = BadSamples(said.append)
    data = SampleDataset([DataSettings(str(ten))], 0, bad)
    data.samples = [*data.samples[:3], *odd]
    letters = Letters(Letters.Settings(1.0, aligned=True, characters="abc"))
    objectives = [letters, GuidedAttention(GuidedAttention.Settings(1.0))]
    collator = Collator(processor, 4096, bad, objectives=objectives, names=True)
    batch = collator([data[index] for index in range(len(data))])
    assert batch["names"] == [sample.id for sample in data.samples[:3]]
    assert bad.count == len(odd) and all(any(sample.id in line for line in said) for sample in odd)
    data.samples = [sample for sample in data.samples if all(isinstance(name, str) for name in sample.images)]
    assert len(data.shapes((16, 8))) == len(data)


def test_predictions_go_on(ten, odd, model, processor, tmp_path):
    samples = [*odd, next(read_samples(ten))]
    write_predictions(tmp_path, TransformersEngine(model, processor), samples, max_new_tokens=4)
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert rows[-1]["sample"] == samples[-1].id and not rows[-1]["said"].startswith("(")


def test_evaluate_leaves_them_out_and_counts_them(ten, tmp_path, capsys):
    folder = Path(shutil.copytree(ten, tmp_path / "data"))
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()][:5]
    rows[1]["task"] = "juggle"
    rows[2]["task"], rows[2]["annotations"] = "caption", {}
    (folder / rows[3]["images"][0]).write_bytes(b"no picture")
    rows.append({"nothing": 1})
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["evaluate", "--samples", str(folder), "--max-new-tokens", "64"]) == 0
    said = capsys.readouterr().out
    assert "ocr, 2 samples: character error rate" in said and "bad samples, left out" in said
    for name in ("line 6", "line 2", f"'{rows[2]['id']}'", Path(rows[3]["images"][0]).name):
        assert name in said
