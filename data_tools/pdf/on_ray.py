"""Units made on a Ray cluster by Ray Data, in order; near-duplicates and writing stay with the program."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.pdf.pages import PageItem, PageUnit
from data_tools.writer import Mapped
from varytoy.errors import first_line
from varytoy.extras import require

_STORE = 2**29
"""Bytes for the pages on their way, in a cluster that this program starts."""
_ROOT = Path(__file__).resolve().parents[2]


def ray_mapped(address: str) -> Mapped:
    """``address``: ``local`` for a new cluster on this machine, ``auto`` or host:port for one that runs. Each node
    needs the folder of PDFs and this checkout at the same paths, and the same packages.

    Raises:
        MissingExtra: Ray is not installed.
        ValueError: no cluster is there.
    """
    require("ray", "ray", "pyarrow", by="pdf --ray")

    @contextmanager
    def mapped(make: Callable[[Any], Any], items: Iterable[Any], workers: int, chunk: int) -> Iterator[Iterator[Any]]:
        import ray

        started = not ray.is_initialized()
        if started:
            _connect(address, workers)
        try:
            yield _units(make, list(items), chunk)
        finally:
            if started:
                ray.shutdown()

    return mapped


def _connect(address: str, workers: int) -> None:
    import ray

    local: dict[str, Any] = {}
    if address == "local":
        local = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": _STORE}
    paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    try:
        ray.init(address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}}, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray {address}: no cluster ({first_line(error)}); start one or give local") from error


def _units(make: Callable[[PageItem], PageUnit], items: list[PageItem], chunk: int) -> Iterator[PageUnit]:
    import ray

    if not items:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [item._asdict() for item in items]
    pages = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // chunk))
    try:
        for row in pages.map(_Packed(make)).iter_rows():
            yield _unpacked(row)
    except ray.exceptions.RayError as error:
        raise ValueError(f"the Ray cluster failed ({first_line(error)}): add --resume to go on") from error


class _Packed:
    """Row of an item -> row of its unit, in types that Arrow has."""

    def __init__(self, make: Callable[[PageItem], PageUnit]):
        self.make = make

    def __call__(self, row: dict) -> dict:
        unit = self.make(PageItem(**row))
        return {
            "names": json.dumps(list(unit.images)),
            "image": next(iter(unit.images.values()), b""),
            "rest": json.dumps([unit.rows, unit.dropped, unit.errors, unit.place]),
            "signature": b"" if unit.signature is None else unit.signature.tobytes(),
            "type": "" if unit.signature is None else unit.signature.dtype.str,
        }


def _unpacked(row: dict) -> PageUnit:
    samples, dropped, errors, place = json.loads(row["rest"])
    images = {name: bytes(row["image"]) for name in json.loads(row["names"])}
    signature = np.frombuffer(row["signature"], row["type"]) if row["type"] else None
    return PageUnit(images, samples, Counter(dropped), errors, place, signature)
