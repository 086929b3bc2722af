"""An image tower of open_clip as a vision branch."""

import open_clip
import pytest
import torch

from varytoy.models.config import ClipConfig, OpenClipConfig
from varytoy.models.vision import ClipBranch, OpenClipBranch

TEXT = {"context_length": 4, "vocab_size": 8, "width": 64, "heads": 1, "layers": 1}
MODELS = {
    "small-vit": {"image_size": 56, "layers": 3, "width": 128, "patch_size": 14},
    "small-resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
    "small-timm": {"image_size": 64, "timm_model_name": "convnext_atto"},
}


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    """Small models beside those that open_clip has."""
    for name, vision in MODELS.items():
        settings = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": True}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, settings)


def small_config(**changes) -> OpenClipConfig:
    return OpenClipConfig(**{"name": "small-vit", "image_size": 56, "width": 128, "patch_size": 14} | changes)


def test_equals_the_clip_branch_on_the_same_weights():
    torch.manual_seed(0)
    ours = ClipBranch(ClipConfig(image_size=56, width=128, layers=3)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    branch = OpenClipBranch(small_config()).eval()
    branch.load_state_dict(ours.state_dict())
    pixels = torch.randn(2, 3, 56, 56)
    with torch.inference_mode():
        assert torch.equal(branch(pixels), ours(pixels))
    assert branch(pixels).shape == (2, *branch.grid, 128) == (2, 4, 4, 128)


def test_has_the_published_names_and_shapes():
    with torch.device("meta"):
        ours = ClipBranch(ClipConfig()).state_dict()
        theirs = OpenClipBranch(OpenClipConfig(name="ViT-L-14-quickgelu", width=1024, patch_size=14)).state_dict()
    assert {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in ours.items()}


@pytest.mark.parametrize(
    ("name", "width", "last"), [("small-resnet", 256, "visual.layer4"), ("small-timm", 320, "visual.trunk.stages.3")]
)
def test_a_tower_of_stages_gives_its_last_map_and_keeps_its_statistics(name, width, last):
    branch = OpenClipBranch(OpenClipConfig(name=name, image_size=64, width=width))
    maps = []
    branch.get_submodule(last).register_forward_hook(lambda module, inputs, output: maps.append(output))
    before = {name: value.clone() for name, value in branch.named_buffers()}
    branch.train()
    features = branch(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 2, 2, width)
    assert torch.equal(features, maps[0].permute(0, 2, 3, 1))
    assert all(torch.equal(value, before[name]) for name, value in branch.named_buffers())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "ViT-of-nobody"}, r"ViT-of-nobody.*list_models"),
        ({"width": 64}, "width 128"),
        ({"image_size": 70}, "image_size 56, not 70"),
        ({"select_layer": -4}, "3 layers"),
    ],
)
def test_a_tower_that_cannot_be_is_said(changes, named):
    with pytest.raises(ValueError, match=named):
        OpenClipBranch(small_config(**changes))
