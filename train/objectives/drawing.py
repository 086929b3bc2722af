"""Drawing: trains an image decoder (varytoy.models.image_decoder) on samples of the tasks erase, edit and generate.

The decoder gets the sample's image, the box as mask, the wanted text as glyphs and the language model's states before
the answer; ``target_images`` are the picture to draw and, if that has a text, the same without it.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from train.objectives import base
from varytoy.data.sample import Sample, SampleError
from varytoy.models.config import VaryConfig
from varytoy.models.diffusion_decoder import DiffusionDecoder
from varytoy.models.image_decoder import Drawn, TextUNet, TextUNetConfig, mask_of, pixels_of
from varytoy.processing.glyphs import draw_glyphs
from varytoy.tasks import TASKS

_FAINT, _CLEAR = 10.0, 60.0
"""Difference between a picture with and without a text, of 255, below which there is no letter, and from which a letter
covers all."""


@base.register
class Drawing(base.Objective):
    """Targets of the rows that draw, all of one size: ``drawing.rows`` [N] in the batch and ``drawing.lengths`` [N] of
    their prompts in tokens; ``.picture``, ``.target`` and ``.clean`` [N, 3, H, W], ``.mask`` and ``.glyphs``
    [N, 1, H, W], 0 to 1."""

    name = "drawing"
    has_head = True

    @dataclass
    class Settings(base.Settings):
        weight: float = 0.0
        channels: list[int] = field(default_factory=lambda: [48, 96, 128, 160])
        """Of the decoder's levels."""
        blocks: int = 1
        latents: int = 16
        glyphs: bool = True
        """Whether it sees the wanted letters."""
        diffusion: str = ""
        """Folder of a Stable Diffusion checkpoint in diffusers' layout, which is trained to draw in place of the small
        U-Net."""

    def setup(self, model, frozen):
        return self.decoder(model.config.text_config.hidden_size)

    def decoder(self, state_size: int) -> TextUNet | DiffusionDecoder:
        """One to be trained. ``state_size``: width of the language model."""
        settings = self.settings
        if settings.diffusion:
            return DiffusionDecoder.from_folder(Path(settings.diffusion), state_size, glyphs=settings.glyphs)
        shape = {name: getattr(settings, name) for name in ("channels", "blocks", "latents", "glyphs")}
        return TextUNet(TextUNetConfig(state_size=state_size, **shape))

    def targets(self, items, batch, processor):
        rows = [row for row, item in enumerate(items) if TASKS[item.sample.task].view == "drawing"]
        if not rows:
            return {}
        drawn = [pictures_of(items[row].sample, items[row].images[0]) for row in rows]
        sizes = {each["picture"].shape for each in drawn}
        if len(sizes) > 1:
            raise SampleError(f"{items[rows[0]].sample.name}: the images of a batch to draw in must have one size")
        lengths = [base.answer_starts(batch["labels"][row])[0] for row in rows]
        stacked = {f"drawing.{name}": torch.stack([each[name] for each in drawn]) for name in drawn[0]}
        return stacked | {"drawing.rows": torch.tensor(rows), "drawing.lengths": torch.tensor(lengths)}

    def losses(self, model, head, state):
        names = ("rows", "lengths", "picture", "target", "clean", "mask", "glyphs")
        targets = {name: state.targets[f"drawing.{name}"] for name in names}
        longest = int(targets["lengths"].max())
        states = state.hidden[targets["rows"], :longest]
        known = torch.arange(longest, device=states.device) < targets["lengths"][:, None]
        seen = (targets["picture"], targets["mask"], targets["glyphs"])
        if isinstance(head, DiffusionDecoder):
            return {"drawing": head.loss(*seen, targets["target"], states, known)}
        drawn = head(*seen, states, known)
        return {"drawing": drawing_loss(drawn, targets["target"], targets["clean"], targets["mask"])}


def export_decoder(run: Path, out: Path) -> int:
    """Write the image decoder of a run to a folder with fp16 weights. Returns their size in bytes.

    Raises:
        RecipeError: the run trained none.
    """
    from train.recipe import RecipeError, read_recipe

    settings = read_recipe(run / "recipe.yaml").objectives.get("drawing")
    weights = run / "training_heads.safetensors"
    if settings is None or not weights.is_file():
        raise RecipeError(f"{run} has no image decoder: its recipe lacks the objective 'drawing', or it has not ended")
    if settings.diffusion:
        raise RecipeError(f"{run} trained a diffusion model, which is not exported yet: its weights are in {weights}")
    decoder = Drawing(settings).decoder(VaryConfig.from_pretrained(run).text_config.hidden_size)
    state = load_file(weights)
    start = f"heads.{Drawing.name}."
    decoder.load_state_dict({name.removeprefix(start): each for name, each in state.items() if name.startswith(start)})
    decoder.half().save_pretrained(out)
    return (out / "model.safetensors").stat().st_size


def pictures_of(sample: Sample, image: Image.Image) -> dict[str, Tensor]:
    """The tensors of one sample. Raises SampleError for one without box or target, or of other sizes."""
    targets = sample.open_target_images()
    if not targets or not sample.boxes:
        raise SampleError(f"{sample.name}: '{sample.task}' needs a box and 'target_images'; render word-pairs")
    if any(target.size != image.size for target in targets):
        raise SampleError(f"{sample.name}: image and target_images must have one size")
    box = sample.boxes[0].to_pixels(*image.size)
    mask = mask_of(box, image.size)
    glyphs, text = torch.zeros_like(mask), sample.annotations.wanted_text
    if text:
        glyphs = pixels_of(draw_glyphs(text, box, image.size))
    return {
        "picture": pixels_of(image),
        "target": pixels_of(targets[0]),
        "clean": pixels_of(targets[-1]),
        "mask": mask,
        "glyphs": glyphs,
    }


def drawing_loss(drawn: Drawn, target: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute errors inside the mask: of the picture, of its edges and of the background; and the cross-entropy
    of the letters' coverage, which is known from the difference of the pictures."""
    area = mask.sum().clamp(min=1)
    picture = ((drawn.picture - target).abs() * mask).sum() / (3 * area)
    background = ((drawn.background - clean).abs() * mask).sum() / (3 * area)
    letters = ((target - clean).abs().amax(1, keepdim=True) * 255 - _FAINT) / (_CLEAR - _FAINT)
    coverage = F.binary_cross_entropy_with_logits(drawn.coverage, letters.clamp(0, 1), reduction="none")
    steps = [(drawn.picture.diff(dim=side) - target.diff(dim=side)).abs() for side in (2, 3)]
    edges = (steps[0] * mask[:, :, 1:]).sum() + (steps[1] * mask[..., 1:]).sum()
    return picture + background + 0.5 * edges / (3 * area) + 0.2 * (coverage * mask).sum() / area
