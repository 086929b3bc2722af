"""VaryImageProcessor: images -> pixel tensors for both vision branches."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from varytoy.layout.fitting import fit_text
from varytoy.layout.page import PageLayout
from varytoy.processing.patches import own_scale, patch_grid, resampled
from varytoy.processing.plan import ImagePlan
from varytoy.processing.tiling import WHOLE, Tiling

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
MAX_SIDE = 4096
"""The largest side of a square image that can be asked for. DeepSeek-OCR's largest is 1,280."""


class VaryImageProcessor(BaseImageProcessor):
    """Prepares images for both vision branches.

    Args:
        mode: ``"squash"`` resizes to ``size`` ignoring the aspect ratio (the published models); ``"fit"`` keeps it;
            ``"patches"`` keeps it and takes about the same number of tokens for each image (KOSMOS-2.5).
        size: (height, width) for ``"squash"``.
        stride: pixels per token, (vertical, horizontal); images are padded to multiples of it.
        max_pixels: ``"fit"``: larger images of text are downscaled to this.
        picture_side: ``"fit"``: the longer side of a scene.
        text_size: ``"fit"``: the x-height, in pixels, at which the model reads blocks of text best.
        cell_size: ``"fit"``: the x-height at which it reads single lines and cells of a page best; 0 for ``text_size``.
        least_confidence: ``"fit"``: lines of a page read with less confidence are no text and left out (0 to 1).
        max_patches: ``"patches"``: most grid positions of an image; all images are resized to nearly as many.
        standardize: whether each image is normalised by its own mean and standard deviation, in place of ``mean`` and
            ``std`` (KOSMOS-2.5).
        latents: tokens per image if the connector makes a fixed number of them; 0 for one per grid position.
        clip_size: side for the CLIP branch; 0 when there is none.
        clip_mode: ``"crop"`` (shortest edge, then centre crop) or ``"squash"``.
        mean, std: normalisation for the vision vocabulary.
        clip_mean, clip_std: normalisation for the CLIP branch; another than CLIP's only if its weights want it.
    """

    model_input_names = ["pixel_values", "image_sizes", "clip_pixel_values"]

    def __init__(
        self,
        mode: str = "squash",
        size: Sequence[int] = (1024, 1024),
        stride: Sequence[int] = (64, 64),
        max_pixels: int = 1024 * 1024,
        picture_side: int = 224,
        text_size: float = 8.0,
        cell_size: float = 0.0,
        least_confidence: float = 0.0,
        max_patches: int = 1024,
        standardize: bool = False,
        latents: int = 0,
        clip_size: int = 224,
        clip_mode: str = "crop",
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        clip_mean: Sequence[float] = CLIP_MEAN,
        clip_std: Sequence[float] = CLIP_STD,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mode, self.size, self.stride = mode, tuple(size), tuple(stride)
        self.max_pixels, self.picture_side = max_pixels, picture_side
        self.text_size, self.cell_size = text_size, cell_size
        self.least_confidence, self.latents = least_confidence, latents
        self.max_patches, self.standardize = max_patches, standardize
        self.clip_size, self.clip_mode = clip_size, clip_mode
        self.mean, self.std = tuple(mean), tuple(std)
        self.clip_mean, self.clip_std = tuple(clip_mean), tuple(clip_std)

    def __call__(self, images: Sequence[Image.Image], plans: Sequence[ImagePlan] | None = None) -> BatchFeature:
        """RGB images and their plans (by default those of text) -> pixel_values [I, 3, H, W] padded to the largest,
        image_sizes [I, 2] and, with a CLIP branch, clip_pixel_values [I, 3, S, S]; I counts tiles."""
        plans = [self.plan(image.size, "text") for image in images] if plans is None else plans
        tiles = [tile for image, plan in zip(images, plans, strict=True) for tile in self._tiles(image, plan)]
        sizes = torch.tensor([plan.grid for _, plan in tiles]) * torch.tensor(self.stride)
        height, width = sizes.amax(0).tolist()
        pixels = torch.zeros(len(tiles), 3, height, width)
        for row, (image, plan) in zip(pixels, tiles, strict=True):
            own = self._vocabulary_pixels(image, plan)
            row[:, : own.shape[1], : own.shape[2]] = own
        tensors = {"pixel_values": pixels, "image_sizes": sizes}
        if self.clip_size:
            clip = [
                _normalise(np.asarray(self._clip_image(image)), self.clip_mean, self.clip_std) for image, _ in tiles
            ]
            tensors["clip_pixel_values"] = torch.stack(clip)
        return BatchFeature(tensors)

    @property
    def line_size(self) -> float:
        """The x-height at which single lines and cells are read."""
        return self.cell_size or self.text_size

    def fit(self, image: Image.Image) -> Image.Image:
        """An RGB image of text at the text size and with the margins that the model was trained on (only in mode
        ``"fit"``). More text than fits in one pass is only scaled: ``Reader`` reads pages cell by cell."""
        if self.mode != "fit":
            return image
        page = PageLayout(image)
        return fit_text(page, self.text_size, page.one_pass(self.text_size, self.max_pixels))

    def plan(self, size: tuple[int, int], view: str, tiling: Tiling = WHOLE) -> ImagePlan:
        """The plan for an image of ``size`` (width, height) pixels.

        Raises:
            ValueError: an image without pixels; tiles or a side of them in another mode than ``"squash"``, of a size
                that is no square, or with a side that is not made of whole tokens.
        """
        if min(size) < 1:
            raise ValueError(f"an image has no pixels ({size[0]} x {size[1]}): leave it out")
        if tiling != WHOLE:
            side = self.check_side(tiling.side) if tiling.side else self.tile_side
            return ImagePlan.tiled(size, view, side, tiling, self.stride, self.latents)
        return ImagePlan.whole(size, view, self._scaled_size(size, view), self.stride, self.latents)

    @property
    def square(self) -> int:
        """Side in pixels of the square that images are resized to; 0 for models that take other shapes."""
        return self.size[0] if self.mode == "squash" and self.size[0] == self.size[1] else 0

    @property
    def tile_side(self) -> int:
        """Pixels of a tile. Raises ValueError for a model that takes none."""
        self._check_square("tiles")
        return self.square

    def check_side(self, side: int) -> int:
        """``side``, in pixels, if images can be resized to a square of it. Raises ValueError."""
        self._check_square("resolution")
        if not 0 < side <= MAX_SIDE or any(side % step for step in self.stride):
            steps, step = " and ".join(map(str, sorted(set(self.stride)))), math.lcm(*self.stride)
            lower = min(max(side // step, 1), MAX_SIDE // step) * step
            near = f"{lower} or {lower + step}" if step < side < MAX_SIDE // step * step else f"{lower}"
            raise ValueError(
                f"a resolution of {side} pixels: it must be a multiple of {steps}, at most {MAX_SIDE}, such as {near}"
            )
        return side

    def _check_square(self, option: str) -> None:
        if self.mode == "patches":
            raise ValueError(f"this model takes whole pages in their own shape: leave the {option} out")
        if not self.square:
            raise ValueError(f"this model keeps the shape of pages and reads them line by line: leave the {option} out")

    def _tiles(self, image: Image.Image, plan: ImagePlan) -> list[tuple[Image.Image, ImagePlan]]:
        """The images that the encoders get, each with its own plan."""
        if len(plan.tiles) == 1:
            return [(image, plan)]
        left, _, right, _ = plan.tiles[0].box
        side = right - left
        own = ImagePlan.tiled((side, side), plan.view, side, WHOLE, self.stride, self.latents)
        whole = image if image.size == plan.scaled else image.resize(plan.scaled, Image.Resampling.BICUBIC)
        return [(image if box == (0, 0, *plan.scaled) else whole.crop(box), own) for box, _ in plan.tiles]

    def _scaled_size(self, size: tuple[int, int], view: str) -> tuple[int, int]:
        """(width, height) to which an image is resized for the vision vocabulary, before padding."""
        width, height = size
        if self.mode == "squash":
            return self.size[1], self.size[0]
        if self.mode == "patches":
            rows, columns = patch_grid(size, self.stride, self.max_patches)
            return columns * self.stride[1], rows * self.stride[0]
        if view == "picture":
            down, across = self.stride
            scale = self.picture_side / max(size)
            return max(round(width * scale / across), 1) * across, max(round(height * scale / down), 1) * down
        scale = min((self.max_pixels / (width * height)) ** 0.5, 1.0)
        return (width, height) if scale == 1.0 else (max(int(width * scale), 1), max(int(height * scale), 1))

    def _vocabulary_pixels(self, image: Image.Image, plan: ImagePlan) -> torch.Tensor:
        """[3, H, W], normalised, padded with the edge's colour to multiples of the stride."""
        mean, std = own_scale(image) if self.standardize else (self.mean, self.std)
        if self.mode == "patches":
            return resampled(image, plan.scaled, mean, std)
        if plan.scaled != image.size:
            shrinks = self.mode == "fit" and plan.view == "text"
            image = image.resize(plan.scaled, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC)
        array = np.asarray(image)
        below, beside = -array.shape[0] % self.stride[0], -array.shape[1] % self.stride[1]
        return _normalise(np.pad(array, ((0, below), (0, beside), (0, 0)), mode="edge"), mean, std)

    def _clip_image(self, image: Image.Image) -> Image.Image:
        side = self.clip_size
        if self.clip_mode == "squash":
            return image.resize((side, side), Image.Resampling.BICUBIC)
        scale = side / min(image.size)
        image = image.resize(
            (max(round(image.width * scale), side), max(round(image.height * scale), side)), Image.Resampling.BICUBIC
        )
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))


def _normalise(array: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """[H, W, 3] bytes -> [3, H, W] floats."""
    scaled = (np.asarray(array, np.float32) / 255.0 - np.float32(mean)) / np.float32(std)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
