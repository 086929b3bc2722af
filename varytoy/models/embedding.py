"""ScaledEmbedding: token embeddings as large as the image tokens beside them."""

from torch import Tensor, nn


class ScaledEmbedding(nn.Embedding):
    """Embeddings times a constant, as in Gemma.

    Where output weights are tied to them, a small table keeps the first scores small, while its rows, times ``scale``,
    stand in the decoder's input beside image tokens of unit size.
    """

    def __init__(self, table: nn.Embedding, scale: float):
        weight = table.weight
        super().__init__(*weight.shape, padding_idx=table.padding_idx, device=weight.device, dtype=weight.dtype)
        self.weight, self.scale = weight, scale

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * self.scale
