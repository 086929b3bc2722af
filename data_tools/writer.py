"""Render samples in parallel into a folder with ``samples.jsonl`` and ``images/``.

A renderer is a function of the sample's index alone, which seeds it. So the same command gives the same bytes with any
number of processes, and a longer run begins with the samples of a shorter one.
"""

import errno
import hashlib
import json
import multiprocessing.pool
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from varytoy.data.boxes import Box
from varytoy.data.samples import parse_sample
from varytoy.errors import room

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


@contextmanager
def samples_file(out: Path, overwrite: bool) -> Iterator[Callable[[dict], None]]:
    """Context: a function that adds a row to ``out/samples.jsonl``, which appears once all rows are written.

    Raises:
        FileExistsError: ``out`` already holds samples and ``overwrite`` is off.
    """
    target = out / "samples.jsonl"
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists: choose another folder or add --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # old rows must not refer to new images if this is interrupted
    unfinished = target.with_suffix(".part")
    try:
        with unfinished.open("w", encoding="utf-8") as lines:
            yield lambda row: print(json.dumps(row, ensure_ascii=False), file=lines)
        unfinished.replace(target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(error.errno, f"{error.strerror} ({room(out)})", str(error.filename or out)) from error


def write_samples(out: Path, count: int, render: Renderer, workers: int | None = None, overwrite: bool = False) -> int:
    """Render ``count`` images into ``out``. Returns the number of rows written; raises as ``samples_file``."""
    workers = workers or os.cpu_count() or 1
    one = partial(_write_one, out, render)
    written = 0
    with samples_file(out, overwrite) as add, _pool(workers) if workers > 1 else nullcontext() as pool:
        results = pool.imap(one, range(count), chunksize=8) if pool else map(one, range(count))
        for rows in tqdm(results, total=count, unit="picture", desc=out.name):
            for row in rows:
                add(row)
                written += 1
    return written


def _pool(workers: int) -> multiprocessing.pool.Pool:
    """Worker processes that ignore Ctrl-C; the main process ends them."""
    return multiprocessing.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def _write_one(out: Path, render: Renderer, index: int) -> list[dict]:
    image, rows = render(index)
    name = f"images/{index // 1000:03d}/{index:06d}.png"
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(out / name, compress_level=1)
    valid = []
    for row in rows:
        row = {**row, "images": [name]}
        parse_sample(row, out, f"sample {row.get('id', index)}")
        valid.append(row)
    return valid
