"""Erase, replace and write text in a place of a picture, with a checkpoint's image decoder.

The place is cut out, upright and at the decoder's height, drawn in, and laid back with a soft edge. Pixels outside the
place stay as they are.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from varytoy.checkpoints.loading import ModelError
from varytoy.data.answer import Answer, Region
from varytoy.data.boxes import Coordinates
from varytoy.data.pictures import to_rgb
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.errors import first_line
from varytoy.inference.asking import Options
from varytoy.inference.engine import Engine, ModelEngine, Request
from varytoy.inference.shared import LockedEngine, SharedEngine
from varytoy.layout.frames import find_place
from varytoy.models.image_decoder import TextUNet, mask_of, pixels_of
from varytoy.processing.glyphs import LEAST, draw_glyphs
from varytoy.tasks import get_task

NOTE = "Text in this picture was changed with varytoy."
"""Written into the files of pictures that were drawn in."""
_WIDTH = 256
"""Of the cut-out in pixels, as in training, if the place is not very wide."""
_FILLS = 0.9, 0.75
"""Largest share of the cut-out's width and height that the place takes, as in training."""
_LEAST = 4
"""Sides of a place in pixels below which nothing can be drawn."""
_SOFT = 2.0
"""Pixels over which the edge of the place is soft, towards its inside."""
_FAINT = 0.02
"""Change of a pixel, of its range, below which the original is kept, where the place was made smaller."""


@dataclass(frozen=True)
class _Window:
    """The part of a picture that is cut out: ``left``, ``top`` and ``scale`` (its pixels for each of the picture's);
    ``size``: (width, height) of the cut-out; ``box``: of the place in it."""

    left: float
    top: float
    scale: float
    size: tuple[int, int]
    box: Coordinates


class Drawer:
    """Draws in pictures.

    Args:
        decoder: the image decoder.
        engine: of the language model whose states it was trained with.
    """

    def __init__(self, decoder: TextUNet, engine: ModelEngine):
        self.decoder, self.engine = decoder.eval().to(engine.model.device), engine

    @classmethod
    def beside(cls, folder: Path, engine: Engine) -> "Drawer":
        """The image decoder in a folder, with the engine of the language model beside it.

        Raises:
            ModelError: the folder is damaged, or the engine runs no model of this project.
        """
        engine = engine.engine if isinstance(engine, (SharedEngine, LockedEngine)) else engine
        if not isinstance(engine, ModelEngine):
            raise ModelError(f"{folder} is an image decoder without a language model of this project beside it")
        try:
            return cls(TextUNet.from_pretrained(folder, dtype=torch.float32), engine)
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot load the image decoder {folder}: {first_line(error)}") from error

    def erase(self, image: Image.Image, box: Coordinates) -> Image.Image:
        """The picture without the text in a box (x1, y1, x2, y2 in pixels). Raises ValueError as ``draw``."""
        return self.draw(image, "erase", box)

    def edit(self, image: Image.Image, box: Coordinates, text: str) -> Image.Image:
        """The picture with other words in place of those in a box, in their style. Raises ValueError as ``draw``."""
        return self.draw(image, "edit", box, text)

    def write(self, image: Image.Image, box: Coordinates, text: str) -> Image.Image:
        """The picture with words in an empty box. Raises ValueError as ``draw``."""
        return self.draw(image, "generate", box, text)

    def answer(self, image: Image.Image, options: Options) -> Answer:
        """The answer of a task that draws in ``options.place``. Raises ValueError as ``draw``, or without a place."""
        if options.place is None:
            raise ValueError(f"the task '{options.task.name}' needs the place of the text: give it as place")
        box = find_place(options.place, image)
        drawn = self.draw(image, options.task.name, box, options.argument)
        return Answer(options.argument, [Region(box)], image=drawn, size=image.size)

    def draw(self, image: Image.Image, task: str, box: Coordinates, text: str = "") -> Image.Image:
        """The picture, RGB, after a task: ``erase``, ``edit`` or ``generate``.

        Raises:
            ValueError: a box that is too small or not in the picture, a text that does not fit in or that has letters
                which cannot be written, words for ``erase`` or none for the others.
        """
        image = to_rgb(image)
        chosen, text = get_task(task), " ".join(text.split())
        prompt = chosen.prompt(text)
        box = _inside(box, image.size)
        window = _window(box, image.size, self.decoder.config.height, self.decoder.config.stride)
        glyphs = Image.new("L", window.size)
        if text:
            glyphs = draw_glyphs(text, window.box, window.size, LEAST * max(window.scale, 1.0))
        cut = _cut(image, window)
        with torch.inference_mode():
            states = self._states(cut, prompt)
            inputs = (pixels_of(cut), mask_of(window.box, window.size), pixels_of(glyphs))
            drawn = self.decoder(*(each[None].to(states.device) for each in inputs), states).picture[0]
        return _laid(image, cut, drawn.permute(1, 2, 0).cpu().numpy(), window, box)

    def _states(self, cut: Image.Image, prompt: str) -> Tensor:
        """The language model's states [1, T, D] before its answer."""
        message = {"role": "user", "content": f"{IMAGE_PLACEHOLDER}\n{prompt}"}
        inputs, _ = self.engine.encode([Request([message], [cut], "drawing")])
        model = self.engine.model
        pixels = {name: value.to(model.device) for name, value in inputs.items() if "pixel" in name or "sizes" in name}
        ids = inputs["input_ids"].to(model.device)
        features = model.run_branches(**pixels)  # not from the model's memory, which belongs to the engine's thread
        embeddings = model.fuse(ids, model.connect(features, pixels.get("image_sizes")))
        outputs = model.language_model.base_model(inputs_embeds=embeddings, use_cache=False)
        return outputs.last_hidden_state.float()


