"""Blocks of a DiT whose norms are set by the condition, and the layer after them.

Letters: `B` batch, `T` tokens, `D` width, `V` numbers a token gives.
Source: Peebles & Xie 2023, section 3.2.
"""

from torch import Tensor, nn

from ditbook.layers.attention import SelfAttention
from ditbook.layers.block import TransformerBlock
from ditbook.layers.complexity import Complexity
from ditbook.layers.mlp import MLP
from ditbook.layers.modulation import layer_norm, modulate


class FinalLayer(nn.Module):
    """Modulated norm, then one linear map from each token to the pixels of its patch."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, values)  # of rank D at most: (15.9)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition after SiLU (B, D) → (B, T, V)."""
        shift, scale = self.modulation(c).chunk(2, dim=-1)
        return self.linear(modulate(layer_norm(x), shift, scale))  # (16.10)


class AdaLNBlock(nn.Module):
    """A Transformer block whose norms are set by the condition."""

    condition, final = "vector", FinalLayer
    vectors = 4  # shift and scale of two norms

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.mlp = MLP(width)
        self.modulation = nn.Linear(width, self.vectors * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition after SiLU (B, D) → (B, T, D)."""
        shift_attn, scale_attn, shift_mlp, scale_mlp = self.modulation(c).chunk(4, dim=-1)
        x = x + self.attn(modulate(layer_norm(x), shift_attn, scale_attn))  # (16.18)
        return x + self.mlp(modulate(layer_norm(x), shift_mlp, scale_mlp))

    @classmethod
    def complexity(cls, T: int, D: int) -> Complexity:
        """Counts of a Transformer block with the modulation, four of whose biases replace the norms' parameters."""
        n = cls.vectors
        return TransformerBlock.complexity(T, D) + Complexity(macs=n * D**2, trainable=n * D**2 + (n - 4) * D)


class AdaLNZeroBlock(AdaLNBlock):
    """An adaLN block whose residual gates are set by the condition too; with fresh weights it is the identity."""

    vectors = 6  # shift, scale and gate of two sublayers

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Tokens (B, T, D), condition after SiLU (B, D) → (B, T, D)."""
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = self.modulation(c).chunk(
            6, dim=-1
        )  # (16.7)
        x = x + gate_attn[:, None] * self.attn(modulate(layer_norm(x), shift_attn, scale_attn))  # (16.8)
        return x + gate_mlp[:, None] * self.mlp(modulate(layer_norm(x), shift_mlp, scale_mlp))  # (16.9)
