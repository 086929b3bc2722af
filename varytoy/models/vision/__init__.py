"""The vision branches. A new one is a file with a class that registers itself (base.py), imported here."""

from varytoy.models.vision.base import ENCODERS, VisionEncoder, build_encoder
from varytoy.models.vision.clip import ClipBranch
from varytoy.models.vision.open_clip_branch import OpenClipBranch
from varytoy.models.vision.patches import PatchesBranch
from varytoy.models.vision.sam import VisionVocabulary
from varytoy.models.vision.serial_clip import SerialClip
from varytoy.models.vision.timm_branch import TimmBranch

__all__ = [
    "ENCODERS",
    "ClipBranch",
    "OpenClipBranch",
    "PatchesBranch",
    "SerialClip",
    "TimmBranch",
    "VisionEncoder",
    "VisionVocabulary",
    "build_encoder",
]
