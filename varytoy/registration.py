"""Registers the model's classes with transformers' ``Auto`` classes, and its layers with PEFT."""

from varytoy._torchvision import ensure_torchvision

ensure_torchvision()

import wrapt  # noqa: E402
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from varytoy.models.config import VaryConfig  # noqa: E402
from varytoy.models.vary import VaryForConditionalGeneration  # noqa: E402
from varytoy.processing.images import VaryImageProcessor  # noqa: E402
from varytoy.processing.processor import VaryProcessor  # noqa: E402

AutoConfig.register("vary", VaryConfig)
AutoModelForImageTextToText.register(VaryConfig, VaryForConditionalGeneration)
AutoImageProcessor.register(VaryConfig, VaryImageProcessor)
AutoProcessor.register(VaryConfig, VaryProcessor)

__all__ = ["VaryConfig", "VaryForConditionalGeneration", "VaryProcessor"]


@wrapt.when_imported("peft.utils.constants")
def _name_lora_targets(constants) -> None:
    """``LoraConfig()`` without target modules adapts the decoder's attention, as for the decoders alone."""
    constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.setdefault("vary", ["q_proj", "v_proj"])
