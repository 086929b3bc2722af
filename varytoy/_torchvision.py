"""Make ``import torchvision`` work beside a torch build it was not compiled for.

open_clip and parts of transformers import torchvision only for its Python code. Where its compiled part does not match
the installed torch (the registry's CUDA build beside a CPU torch is the common case), the import fails with
``RuntimeError: operator torchvision::nms does not exist``. The fix is to declare the two missing operator schemas and
import again. Declaring them *first* aborts the process wherever the compiled part does load, so the plain import comes
first.
"""

import sys

import torch

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def ensure_torchvision() -> bool:
    """Import torchvision, repairing a mismatched build. Returns True when a repair was needed.

    Raises:
        ImportError: torchvision is not installed at all.
    """
    try:
        import torchvision  # noqa: F401

        return False
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name, schema in _SCHEMAS.items():
        torch.library.define(f"torchvision::{name}", schema)
    import torchvision  # noqa: F401

    return True
