"""Load what a ``Reader`` works with: engines and calibration of a checkpoint."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
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
from varytoy.inference.parts import DRAWING, parts_of
from varytoy.options import RUNTIMES


class Loaded(NamedTuple):
    """``parts``: view -> what loads the engine of the checkpoint's part for it; ``drawing``: folder of its image
    decoder, or None."""

    name: str
    engine: TransformersEngine | BatchingEngine
    parts: Mapping[str, Callable[[], TransformersEngine | BatchingEngine]]
    precision: Precision
    calibration: Mapping[str, tuple[float, float]]
    drawing: Path | None = None


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
            folders, calibration = parts_of(path), calibration_of(path)
            drawing = path / DRAWING if (path / DRAWING / "config.json").is_file() else None
        parts = {view: partial(load_engine, folder, precision, runtime) for view, folder in folders.items()}
        return Loaded("vary-nano" if name == "nano" else name, engine, parts, precision, calibration, drawing)
    except (DeviceError, MissingExtra) as error:
        raise ModelError(str(error)) from error


def load_engine(folder: Path, precision: Precision, runtime: str) -> TransformersEngine | BatchingEngine:
    """Load a checkpoint for the chosen device and dtype. Raises ModelError."""
    original = load_original(folder, precision, runtime)
    if original is not None:
        return original
    model, processor = load_model(folder, DTYPES[precision.storage])
    kind = BatchingEngine if BatchingEngine.supports(model) else TransformersEngine
    model = place(model, precision)
    if runtime == "onnx":
        run_in_onnx(model, processor.image_processor.square)
    if kind is BatchingEngine:  # transformers' generate does not use it
        merge_projections(model)
    return kind(model, processor)


def calibration_of(folder: Path) -> Mapping[str, tuple[float, float]]:
    """The scales of a checkpoint's tasks. Raises ModelError if they are damaged."""
    try:
        scales = dict(read_calibration(folder))
        for part in parts_of(folder).values():
            scales |= read_calibration(part)
        return scales
    except ValueError as error:
        raise ModelError(str(error)) from error
