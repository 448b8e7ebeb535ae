"""The Transformer block: one class for encoders and decoders, with the norms before or after the sums.

Letters: `B` batch, `T` tokens, `S` tokens of the memory, `D` width, `H` heads, `E` width of one head.
Source: Vaswani et al. 2017, section 3.1; Xiong et al. 2020 for the norms before the sublayers.
"""

from collections.abc import Callable

from torch import Tensor, nn

from ditbook.layers.attention import KV, CrossAttention, KVCache, SelfAttention
from ditbook.layers.complexity import Complexity
from ditbook.layers.mlp import MLP


def residual(x: Tensor, f: Callable[[Tensor], Tensor], norm: nn.Module, pre_norm: bool) -> Tensor:
    """Add a sublayer `f` to `x` (B, T, D), normalized before `f` (pre-norm) or after the sum (post-norm)."""
    if pre_norm:
        return x + f(norm(x))  # (3.10)
    return norm(x + f(x))  # (3.9)


class TransformerBlock(nn.Module):
    """Self-attention, optional cross-attention and an MLP, each a residual sublayer with a LayerNorm.

    Args:
        width: D, a multiple of `heads`.
        heads: H.
        cross: whether cross-attention to a memory stands between self-attention and MLP.
        pre_norm: normalize before each sublayer instead of after its sum.
        ratio: hidden width of the MLP over D.
        gelu: which of `layers.mlp.GELU`.
        eps: of the norms.

    Raises:
        ValueError: `width` is not divisible by `heads`, or no such GELU.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        cross: bool = False,
        pre_norm: bool = False,
        ratio: int = 4,
        gelu: str = "exact",
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps) for _ in range(3 if cross else 2))
        self.attention = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads) if cross else None
        self.mlp = MLP(width, ratio, gelu)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: KV | None = None,
        memory_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """(B, T, D) → (B, T, D).

        Args:
            x: tokens, (B, T, D).
            mask: of self-attention, broadcasts to (B, H, T, T); `causal_mask` for a decoder.
            memory: keys and values for cross-attention, each (B, H, S, E), as `cross.project_kv` gives them.
            memory_mask: which of these may be attended to, broadcasts to (B, H, T, S).
            cache: of self-attention, which is then causal; grows by the tokens of `x`.

        Raises:
            ValueError: a memory is missing, or there is no cross-attention to take it.
        """
        x = residual(x, lambda z: self.attention(z, mask, cache), self.norms[0], self.pre_norm)
        cross = self.cross
        if (cross is None) != (memory is None):
            raise ValueError("cross-attention takes a memory: make the block with cross=True and call it with memory")
        if cross is not None:
            x = residual(x, lambda z: cross(z, memory, memory_mask), self.norms[1], self.pre_norm)
        return residual(x, self.mlp, self.norms[-1], self.pre_norm)  # (3.11), with cross-attention (3.12)

    @staticmethod
    def complexity(tokens: int, width: int) -> Complexity:
        """Counts of one block without cross-attention, with the default MLP. Source: derived in chapter 3."""
        T, D = tokens, width
        macs = 12 * T * D**2 + 2 * T**2 * D  # (3.15)
        return Complexity(macs=macs, norms=2 * T * D, trainable=12 * D**2 + 13 * D)  # (3.16)