def save(image: Image.Image, target: Path) -> None:
    """Write a picture that was drawn in, with ``NOTE`` in it.

    Raises:
        OSError, ValueError: it cannot be written there, or not in this format.
    """
    if target.suffix.lower() == ".png":
        target.write_bytes(png(image))
    else:
        exif = Image.Exif()
        exif[0x010E] = NOTE  # ImageDescription
        image.save(target, exif=exif, quality=95)


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file with ``NOTE`` in it."""
    note, data = PngInfo(), io.BytesIO()
    note.add_text("Description", NOTE)
    image.save(data, "PNG", pnginfo=note)
    return data.getvalue()


def _inside(box: Coordinates, size: tuple[int, int]) -> Coordinates:
    """The box as far as it is in the picture, in whole pixels. Raises ValueError for one without area."""
    x1, y1, x2, y2 = (round(side) for side in box)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, size[0]), min(y2, size[1])
    if x2 - x1 < _LEAST or y2 - y1 < _LEAST:
        raise ValueError(
            f"the place {', '.join(f'{side:g}' for side in box)} has less than {_LEAST} x {_LEAST} pixels in this "
            f"picture of {size[0]} x {size[1]}: give x1, y1, x2, y2 around the text"
        )
    return x1, y1, x2, y2


def _window(box: Coordinates, size: tuple[int, int], height: int, stride: int) -> _Window:
    """The cut-out around a box, as large as those of the training."""
    x1, y1, x2, y2 = box
    across, down = _FILLS
    scale = down * height / (y2 - y1)
    scale = min(scale, max(across * _WIDTH / (x2 - x1), 0.45 * height / (y2 - y1)))
    width = max(_WIDTH, -(-round((x2 - x1) * scale / across) // stride) * stride)
    left = (x1 + x2) / 2 - width / scale / 2
    top = (y1 + y2) / 2 - height / scale / 2
    placed = tuple((side - start) * scale for side, start in zip(box, (left, top, left, top), strict=True))
    return _Window(left, top, scale, (width, height), placed)


def _cut(image: Image.Image, window: _Window) -> Image.Image:
    """The cut-out; what lies outside the picture repeats its edge."""
    wide, high = (side / window.scale for side in window.size)
    edges = (-window.left, -window.top, window.left + wide - image.width, window.top + high - image.height)
    left, top, right, bottom = (max(int(np.ceil(side)) + 1, 0) if side > 0 else 0 for side in edges)
    if left or top or right or bottom:
        pixels = np.pad(np.asarray(image), ((top, bottom), (left, right), (0, 0)), mode="edge")
        image = Image.fromarray(pixels)
    start = (window.left + left, window.top + top)
    part = (*start, min(start[0] + wide, image.width), min(start[1] + high, image.height))
    return image.resize(window.size, Image.Resampling.LANCZOS if window.scale < 1 else Image.Resampling.BICUBIC, part)


def _laid(image: Image.Image, cut: Image.Image, drawn: np.ndarray, window: _Window, box: Coordinates) -> Image.Image:
    """The picture with what was drawn in the box. Where the place was made smaller, pixels that were not changed keep
    their finer detail."""
    x1, y1, x2, y2 = box
    size = (x2 - x1, y2 - y1)
    share = _soft(size)
    if window.scale < 1:
        change = np.abs(drawn - np.asarray(cut, np.float32) / 255).max(2)
        changed = Image.fromarray((np.clip(change / _FAINT - 1, 0, 1) * 255).astype(np.uint8))
        grown = changed.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.GaussianBlur(0.7))
        share = share * (np.asarray(grown.resize(size, Image.Resampling.BILINEAR, window.box), np.float32) / 255)
    pixels = Image.fromarray((np.clip(drawn, 0, 1) * 255).round().astype(np.uint8))
    new = np.asarray(pixels.resize(size, Image.Resampling.BICUBIC, window.box), np.float32)
    old = np.asarray(image.crop(box), np.float32)
    laid = old + (new - old) * share[..., None]
    result = image.copy()
    result.paste(Image.fromarray(laid.round().astype(np.uint8)), (x1, y1))
    return result


def _soft(size: Sequence[int]) -> np.ndarray:
    """[height, width], 1 inside and falling to 0 at the edges."""
    across, down = (np.minimum(np.arange(side) + 0.5, side - 0.5 - np.arange(side)) / _SOFT for side in size)
    return np.minimum(np.clip(across, 0, 1)[None, :], np.clip(down, 0, 1)[:, None]).astype(np.float32)
