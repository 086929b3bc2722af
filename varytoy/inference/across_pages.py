"""Several pages as one answer in one pass, as GOT-OCR2 reads them."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from varytoy.data.answer import Answer
from varytoy.data.documents import Source, open_pages
from varytoy.data.sample import IMAGE_PLACEHOLDER
from varytoy.inference.engine import Request
from varytoy.inference.reader import Reader
from varytoy.processing.tiling import Tiling, across_pages
from varytoy.tasks import get_task


def read_across(
    reader: Reader,
    source: Source | Sequence[Source],
    task: str = "markdown",
    max_new_tokens: int = 1024,
    cancel: threading.Event | None = None,
    password: str | None = None,
    resolution: int = 0,
) -> Answer:
    """The pages of a document, or several pictures, as one text. It has no regions: the model gives no places.

    ``resolution``: pixels of a page's side for the model, 0 for its own.

    Raises:
        ValueError: a model that keeps the shape of pages (read them one by one), another task than reading, or more
            pages than the model's context holds.
        DocumentError: a page cannot be opened.
    """
    chosen = get_task(task)
    if chosen.view != "text":
        raise ValueError(f"several pages at once are read, and not asked for '{task}'")
    start, pixels = time.perf_counter(), reader.processor.image_processor
    side = pixels.check_side(resolution) if resolution else pixels.tile_side
    sources = source if isinstance(source, (list, tuple)) else [source]
    images = [page.image for each in sources for page in open_pages(each, password=password)]
    strip = Image.new("RGB", (side, side * len(images)))
    for number, image in enumerate(images):
        strip.paste(image.resize((side, side), Image.Resampling.BICUBIC), (0, number * side))
    prompt = reader.prompt_of(chosen)
    asked = across_pages(prompt) if len(images) > 1 else prompt
    messages = [{"role": "user", "content": f"{IMAGE_PLACEHOLDER}\n{asked}"}]
    request = replace(
        Request.of(chosen, messages, [strip], max_new_tokens), tiling=Tiling(1, len(images), side=resolution)
    )
    said = reader.engine.generate([request], None, cancel) or [Answer("", stop_reason="cancelled")]
    answer = chosen.parse(said[0].text, images[0].size)
    raw = {name: getattr(said[0], name) for name in ("stop_reason", "confidence", "tokens", "prompt_tokens", "loops")}
    return replace(answer, **raw, size=images[0].size, seconds=time.perf_counter() - start)
