"""ClipBranch: the branch for natural images. open_clip's vision transformer without class token and projection, or the
first stages of its ResNet."""

from typing import Any

import torch
from torch import Tensor, nn

from varytoy.models.config import ClipConfig
from varytoy.models.vision.base import VisionEncoder, register


@register
class ClipBranch(VisionEncoder):
    """Pixels [B, 3, S, S] -> features [B, h, w, width], h = w = S / patch.

    OpenAI's ViT-L/14 with its QuickGELU; features are those after layer ``select_layer`` (-2 in the published models,
    before the final norm), equal to ``hidden_states[select_layer][:, 1:]`` of transformers' CLIPVisionModel. With a
    list of ``layers``, CLIP's ResNet (arXiv 2103.00020), whose features are those of its last stage here.

    Raises:
        ValueError: the stages do not give tokens of ``patch_size`` pixels.
    """

    config_class = ClipConfig

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.config = config
        self.width, self.stride = config.width, (config.patch_size, config.patch_size)
        self.visual: Any = _transformer(config) if isinstance(config.layers, int) else _residual_network(config)

    def forward(self, pixels: Tensor, sizes: Tensor | None = None) -> Tensor:
        if not isinstance(self.config.layers, int):
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            features = self.visual.forward_intermediates(
                pixels, indices=[len(self.config.layers)], intermediates_only=True
            )
            return features["image_intermediates"][0].permute(0, 2, 3, 1)
        layer = self.config.layers + self.config.select_layer
        features = self.visual.forward_intermediates(
            pixels, indices=[layer], stop_early=True, intermediates_only=True, output_fmt="NLC"
        )["image_intermediates"][0]
        return features.reshape(features.shape[0], *self.grid, features.shape[-1])

    def initialise(self, module: nn.Module) -> bool:
        return initialise_open_clip(module)


def _transformer(config: ClipConfig) -> nn.Module:
    from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

    visual = VisionTransformer(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        layers=config.layers,
        heads=config.width // config.head_width,
        mlp_ratio=4.0,
        output_dim=config.width,
        act_layer=QuickGELU,
        norm_layer=LayerNorm,
    )
    visual.proj = None
    return visual


def _residual_network(config: ClipConfig) -> nn.Module:
    from open_clip.modified_resnet import ModifiedResNet

    stages = len(config.layers)
    if not 1 <= stages <= 4 or config.patch_size != 2 << stages or config.width % (2 << stages):
        raise ValueError(
            f"clip_config: {stages} stages of a residual network make tokens of {2 << stages} pixels and a width that "
            f"this divides, not patch_size {config.patch_size} and width {config.width}"
        )
    layers = [*config.layers, 1, 1, 1][:4]
    visual = ModifiedResNet(layers, output_dim=1, heads=1, width=config.width // (2 << stages))
    visual.attnpool = None
    for unused in range(stages + 1, 5):
        setattr(visual, f"layer{unused}", None)
    return visual


@torch.no_grad()
def initialise_open_clip(module: nn.Module) -> bool:
    """Initialise open_clip's modules with bare parameters. Returns whether the module is one of these."""
    from open_clip.modified_resnet import Bottleneck, ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if isinstance(module, ModifiedResNet):
        for inner in module.modules():
            if isinstance(inner, nn.Conv2d):
                nn.init.kaiming_normal_(inner.weight, nonlinearity="relu")
            elif isinstance(inner, Bottleneck):
                nn.init.zeros_(inner.bn3.weight)  # each block starts as the identity
        return True
    if isinstance(module, VisionTransformer):
        nn.init.normal_(module.class_embedding, std=module.class_embedding.shape[0] ** -0.5)
        nn.init.normal_(module.positional_embedding, std=module.positional_embedding.shape[1] ** -0.5)
        return True
    if isinstance(module, nn.MultiheadAttention):
        nn.init.xavier_uniform_(module.in_proj_weight)
        nn.init.zeros_(module.in_proj_bias)
        return True
    return False
