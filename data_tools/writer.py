"""Make units in parallel and add them to an output in order.

What makes a unit is a function of its item alone: a renderer is seeded by the image's index. So the same command gives
the same bytes with any number of processes, and a longer run begins with the samples of a shorter one.
"""

import hashlib
import io
import itertools
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm

from data_tools.output import Output, Unit
from varytoy.data.boxes import Box
from varytoy.data.samples import parse_sample

Item = TypeVar("Item")
Pictures = Mapping[str, Image.Image]
"""Several images of a unit, by their names."""
Renderer = Callable[[int], tuple[Image.Image | Pictures, list[dict]]]
"""index -> the image and the rows about it; a row is a sample without ``images``, which the writer fills in. Of several
images the rows have the names in ``images`` and ``target_images``, in whose place the writer puts the files'."""
IMAGE_FORMATS: Mapping[str, dict[str, Any]] = {
    "png": {"compress_level": 1},
    "jpeg": {"quality": 90},
    "webp": {"quality": 85, "method": 2},
}
"""Format and file suffix -> Pillow's settings for it."""
Mapped = Callable[[Callable[[Any], Unit], Iterable[Any], int, int], AbstractContextManager[Iterable[Unit]]]
"""(make, items, workers, chunk) -> a context: the units, in the order of the items."""
_AHEAD = 8
"""Chunks of items that each process may be ahead of the output."""
_REPORTED = 10
"""Number of dropped samples that are reported one by one."""


def generator(seed: int, *names: object) -> random.Random:
    """A random generator seeded by the arguments alone."""
    text = ":".join(str(part) for part in (seed, *names))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def of_split(make: Callable[[], str], split: str) -> str:
    """Made-up content of a split: ``make`` is called until it is."""
    content = make()
    while not in_split(content, split):
        content = make()
    return content


def in_split(content: str, split: str) -> bool:
    """Whether made-up content belongs to ``train`` or ``test``: a tenth, by its hash, is for tests alone."""
    held_out = int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") % 10 == 0
    return held_out == (split == "test")


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


def render_into(
    output: Output, count: int, render: Renderer, workers: int | None = None, image_format: str = "png"
) -> int:
    """Render the images that an output lacks of ``count``. Returns the number of samples in it."""
    make = partial(_unit, output.out, render, image_format)
    produce(output, make, range(count), count, workers, "picture", chunk=8)
    return output.kept


def produce(
    output: Output,
    make: Callable[[Item], Unit],
    items: Iterable[Item],
    total: int | None = None,
    workers: int | None = None,
    unit: str = "image",
    limit: int | None = None,
    chunk: int = 1,
    review: Callable[[Any], None] | None = None,
    mapped: Mapped | None = None,
) -> None:
    """Add the unit of each item that the output lacks, in the order of the items, with a progress bar, and close it.

    Args:
        make: item -> unit; picklable if there are several workers.
        total: number of items, if known.
        workers: processes (default: all cores).
        unit: what an item is, for the progress bar.
        limit: number of samples after which to stop.
        chunk: items that a process takes at once.
        review: called with each unit in this process, in order, before it is added; may change it.
        mapped: makes the units elsewhere than in processes of this machine.
    """
    workers, mapped = workers or os.cpu_count() or 1, mapped or _mapped
    left, reported = itertools.islice(items, output.units, None), 0
    with output:
        if limit is not None and output.kept >= limit:
            return
        with mapped(make, left, workers, chunk) as units:
            for each in tqdm(units, initial=output.units, total=total, unit=unit, desc=output.out.name):
                if review:
                    review(each)
                for error in each.errors[: max(_REPORTED - reported, 0)]:
                    tqdm.write(f"dropped: {error}", file=sys.stderr)
                reported += len(each.errors)
                if limit is not None:
                    each.rows = each.rows[: limit - output.kept]
                output.add(each)
                if output.kept == limit:
                    break


@contextmanager
def _mapped(make: Callable[[Item], Unit], items: Iterable[Item], workers: int, chunk: int) -> Iterator[Iterator[Unit]]:
    """Context: the units in order. Items are taken as units are used, so that neither pile up in memory."""
    if workers == 1:
        yield map(make, items)
        return
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}  # this process ends them
    pool = ProcessPoolExecutor(workers, **ignore)
    try:
        yield _units(pool, make, iter(items), workers, chunk)
    finally:
        pool.shutdown(cancel_futures=True)


def _units(pool: Executor, make: Callable[[Item], Unit], items: Iterator[Item], workers: int, chunk: int):
    """The units in order. An error of ``items`` is raised after the units of those before it."""
    waiting: deque[Future] = deque()
    failed: list[Exception] = []
    while True:
        while len(waiting) < workers * _AHEAD and not failed and (part := _take(items, chunk, failed)):
            waiting.append(pool.submit(_make_all, make, part))
        if not waiting:
            if failed:
                raise failed[0]
            return
        try:
            yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process was ended, perhaps for its memory: add --resume to go on"
            ) from error


def _take(items: Iterator[Item], chunk: int, failed: list[Exception]) -> list[Item]:
    part: list[Item] = []
    try:
        part.extend(itertools.islice(items, chunk))
    except Exception as error:
        failed.append(error)
    return part


def _make_all(make: Callable[[Item], Unit], items: Sequence[Item]) -> list[Unit]:
    return [make(item) for item in items]


def inside(folder: Path, name: str) -> str:
    """A path in a folder, without ``..``. Raises ValueError for one that leaves it."""
    return (folder / name).resolve().relative_to(folder.resolve()).as_posix()


def encode(image: Image.Image, image_format: str) -> bytes:
    """The bytes of an image file in one of ``IMAGE_FORMATS``."""
    data = io.BytesIO()
    image.save(data, image_format, **IMAGE_FORMATS[image_format])
    return data.getvalue()


def _unit(out: Path, render: Renderer, image_format: str, index: int) -> Unit:
    rendered, rows = render(index)
    images = rendered if isinstance(rendered, Mapping) else {"": rendered}
    start = f"images/{index // 1000:03d}/{index:06d}"
    files = {name: f"{start}{'-' * bool(name)}{name}.{image_format}" for name in images}
    keys = ("images", "target_images")
    named = [{key: [files[name] for name in row[key]] for key in keys if key in row} for row in rows]
    rows = [
        row | ({"images": [*files.values()]} if row.keys().isdisjoint(keys) else names)
        for row, names in zip(rows, named, strict=True)
    ]
    for row in rows:
        parse_sample(row, out, f"sample {row.get('id', index)}")
    return Unit({files[name]: encode(image, image_format) for name, image in images.items()}, rows)
