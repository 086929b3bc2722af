"""varytoy: small vision-language models that read."""

from varytoy._torchvision import ensure_torchvision

ensure_torchvision()

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from varytoy.config import VaryConfig  # noqa: E402
from varytoy.model import VaryForConditionalGeneration  # noqa: E402
from varytoy.processing import VaryImageProcessor, VaryProcessor  # noqa: E402

AutoConfig.register("vary", VaryConfig)
AutoModelForImageTextToText.register(VaryConfig, VaryForConditionalGeneration)
AutoImageProcessor.register(VaryConfig, VaryImageProcessor)
AutoProcessor.register(VaryConfig, VaryProcessor)

__version__ = "0.1.0"
__all__ = ["VaryConfig", "VaryForConditionalGeneration", "VaryProcessor"]
