"""The published shape of an image decoder: Stable Diffusion 2's U-Net and VAE of diffusers, led by the language model's
states (TextHarmony, arXiv 2407.16364, and MM-Interleaved).

Deviations from TextHarmony's release: the picture to change enters as its latents, with the mask, as in Stable
Diffusion's inpainting models, in place of a deformable attention that has to be compiled; and the wanted letters enter
as latents of their picture, which can be left out.

Shapes: B batch, H W pixels, T tokens, D width of the language model; latents have an eighth of the pixels a side.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varytoy.extras import require
from varytoy.models.image_decoder import Drawn, places

_SCALE = 8
"""Pixels for each latent, a side."""
_QUERIES = 77
_HEADS = 16
_DROPPED = 0.1
"""Share of the trainings' rows without condition, as in the release, for the guidance."""


class StatesToCondition(nn.Module):
    """States of the language model [B, T, D] -> rows [B, 77, width], the U-Net's ``encoder_hidden_states``: the states
    in reverse order, projected, with sines as places, and a Q-Former of one layer.

    ``absent`` stands for no condition.
    """

    def __init__(self, state_size: int, width: int, queries: int = _QUERIES):
        super().__init__()
        heads = max(head for head in (_HEADS, 8, 4, 2, 1) if width % head == 0)
        self.project = nn.Linear(state_size, width)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.layer = nn.TransformerDecoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.absent = nn.Parameter(torch.zeros(queries, width))

    def forward(self, states: Tensor, known: Tensor | None = None) -> Tensor:
        """``known`` [B, T]: False for padding."""
        keys = self.project(states.to(self.project.weight.dtype).flip(1))
        keys = keys + places(keys.shape[1], keys.shape[2]).to(keys)
        padding = None if known is None else ~known.flip(1)
        return self.layer(self.queries.expand(len(keys), -1, -1), keys, memory_key_padding_mask=padding)


class DiffusionDecoder(nn.Module):
    """An ``ImageDecoder`` that draws by denoising.

    Args:
        unet, vae, scheduler: ``UNet2DConditionModel``, ``AutoencoderKL`` and ``DDIMScheduler`` of diffusers. The U-Net
            gets channels for the latents of the picture and of the letters and for the mask, which begin at zero.
        state_size: D.
        glyphs: whether it sees the wanted letters.
        steps: of the sampling.
        guidance: weight of the condition against none; 1: no guidance.
    """

    def __init__(
        self, unet: Any, vae: Any, scheduler: Any, state_size: int, glyphs: bool = True, steps: int = 30,
        guidance: float = 7.5,
    ):  # fmt: skip
        super().__init__()
        self.unet, self.vae, self.scheduler = widened(unet, glyphs), vae.requires_grad_(False), scheduler
        self.condition = StatesToCondition(state_size, unet.config.cross_attention_dim)
        self.glyphs, self.steps, self.guidance = glyphs, steps, guidance

    @classmethod
    def from_folder(cls, folder: Path, state_size: int, **options: Any) -> "DiffusionDecoder":
        """From a Stable Diffusion checkpoint in diffusers' layout: folders ``unet``, ``vae`` and ``scheduler``.

        Raises:
            MissingExtra: diffusers is not installed.
            ValueError: the folder lacks one of them.
        """
        require("diffusion", "diffusers", by="a diffusion decoder")
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

        classes = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDIMScheduler}
        lacking = [name for name in classes if not (folder / name).is_dir()]
        if lacking:
            raise ValueError(
                f"{folder} lacks the folder '{lacking[0]}': give a Stable Diffusion checkpoint in diffusers' layout"
            )
        try:
            parts = {name: kind.from_pretrained(folder / name, local_files_only=True) for name, kind in classes.items()}
        except OSError as error:
            raise ValueError(f"{folder} cannot be loaded: {error}") from error
        return cls(**parts, state_size=state_size, **options)

    def forward(
        self, picture: Tensor, mask: Tensor, glyphs: Tensor, states: Tensor, known: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Drawn:  # fmt: skip
        """See ``ImageDecoder``. ``generator``: of the noise. Raises ValueError for sides that are no multiples of 8."""
        seen = self._seen(picture, mask, glyphs)
        rows = self.condition(states, known)
        guided = self.guidance != 1
        if guided:
            rows = torch.cat([self.condition.absent.expand_as(rows), rows])
        shape = (len(picture), self.vae.config.latent_channels, *seen.shape[2:])
        noise = torch.randn(shape, generator=generator, dtype=seen.dtype).to(seen.device)
        latents = noise * self.scheduler.init_noise_sigma
        self.scheduler.set_timesteps(self.steps, device=seen.device)
        for step in self.scheduler.timesteps:
            inputs = torch.cat([self.scheduler.scale_model_input(latents, step), seen], 1)
            predicted = self.unet(
                torch.cat([inputs] * 2) if guided else inputs, step, encoder_hidden_states=rows
            ).sample
            if guided:
                free, led = predicted.chunk(2)
                predicted = free + self.guidance * (led - free)
            latents = self.scheduler.step(predicted, step, latents).prev_sample
        drawn = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        drawn = (drawn.float() / 2 + 0.5).clamp(0, 1)
        return Drawn(torch.where(mask > 0, drawn, picture))

    def loss(
        self, picture: Tensor, mask: Tensor, glyphs: Tensor, target: Tensor, states: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of what is predicted at a random step of the noise, or of the velocity where the scheduler
        predicts that. ``target`` [B, 3, H, W], 0 to 1."""
        seen = self._seen(picture, mask, glyphs)
        latents = self._latents(target)
        noise = torch.randn_like(latents)
        steps = torch.randint(self.scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
        rows = self.condition(states, known)
        absent = torch.rand(len(rows), 1, 1, device=rows.device) < _DROPPED
        rows = torch.where(absent, self.condition.absent, rows)
        noisy = torch.cat([self.scheduler.add_noise(latents, noise, steps), seen], 1)
        predicted = self.unet(noisy, steps, encoder_hidden_states=rows).sample
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        wanted = self.scheduler.get_velocity(latents, noise, steps) if velocity else noise
        return F.mse_loss(predicted.float(), wanted.float())

    def _seen(self, picture: Tensor, mask: Tensor, glyphs: Tensor) -> Tensor:
        """What the U-Net sees beside the noise: latents of the picture, the mask, latents of the letters."""
        if any(side % _SCALE for side in picture.shape[-2:]):
            raise ValueError(f"the sides {tuple(picture.shape[-2:])} must be multiples of {_SCALE} pixels")
        latents = self._latents(picture)
        parts = [latents, F.max_pool2d(mask, _SCALE).to(latents.dtype)]
        if self.glyphs:
            parts.append(self._latents(glyphs.expand(-1, 3, -1, -1)))
        return torch.cat(parts, 1)

    @torch.no_grad()
    def _latents(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W], 0 to 1 -> [B, C, H / 8, W / 8]."""
        found = self.vae.encode((pixels * 2 - 1).to(self.vae.dtype)).latent_dist.mode()
        return found * self.vae.config.scaling_factor


def widened(unet: Any, glyphs: bool) -> Any:
    """The U-Net with input channels for picture, mask and letters, which begin at zero: it draws as before until it is
    trained. One that has them is left as it is."""
    latent = unet.config.out_channels
    wanted = latent * (3 if glyphs else 2) + 1
    old = unet.conv_in
    if old.in_channels == wanted:
        return unet
    new = nn.Conv2d(wanted, old.out_channels, old.kernel_size, padding=old.padding, device=old.weight.device)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new.to(old.weight.dtype)
    unet.register_to_config(in_channels=wanted)
    return unet
