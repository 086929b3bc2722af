"""Several questions about one image in one row."""

import random
from dataclasses import replace

import pytest
import torch
from conftest import tiny_recipe as recipe

from train.data.bad_samples import BadSamples
from train.data.collator import Collator
from train.data.dataset import merge_turns
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
