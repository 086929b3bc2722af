"""Render samples in parallel into a folder with ``samples.jsonl`` and ``images/``.

A renderer is a function of the sample's index alone, which seeds it. So the same command gives the same bytes with any
number of processes, and a longer run begins with the samples of a shorter one.
"""

import hashlib
import io
import multiprocessing.pool
import os
import random
import signal
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data_tools.output import Output, Unit
from varytoy.data.boxes import Box
from varytoy.data.samples import parse_sample

Renderer = Callable[[int], tuple[Image.Image, list[dict]]]
"""index -> the image and the rows about it; a row is a sample without ``images``, which the writer fills in."""


def generator(seed: int, *names: object) -> random.Random:
    """A random generator seeded by the arguments alone."""
    text = ":".join(str(part) for part in (seed, *names))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def question_row(
    task: str,
    prompt: str,
    answer: str,
    boxes: Iterable[Box] = (),
    annotations: dict | None = None,
    metadata: dict | None = None,
) -> dict:
    """A row about one image, without id and image name; what is empty is left out."""
    messages = [{"role": "user", "content": f"<image>\n{prompt}"}, {"role": "assistant", "content": answer}]
    rest = {"boxes": [box.to_json() for box in boxes], "annotations": annotations, "metadata": metadata}
    return {"task": task, "messages": messages} | {key: value for key, value in rest.items() if value}


def write_samples(out: Path, count: int, render: Renderer, workers: int | None = None, overwrite: bool = False) -> int:
    """Render ``count`` images into ``out``. Returns the number of samples; raises as ``Output``."""
    return render_into(Output(out, {"count": count}, overwrite=overwrite), count, render, workers)


def render_into(output: Output, count: int, render: Renderer, workers: int | None = None) -> int:
    """Render the images that an output lacks of ``count``. Returns the number of samples in it."""
    workers = workers or os.cpu_count() or 1
    one, left = partial(_unit, output.out, render), range(output.units, count)
    with output, _pool(workers) if workers > 1 else nullcontext() as pool:
        units = pool.imap(one, left, chunksize=8) if pool else map(one, left)
        for unit in tqdm(units, initial=output.units, total=count, unit="picture", desc=output.out.name):
            output.add(unit)
    return output.kept


def _pool(workers: int) -> multiprocessing.pool.Pool:
    """Worker processes that ignore Ctrl-C; the main process ends them."""
    return multiprocessing.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def _unit(out: Path, render: Renderer, index: int) -> Unit:
    image, rows = render(index)
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    name = f"images/{index // 1000:03d}/{index:06d}.png"
    rows = [{**row, "images": [name]} for row in rows]
    for row in rows:
        parse_sample(row, out, f"sample {row.get('id', index)}")
    return Unit({name: data.getvalue()}, rows)
