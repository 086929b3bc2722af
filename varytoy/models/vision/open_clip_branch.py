"""OpenClipBranch: the image tower of one of open_clip's models, by name."""

from typing import Any

from torch import Tensor, nn

from varytoy.models.config import OpenClipConfig
from varytoy.models.vision.base import Backbone, register
from varytoy.models.vision.clip import initialise_open_clip

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
"""In place of the model's text tower."""


@register
class OpenClipBranch(Backbone):
    """Pixels [I, 3, S, S] -> features [I, h, w, width], h = w = S / patch_size.

    Those of a transformer are the image's tokens after layer ``select_layer``, before the final norm, as in ClipBranch;
    those of a ResNet, or another tower of stages, are its last map. Names of tensors are open_clip's. Nothing is
    downloaded.

    Raises:
        ValueError: open_clip has no such model or layer, or ``width``, ``patch_size`` or ``image_size`` is not its own.
    """

    config_class = OpenClipConfig

    def __init__(self, config: OpenClipConfig):
        super().__init__()
        self.config = config
        self.visual, width, patch_size, layers, image_size = build_tower(config.name)
        self.layer = config.select_layer if layers else -1
        if layers and not -layers <= self.layer < 0:
            raise ValueError(f"{config.name} has {layers} layers: select_layer cannot be {config.select_layer}")
        self.set_shape(width, patch_size, image_size)

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        self.check_pixels(pixels)
        features = self.visual.forward_intermediates(
            pixels, indices=[self.layer], stop_early=True, intermediates_only=True
        )
        return features["image_intermediates"][0].permute(0, 2, 3, 1)

    def initialise(self, module: nn.Module) -> bool:
        return super().initialise(module) or initialise_open_clip(module)


def build_tower(name: str) -> tuple[Any, int, int, int, int | None]:
    """The image tower of open_clip's model ``name``, with random weights and without its head; its width, pixels per
    token, number of layers (0 for a tower of stages) and side of an image (None for any).

    Raises:
        ValueError: open_clip has no such model.
    """
    import open_clip

    if name not in open_clip.list_models():
        raise ValueError(f"open_clip has no model '{name}'; open_clip.list_models() lists those it has")
    model = open_clip.get_model_config(name)
    vision = open_clip.CLIPVisionCfg(**model["vision_cfg"])
    vision.timm_model_pretrained = False
    # create_model() would build the text tower, too, and warn about random weights.
    visual: Any = open_clip.CLIP(
        model["embed_dim"], vision, open_clip.CLIPTextCfg(**_NO_TEXT), model.get("quick_gelu", False)
    ).visual
    if vision.timm_model_name:
        visual.head = nn.Identity()
        stages = [(stage["num_chs"], stage["reduction"]) for stage in visual.trunk.feature_info]
        alike = len({reduction for _, reduction in stages}) == 1
        return visual, *stages[-1], len(stages) if alike else 0, vision.image_size
    if isinstance(vision.layers, int):
        visual.proj = visual.attn_pool = None
        return visual, vision.width, vision.patch_size, vision.layers, vision.image_size
    visual.attnpool = None
    return visual, 32 * vision.width, 32, 0, None
