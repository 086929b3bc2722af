"""The published shape of the image decoder, tiny, in diffusers' own classes."""

import pytest
import torch
from conftest import picture_source, text_source, tiny_recipe
from safetensors.torch import load_file

from data_tools.render.looks import Look
from data_tools.render.word_pairs import WordPairRenderer
from data_tools.writer import write_samples
from train.loop import run
from train.objectives.drawing import Drawing, export_decoder
from train.recipe import RecipeError
from varytoy.models.diffusion_decoder import DiffusionDecoder, StatesToCondition, widened

diffusers = pytest.importorskip("diffusers", reason="needs pip install -e '.[diffusion]'")


def tiny_parts(latent: int = 4):
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=latent, out_channels=latent, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8, norm_num_groups=8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=latent, norm_num_groups=4,
    )  # fmt: skip
    return unet, vae, diffusers.DDIMScheduler()


@pytest.fixture
def look(tmp_path) -> Look:
    return Look(text_source(picture_source(tmp_path / "source")), "train")


def inputs(count: int = 2):
    torch.manual_seed(1)
    mask = torch.zeros(count, 1, 32, 64)
    mask[..., 8:24, 16:48] = 1
    return torch.rand(count, 3, 32, 64), mask, torch.rand(count, 1, 32, 64), torch.randn(count, 5, 24)


@pytest.fixture
def decoder() -> DiffusionDecoder:
    torch.manual_seed(0)
    return DiffusionDecoder(*tiny_parts(), state_size=24, steps=3)


def test_a_training_step_and_a_sampling_run(decoder):
    """The loss reaches U-Net and condition, not the VAE; sampling leaves what is outside the mask."""
    picture, mask, glyphs, states = inputs()
    loss = decoder.loss(picture, mask, glyphs, torch.rand_like(picture), states)
    loss.backward()
    assert torch.isfinite(loss) and decoder.condition.project.weight.grad.abs().sum() > 0
    assert decoder.unet.conv_in.weight.grad[:, 4:].abs().sum() > 0
    assert all(parameter.grad is None for parameter in decoder.vae.parameters())
    with torch.inference_mode():
        drawn = decoder(picture, mask, glyphs, states, generator=torch.Generator().manual_seed(3)).picture
    outside = (mask == 0).expand_as(picture)
    assert torch.equal(drawn[outside], picture[outside]) and not torch.equal(drawn, picture)


def test_the_condition_reaches_the_picture(decoder):
    picture, mask, glyphs, states = inputs()

    def draw(states):
        with torch.inference_mode():
            return decoder(picture, mask, glyphs, states, generator=torch.Generator().manual_seed(3)).picture

    assert not torch.equal(draw(states), draw(-states)) and torch.equal(draw(states), draw(states))


def test_padding_and_the_order_of_states():
    condition = StatesToCondition(24, 32, queries=7)
    states = torch.randn(1, 5, 24)
    known = torch.tensor([[False, False, True, True, True, True, True]])
    padded = torch.cat([torch.randn(1, 2, 24), states], 1)  # in reverse order the padding comes last
    assert torch.allclose(condition(states), condition(padded, known), atol=1e-5)
    assert not torch.allclose(condition(states), condition(states.flip(1)), atol=1e-3)


def test_a_widened_unet_draws_as_before():
    unet = tiny_parts()[0]
    noise, rows = torch.randn(1, 4, 4, 8), torch.randn(1, 7, 32)
    before = unet(noise, 5, encoder_hidden_states=rows).sample
    wide = widened(unet, glyphs=True)
    after = wide(torch.cat([noise, torch.randn(1, 9, 4, 8)], 1), 5, encoder_hidden_states=rows).sample
    assert wide.config.in_channels == 13 and torch.allclose(before, after, atol=1e-5)
    assert widened(wide, glyphs=True) is wide


def test_a_checkpoint_of_stable_diffusion(tmp_path):
    for part, name in zip(tiny_parts(), ("unet", "vae", "scheduler"), strict=True):
        part.save_pretrained(tmp_path / name)
    decoder = DiffusionDecoder.from_folder(tmp_path, 24, glyphs=False, steps=2, guidance=1)
    assert decoder.unet.config.in_channels == 9
    picture, mask, glyphs, states = inputs(1)
    assert decoder(picture, mask, glyphs, states).picture.shape == picture.shape
    with pytest.raises(ValueError, match="multiples of 8 pixels"):
        decoder(picture[..., :30], mask[..., :30], glyphs[..., :30], states)
    with pytest.raises(ValueError, match="lacks the folder 'unet'"):
        DiffusionDecoder.from_folder(tmp_path / "unet", 24)


def test_it_is_trained_by_a_recipe(look, tmp_path):
    """Three pairs, with the language model's states; the head is kept beside the run."""
    for part, name in zip(tiny_parts(), ("unet", "vae", "scheduler"), strict=True):
        part.save_pretrained(tmp_path / "sd" / name)
    write_samples(tmp_path / "pairs", 1, WordPairRenderer(look, 4, strength=0.0), workers=1)
    chosen = tiny_recipe(tmp_path / "pairs", tmp_path / "run", clip=True, batch_size=3, max_steps=2)
    chosen.objectives = {"drawing": Drawing.Settings(10.0, diffusion=str(tmp_path / "sd"))}
    run(chosen)
    assert any("heads.drawing.unet" in name for name in load_file(tmp_path / "run" / "training_heads.safetensors"))
    with pytest.raises(RecipeError, match="trained a diffusion model"):
        export_decoder(tmp_path / "run", tmp_path / "out")


def test_the_published_shape():
    """Stable Diffusion 2's U-Net with 9 more input channels, and 77 queries for Vicuna-13B's states."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        published = sum(parameter.numel() for parameter in unet.parameters())
        wide = sum(parameter.numel() for parameter in widened(unet, glyphs=True).parameters())
        condition = sum(parameter.numel() for parameter in StatesToCondition(5120, 1024).parameters())
    assert published == 865_910_724 and wide == published + 9 * 320 * 3 * 3
    assert condition == 5121 * 1024 + 2 * 77 * 1024 + 16_796_672  # projection, queries and absent, the layer
