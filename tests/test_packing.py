"""Several questions about one image in one row."""

import json
import random
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import tiny_recipe as recipe

from data_tools.mixture import DataSettings
from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import SampleDataset, merge_turns
from train.model import build
from varytoy.data.samples import read_samples
from varytoy.processing.processor import IGNORED


def test_packed_questions_do_not_see_each_other(ten, tmp_path):
    """The loss of each is the one it has alone, with the image's tokens once for all."""
    first = next(read_samples(ten))
    texts = [("Read.", "One two."), ("Read it.", "Three."), ("Read.", "Other words.")]
    conversations = [
        [{"role": "user", "content": f"<image>\n{question}"}, {"role": "assistant", "content": answer}]
        for question, answer in texts
    ]
    samples = [replace(first, messages=messages) for messages in conversations]
    (packed,) = merge_turns(samples, 8, random.Random(0), isolated=True)
    model, processor, *_ = build(recipe(ten, tmp_path / "run"))
    model.eval()
    collator = Collator(processor, 4096, BadSamples())
    images = first.open_images()
    whole = collator([(packed, images)])
    alone = [collator([(sample, images)]) for sample in samples]
    image_tokens = int((alone[0]["input_ids"] == model.config.image_token_id).sum())
    assert int((whole["input_ids"] == model.config.image_token_id).sum()) == image_tokens
    with torch.no_grad():
        losses = [float(model(**batch).loss) * int((batch["labels"] != IGNORED).sum()) for batch in alone]
        together = float(model(**whole).loss) * int((whole["labels"] != IGNORED).sum())
        padded = collator([(packed, images), (samples[0], images)])
        both = float(model(**padded).loss) * int((padded["labels"] != IGNORED).sum())
    assert together == pytest.approx(sum(losses), rel=1e-4)
    assert both == pytest.approx(sum(losses) + losses[0], rel=1e-4)


def test_questions_about_a_text_share_it(ten, tmp_path):
    """``as_text``: rows of the picture's lines stand in its place, once for all questions, and no pixels are needed."""
    sample = next(read_samples(ten))
    shutil.copytree(sample.folder / "images", tmp_path / "images")
    known = {"lines": ["Tea", "4.50", "Bread", "2.00"]}
    known["line_boxes"] = [0, 0, 300, 90, 700, 5, 900, 95, 0, 100, 300, 190, 700, 105, 900, 195]
    rows = []
    for number, (name, price) in enumerate((("Tea", "4.50"), ("Bread", "2.00"))):
        turns = [("user", f"<image>\nWhat is the price of {name}?"), ("assistant", price)]
        messages = [{"role": role, "content": content} for role, content in turns]
        rows.append({"id": str(number), "task": "vqa", "messages": messages, "images": sample.images})
        rows[-1]["annotations"] = known if number else known | {"references": [price]}
    rows.append(rows[0] | {"id": "without text", "annotations": {}})
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = DataSettings(str(tmp_path), turns=4, isolated=True, as_text=True)
    (item,) = SampleDataset([source], 0, BadSamples())
    _, processor, *_ = build(recipe(ten, tmp_path / "run"))
    batch = Collator(processor, 4096, BadSamples())([item])
    said = processor.tokenizer.decode(batch["input_ids"][0])
    assert "pixel_values" not in batch and said.count("Tea | 4.50\nBread | 2.00\n\n") == 1
    assert all(part in said for part in ("Tea?<", "\n4.50<", "Bread?<", "\n2.00<"))
