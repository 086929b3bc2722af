"""varytoy: small vision-language models that read."""

import sys
from pathlib import Path, PurePath

import wrapt

__version__ = "0.1.0"
NANO = str(Path(__file__).parent / "nano")
"""Folder of the embedded model, for ``from_pretrained`` and transformers' ``pipeline``."""

# `import varytoy` registers the model with transformers. Only the `varytoy` program skips this, so that --help and
# option errors are immediate; it imports torch when a command needs it.
if PurePath(getattr(sys, "argv", [""])[0]).stem != "varytoy":
    from varytoy.registration import VaryConfig, VaryForConditionalGeneration, VaryProcessor
else:

    @wrapt.when_imported("transformers")
    def _repair_torchvision(_) -> None:
        from varytoy._torchvision import ensure_torchvision

        ensure_torchvision()


__all__ = ["NANO", "VaryConfig", "VaryForConditionalGeneration", "VaryProcessor"]
