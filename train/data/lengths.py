"""Samples whose image tokens alone are longer than a run's samples may be: nothing could be taught with them."""

from collections.abc import Sequence

from train.data.dataset import view_of
from train.recipe import RecipeError
from varytoy.data.sample import Sample, SampleError, image_size, open_image
from varytoy.processing.processor import VaryProcessor

_TEMPLATE = 512
"""More tokens than a template adds to a conversation."""


def check_images(samples: Sequence[Sample], processor: VaryProcessor, max_length: int) -> None:
    """Raises RecipeError naming the first sample whose images do not end within ``max_length`` tokens: cut there, it
    would be taught with half an image. Only headers are read of images that are small enough."""
    found: list[tuple[Sample, int]] = []
    most: dict[tuple, int] = {}
    for sample in samples:
        if not sample.images:
            continue
        key = (sample.folder, tuple(sample.images), view_of(sample))
        try:
            texts = sum(len(message["content"].encode()) for message in sample.messages)  # a token is a byte or more
            if key not in most:
                sizes = [image_size(path) for path in sample.image_paths()]
                most[key] = sum(_bound(size, processor) for size in sizes)
                if most[key] + texts + _TEMPLATE > max_length:
                    most[key] = sum(_planned(size, sample, processor) for size in sizes)
            if most[key] + texts + _TEMPLATE <= max_length:
                continue
            end = _end_of_images(sample, processor)
        except (SampleError, ValueError, OSError):
            continue  # counted when it is used
        if end > max_length:
            found.append((sample, end))
    if found:
        sample, end = found[0]
        others = f" ({len(found) - 1} more samples are like it)" if len(found) > 1 else ""
        raise RecipeError(
            f"{sample.name}: its images end at token {end:,}, over train.max_length={max_length}, and would be cut"
            f"{others}: raise train.max_length to at least {max(end for _, end in found):,}, or leave the sample out"
        )


def _planned(size: tuple[int, int], sample: Sample, processor: VaryProcessor) -> int:
    """Tokens of an image of this size, upright or turned."""
    return max(processor.image_processor.plan(each, view_of(sample)).tokens for each in (size, size[::-1]))


def _bound(size: tuple[int, int], processor: VaryProcessor) -> int:
    """Tokens that an image of this size has at most, without a plan."""
    settings = processor.image_processor
    if settings.latents:
        return settings.latents
    if settings.mode == "patches":
        return settings.max_patches
    if settings.mode == "squash":
        return -(-settings.size[0] // settings.stride[0]) * -(-settings.size[1] // settings.stride[1])
    side = settings.picture_side  # pictures may be enlarged to it
    width, height = (max(pixels, side) for pixels in size)
    down, across = settings.stride
    return (max(width, height) // min(down, across) + 1) * (min(width, height) // max(down, across) + 1)


def _end_of_images(sample: Sample, processor: VaryProcessor) -> int:
    """The number of the last image token, from 1, of the sample as it is encoded."""
    images = [open_image(path) for path in sample.image_paths()]  # upright, unlike the header's size
    plans = [processor.image_processor.plan(image.size, view_of(sample)) for image in images]
    ids, _ = processor.encode(sample.messages, plans, True)
    image = processor.tokenizer.convert_tokens_to_ids("<imgpad>")
    return len(ids) - ids[::-1].index(image) if image in ids else 0
