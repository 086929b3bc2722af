"""The branch that knows pictures: the published shape, and parity with transformers' CLIPVisionModel."""

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from varytoy.models.config import ClipConfig
from varytoy.models.vision.clip import ClipBranch


def test_published_parameter_count():
    with torch.device("meta"):
        branch = ClipBranch(ClipConfig())
    assert sum(parameter.numel() for parameter in branch.parameters()) == 303_179_776


def open_clip_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' CLIP vision weights under open_clip's names."""
    found = {}
    for name, value in state.items():
        name = name.removeprefix("vision_model.")
        for theirs, ours in {
            "embeddings.class_embedding": "class_embedding",
            "embeddings.patch_embedding.weight": "conv1.weight",
            "embeddings.position_embedding.weight": "positional_embedding",
            "pre_layrnorm": "ln_pre",
            "post_layernorm": "ln_post",
            "encoder.layers.": "transformer.resblocks.",
            "layer_norm": "ln_",
            "self_attn.out_proj": "attn.out_proj",
            "mlp.fc1": "mlp.c_fc",
            "mlp.fc2": "mlp.c_proj",
        }.items():
            name = name.replace(theirs, ours)
        found[name] = value
    for name in [name for name in found if ".q_proj." in name]:
        parts = [found.pop(name.replace(".q_proj.", f".{letter}_proj.")) for letter in "qkv"]
        found[name.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(parts)
    return found


@pytest.fixture(scope="module")
def parity() -> tuple[ClipBranch, torch.Tensor, torch.Tensor]:
    """A small branch with transformers' weights, pixels, and transformers' features for them."""
    torch.manual_seed(0)
    theirs = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
            hidden_act="quick_gelu",
            attn_implementation="eager",
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    branch = ClipBranch(ClipConfig(image_size=56, width=128, layers=3)).eval()
    branch.visual.load_state_dict(open_clip_state(theirs.state_dict()))
    pixels = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = theirs(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    return branch, pixels, expected


def test_equals_clip_vision_model_of_transformers(parity):
    branch, pixels, expected = parity
    with torch.no_grad():
        found = branch(pixels)
    assert tuple(found.shape) == (2, 4, 4, 128)
    torch.testing.assert_close(found.flatten(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_parity_needs_quick_gelu(parity):
    branch, pixels, expected = parity
    plain = VisionTransformer(56, 14, 128, 3, 2, 4.0, output_dim=128, act_layer=nn.GELU)
    plain.proj = None
    plain.load_state_dict(branch.visual.state_dict())
    other = ClipBranch(branch.config)
    other.visual = plain
    with torch.no_grad():
        assert (other(pixels).flatten(1, 2) - expected).abs().max() > 1e-3


def test_residual_network_has_tokens_of_the_size_asked_for_and_no_unused_parts():
    config = ClipConfig(image_size=64, patch_size=16, width=64, layers=[1, 2, 1])
    branch = ClipBranch(config).eval()
    found = branch(torch.randn(2, 3, 64, 64))
    assert tuple(found.shape) == (2, *branch.grid, 64) == (2, 4, 4, 64)
    found.square().sum().backward()
    assert all(parameter.grad is not None for parameter in branch.parameters())
    with pytest.raises(ValueError, match=r"clip_config.*\b16\b.*patch_size"):
        ClipBranch(ClipConfig(patch_size=8, width=64, layers=[1, 2, 1]))
