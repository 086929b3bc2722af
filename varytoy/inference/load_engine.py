"""Load what a ``Reader`` works with: engines and calibration of a checkpoint."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

from varytoy.checkpoints.loading import ModelError, find, is_small, load_model
from varytoy.devices.precision import DTYPES, DeviceError, Precision, choose_precision, place
from varytoy.extras import MissingExtra
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.calibration import read_calibration
from varytoy.inference.decoder_step import merge_projections
from varytoy.inference.engine import TransformersEngine
from varytoy.inference.onnx_branches import run_in_onnx
from varytoy.inference.originals import load_original
from varytoy.options import RUNTIMES

PICTURES = "pictures"
"""Folder of a checkpoint for pictures inside that for text."""


class Loaded(NamedTuple):
    """``open_pictures`` loads the engine for pictures, if the checkpoint has one of its own."""

    name: str
    engine: TransformersEngine | BatchingEngine
    open_pictures: Callable[[], TransformersEngine | BatchingEngine] | None
    precision: Precision
    calibration: Mapping[str, tuple[float, float]]


def load(name: str, device: str, dtype: str, quantize: str, runtime: str) -> Loaded:
    """See ``Reader.from_pretrained``. Raises ModelError."""
    try:
        if runtime not in RUNTIMES:
            raise ModelError(f"no runtime '{runtime}'; there are {', '.join(RUNTIMES)}")
        choose_precision(device, dtype, quantize)  # raises before anything is downloaded
        with as_file(files("varytoy") / "nano") if name == "nano" else nullcontext(find(name)) as path:
            if name == "nano" and not (path / "model.safetensors").is_file():
                raise ModelError("this installation lacks the embedded model; name another with --model")
            precision = choose_precision(device, dtype, quantize, is_small(path))
            engine = load_engine(path, precision, runtime)
            pictures, calibration = pictures_of(path), calibration_of(path)
        open_pictures = (lambda: load_engine(pictures, precision, runtime)) if pictures else None
        return Loaded("vary-nano" if name == "nano" else name, engine, open_pictures, precision, calibration)
    except (DeviceError, MissingExtra) as error:
        raise ModelError(str(error)) from error


def pictures_of(folder: Path) -> Path | None:
    """A checkpoint's part for pictures, if it has one."""
    part = folder / PICTURES
    return part if (part / "config.json").is_file() else None


def load_engine(folder: Path, precision: Precision, runtime: str) -> TransformersEngine | BatchingEngine:
    """Load a checkpoint for the chosen device and dtype. Raises ModelError."""
    original = load_original(folder, precision, runtime)
    if original is not None:
        return original
    model, processor = load_model(folder, DTYPES[precision.storage])
    kind = BatchingEngine if BatchingEngine.supports(model) else TransformersEngine
    model = place(model, precision)
    if runtime == "onnx":
        run_in_onnx(model)
    if kind is BatchingEngine:  # transformers' generate does not use it
        merge_projections(model)
    return kind(model, processor)


def calibration_of(folder: Path) -> Mapping[str, tuple[float, float]]:
    """The scales of a checkpoint's tasks. Raises ModelError if they are damaged."""
    try:
        return {**read_calibration(folder), **read_calibration(folder / PICTURES)}
    except ValueError as error:
        raise ModelError(str(error)) from error
