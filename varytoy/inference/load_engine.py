"""Load the engine and the calibration of a checkpoint's folder."""

from collections.abc import Mapping
from pathlib import Path

from varytoy.checkpoints.loading import ModelError, load_model
from varytoy.devices.precision import DTYPES, Precision, place
from varytoy.inference.batching import BatchingEngine
from varytoy.inference.calibration import read_calibration
from varytoy.inference.decoder_step import merge_projections
from varytoy.inference.engine import TransformersEngine
from varytoy.inference.onnx_branches import run_in_onnx

PICTURES = "pictures"
"""Folder of a checkpoint for pictures inside that for text."""


def pictures_of(folder: Path) -> Path | None:
    """A checkpoint's part for pictures, if it has one."""
    part = folder / PICTURES
    return part if (part / "config.json").is_file() else None


def load_engine(folder: Path, precision: Precision, runtime: str) -> TransformersEngine | BatchingEngine:
    """Load a checkpoint for the chosen device and dtype."""
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
