"""A pretrained backbone of timm as a vision branch: its features, frozen batch norm, weights and refusals."""

import pytest
import torch
from conftest import tiny_config, tiny_model
from safetensors.torch import save_file
from torch.nn import functional as F

from train.stage_weights import load_stage
from varytoy.inference.reader import Reader
from varytoy.models.config import TimmConfig, VaryConfig
from varytoy.models.vary import VaryForConditionalGeneration
from varytoy.models.vision import TimmBranch


@pytest.fixture(scope="module")
def branch() -> TimmBranch:
    torch.manual_seed(0)
    return TimmBranch(TimmConfig()).eval()


def test_finer_stages_are_folded_onto_the_coarsest(branch):
    """Against timm's own feature maps, token by token."""
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        features = branch(pixels)
        fine, coarse = branch.visual(pixels)
    assert features.shape == (2, 7, 7, 768) and branch.grid == (7, 7)
    assert fine.shape[1:] == (112, 14, 14) and coarse.shape[1:] == (320, 7, 7)
    token = features[1, 2, 5]
    expected = F.unfold(fine[1:], 2, stride=2)[0, :, 2 * 7 + 5]
    torch.testing.assert_close(token, torch.cat([expected, coarse[1, :, 2, 5]]))


def test_batch_norm_keeps_its_statistics_in_training(branch):
    before = {name: value.clone() for name, value in branch.named_buffers()}
    branch.train()
    branch(torch.randn(4, 3, 224, 224))
    assert all(torch.equal(value, before[name]) for name, value in branch.named_buffers())
    branch.eval()


def test_a_model_with_it_takes_the_weights_and_is_read_back(branch, processor, pictures, tmp_path):
    """In place of the CLIP branch, with weights from a folder whose tensors have timm's names behind ``visual.``."""
    tree = tiny_config().to_dict() | {"clip_config": {"model_type": "vary_timm"}}
    model = tiny_model(VaryConfig(**tree))
    (tmp_path / "net").mkdir()
    save_file(
        {f"visual.{name}": value for name, value in branch.visual.state_dict().items()}, tmp_path / "net/x.safetensors"
    )
    loaded = load_stage(model, tmp_path / "net")
    assert not loaded.misfits and len(loaded.taken) == len(branch.visual.state_dict())
    pixels = processor.image_processor
    pixels.clip_size, pixels.clip_mean, pixels.clip_std = 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    inputs = processor(["Read.", "Read this."], pictures)
    with torch.inference_mode():
        logits = model.eval()(**inputs).logits
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    again = Reader.from_pretrained(str(tmp_path / "model"), "cpu")
    assert isinstance(again.engine.model.clip, TimmBranch)
    assert torch.equal(
        again.processor(["Read.", "Read this."], pictures)["clip_pixel_values"], inputs["clip_pixel_values"]
    )
    with torch.inference_mode():
        assert torch.equal(again.engine.model(**inputs).logits, logits)


def test_buffers_that_no_checkpoint_holds_are_made_again(tmp_path):
    """Rotary positions."""
    branch = {"model_type": "vary_timm", "name": "vit_pe_core_tiny_patch16_384", "stages": [0]}
    branch |= {"image_size": 384, "patch_size": 16, "width": 192}
    model = tiny_model(VaryConfig(**tiny_config().to_dict() | {"clip_config": branch}))
    model.save_pretrained(tmp_path)
    again = VaryForConditionalGeneration.from_pretrained(tmp_path)
    buffers = dict(again.clip.named_buffers())
    assert buffers and all(torch.equal(value, buffers[name]) for name, value in model.clip.named_buffers())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "resnet_of_nobody"}, "resnet_of_nobody"),
        ({"width": 700}, "768"),
        ({"stages": [2]}, "patch_size 8"),
        ({"stages": [9]}, r"tf_efficientnet_lite0 with the stages \[9\]"),
        ({"name": "vit_tiny_patch16_224", "stages": [0], "patch_size": 16, "width": 192, "image_size": 256}, "224"),
    ],
)
def test_a_backbone_that_cannot_be_is_said(changes, named):
    with pytest.raises(ValueError, match=named):
        TimmBranch(TimmConfig(**changes))
