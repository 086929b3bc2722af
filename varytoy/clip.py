"""ClipBranch: the branch that knows pictures. open_clip's vision transformer without class token and projection."""

import torch
from torch import Tensor, nn

from varytoy.config import ClipConfig


class ClipBranch(nn.Module):
    """Pixels [B, 3, S, S] -> features [B, h, w, width], h = w = S / patch.

    OpenAI's ViT-L/14 with its QuickGELU; features are those after layer ``select_layer`` (-2 in the published models,
    before the final norm), equal to ``hidden_states[select_layer][:, 1:]`` of transformers' CLIPVisionModel.
    """

    def __init__(self, config: ClipConfig):
        super().__init__()
        from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

        self.config = config
        self.visual = VisionTransformer(
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
        self.visual.proj = None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        side = self.config.image_size // self.config.patch_size
        return side, side

    def forward(self, pixels: Tensor) -> Tensor:
        layer = self.config.layers + self.config.select_layer
        found = self.visual.forward_intermediates(
            pixels, indices=[layer], stop_early=True, intermediates_only=True, output_fmt="NLC"
        )["image_intermediates"][0]
        return found.reshape(found.shape[0], *self.grid, found.shape[-1])


@torch.no_grad()
def initialise_clip(module: nn.Module) -> bool:
    """Initialise one of open_clip's modules that hold bare parameters. Returns whether it was one."""
    from open_clip.transformer import VisionTransformer

    if isinstance(module, VisionTransformer):
        nn.init.normal_(module.class_embedding, std=module.class_embedding.shape[0] ** -0.5)
        nn.init.normal_(module.positional_embedding, std=module.positional_embedding.shape[1] ** -0.5)
        return True
    if isinstance(module, nn.MultiheadAttention):
        nn.init.xavier_uniform_(module.in_proj_weight)
        nn.init.zeros_(module.in_proj_bias)
        return True
    return False
