"""Multi-crop: the grids, and the tiles against transformers' GOT-OCR2."""

import pytest
import torch
from PIL import Image
from transformers import GotOcr2ImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from varytoy.inference.reader import Reader
from varytoy.processing.images import VaryImageProcessor
from varytoy.processing.tiling import WHOLE, Tiling, choose_tiling


@pytest.mark.parametrize(
    ("size", "most", "tiling"),
    [
        ((1000, 1000), 12, WHOLE),
        ((3000, 3000), 12, Tiling(3, 3, True)),  # 1x1, 2x2 and 3x3 are as near: the largest that is half filled
        ((2480, 3508), 6, Tiling(2, 3, True)),
        ((2480, 3508), 12, Tiling(2, 3, True)),
        ((1600, 400), 6, Tiling(4, 1, True)),
        ((300, 3000), 6, Tiling(1, 6, True)),
        ((2000, 1000), 1, WHOLE),
    ],
)
def test_grids(size, most, tiling):
    assert choose_tiling(size, 1024, most) == tiling
    assert tuple(tiling[:2]) == tuple(get_optimal_tiled_canvas((size[1], size[0]), (1024, 1024), 1, most))


def test_tiles_are_those_of_got():
    """Pixels, their order and the thumbnail."""
    torch.manual_seed(0)
    image = Image.effect_noise((1500, 900), 60).convert("RGB").resize((310, 190))
    stock = GotOcr2ImageProcessor(size={"height": 128, "width": 128}, crop_to_patches=True, max_patches=6)
    theirs = stock(image, return_tensors="pt")["pixel_values"]
    ours = VaryImageProcessor(size=(128, 128), stride=(16, 16), clip_size=0)
    plan = ours.plan(image.size, "text", choose_tiling(image.size, 128, 6))
    batch = ours([image], [plan])
    assert batch["pixel_values"].shape == theirs.shape and len(theirs) == 7
    assert plan.tokens == 7 * 64
    assert (batch["pixel_values"] - theirs).abs().mean() < 0.02  # two libraries' bicubic


def test_tiles_of_the_embedded_model_are_refused():
    with pytest.raises(ValueError, match="line by line: leave the tiles out"):
        Reader.from_pretrained("nano", "cpu").ask(Image.new("RGB", (60, 40)), tiles=4)
