"""The reading branch: published shapes, parity with transformers' GOT-OCR2, padding that changes nothing."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from transformers.models.got_ocr2.configuration_got_ocr2 import GotOcr2Config, GotOcr2VisionConfig
from transformers.models.got_ocr2.modeling_got_ocr2 import GotOcr2MultiModalProjector, GotOcr2VisionEncoder

from varytoy.models.config import VisionVocabularyConfig
from varytoy.models.vision import sam as tower_parts
from varytoy.models.vision.sam import VisionVocabulary


@pytest.fixture(scope="module")
def published() -> VisionVocabulary:
    with torch.device("meta"):
        return VisionVocabulary(VisionVocabularyConfig())


def test_published_parameter_count(published):
    assert sum(parameter.numel() for parameter in published.parameters()) == 95_569_152


def test_published_relative_position_tables(published):
    rows = [block.attn.rel_pos_h.shape[0] for block in published.blocks]
    assert rows == [27, 27, 127] * 4


@pytest.mark.parametrize(
    ("height", "width", "grid"),
    [(1024, 1024, (16, 16)), (640, 640, (10, 10)), (512, 512, (8, 8)), (512, 1024, (8, 16))],
)
def test_published_token_grid(published, height, width, grid):
    with torch.no_grad():
        tokens = published(torch.empty(2, 3, height, width, device="meta"))
    assert tuple(tokens.shape) == (2, *grid, 1024)


def randomise(module: torch.nn.Module, std: float = 0.1) -> None:
    """Random values everywhere; several parameters are zero or one when fresh and would hide a mistake."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.normal_(0.0, std, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)


def published_name(name: str) -> str:
    """transformers' parameter name -> the published checkpoints' name."""
    for theirs, ours in {
        "patch_embed.projection": "patch_embed.proj",
        "layers.": "blocks.",
        "neck.conv1": "neck.0",
        "neck.layer_norm1": "neck.1",
        "neck.conv2": "neck.2",
        "neck.layer_norm2": "neck.3",
        ".layer_norm1": ".norm1",
        ".layer_norm2": ".norm2",
        "conv_upsampler1": "net_2",
        "conv_upsampler2": "net_3",
    }.items():
        name = name.replace(theirs, ours)
    return name


def patch_vocabulary(image_size: int, **shape) -> VisionVocabulary:
    """SAM's shape in small."""
    config = VisionVocabularyConfig(
        image_size=image_size,
        hidden_size=24,
        num_heads=3,
        mlp_ratio=2.0,
        neck_size=8,
        compressor_sizes=[16, 32],
        **shape,
    )
    return VisionVocabulary(config)


@pytest.mark.parametrize("rows", [16, 3])
def test_equals_got_ocr2_of_transformers(rows, monkeypatch):
    """Four layers over a 16x16 grid in windows of 7 (padded to 21), two of them global, at once or 3 rows at a time."""
    monkeypatch.setattr(tower_parts, "_MAX_SCORES", rows * 16**3)
    vision = GotOcr2VisionConfig(
        hidden_size=24,
        output_channels=8,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=256,
        patch_size=16,
        window_size=7,
        global_attn_indexes=[1, 3],
        mlp_dim=48,
        initializer_range=0.02,
    )
    text = {"model_type": "qwen2", "hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    encoder = GotOcr2VisionEncoder(vision).eval()
    projector = GotOcr2MultiModalProjector(GotOcr2Config(vision_config=vision, text_config=text)).eval()
    randomise(encoder)
    randomise(projector)
    ours = patch_vocabulary(256, num_layers=4, window_size=7, global_layers=[1, 3]).eval()
    state = {**encoder.state_dict(), **projector.state_dict()}
    ours.load_state_dict(
        {published_name(name): value for name, value in state.items() if not name.startswith("multimodal_projector")}
    )
    pixels = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = encoder(pixels).last_hidden_state
        expected = projector.conv_upsampler2(projector.conv_upsampler1(features)).permute(0, 2, 3, 1)
        found = ours(pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_global_attention_in_parts_has_the_same_gradients(checkpointed, monkeypatch):
    tower = patch_vocabulary(128, num_layers=2, window_size=5, global_layers=[1]).train()
    randomise(tower)
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    found = []
    for rows in (8, 3):
        monkeypatch.setattr(tower_parts, "_MAX_SCORES", rows * 8**3)
        for block in tower.blocks:
            block.gradient_checkpointing = checkpointed and rows == 3
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        loss = tower(pixels).square().sum()
        found.append([loss, *torch.autograd.grad(loss, list(tower.parameters()))])
    for plain, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, plain, atol=1e-4, rtol=1e-4)


def conv_vocabulary() -> VisionVocabulary:
    config = VisionVocabularyConfig(
        stem="conv",
        stem_stages=[[8, 2, 2, 0], [8, 2, 2, 1], [16, 2, 2, 1], [16, 2, 1, 1]],
        positions="projected",
        relative_positions=False,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        window_size=0,
        global_layers=[0, 1],
        neck_size=0,
    )
    vocabulary = VisionVocabulary(config).eval()
    randomise(vocabulary)
    return vocabulary


def test_conv_stem_token_grid():
    vocabulary = conv_vocabulary()
    assert vocabulary.config.stride == (16, 8)
    with torch.no_grad():
        assert tuple(vocabulary(torch.zeros(1, 3, 32, 120)).shape) == (1, 2, 15, 32)


def test_tokens_tell_where_they_stand_however_large_the_stem_grows():
    """Two stretches of the same blank paper; batch norm behind convolutions has made nano's stem a hundred times larger
    than its sinusoidal positions."""
    vocabulary = conv_vocabulary()
    with torch.no_grad():
        vocabulary.patch_embed.proj.weight.mul_(1e4)
        vocabulary.patch_embed.proj.bias.mul_(1e4)
        tokens = vocabulary(torch.zeros(1, 3, 160, 160))[0, 3:7, 5:15].flatten(0, 1)
        assert float((tokens[0] - tokens[1:]).abs().amax(-1).min()) > 0.05
        vocabulary.place.weight.zero_()
        tokens = vocabulary(torch.zeros(1, 3, 160, 160))[0, 3:7, 5:15].flatten(0, 1)
        assert float((tokens[0] - tokens[1:]).abs().amax(-1).max()) < 0.05


def test_conv_stem_reads_a_padded_picture_as_it_reads_it_alone():
    vocabulary = conv_vocabulary()
    sizes = torch.tensor([[32, 120], [80, 64], [16, 8]])
    pixels = torch.zeros(3, 3, 80, 120)
    generator = torch.Generator().manual_seed(2)
    for picture, (height, width) in zip(pixels, sizes.tolist(), strict=True):
        picture[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    with torch.no_grad():
        batch = vocabulary(pixels, sizes)
        for tokens, picture, (height, width) in zip(batch, pixels, sizes.tolist(), strict=True):
            alone = vocabulary(picture[None, :, :height, :width])[0]
            torch.testing.assert_close(tokens[: height // 16, : width // 8], alone, atol=1e-5, rtol=1e-5)
