"""Multi-head self-attention, and the same arithmetic written out.

Letters: `B` batch, `T` tokens, `D` width, `H` heads, `E` width of one head (`D = H·E`).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention written out: softmax(q kᵀ / √E) v. The teaching twin of PyTorch's fused kernel.

    Args:
        q: queries, (..., T, E).
        k: keys, (..., S, E).
        v: values, (..., S, E).

    Returns:
        One weighted mean of the values for each query, (..., T, E).

    Source: Vaswani et al. 2017, section 3.2.1, equation 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., T, S)
    return scores.softmax(dim=-1) @ v  # (16.4)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection for queries, keys and values.

    Args:
        width: D, a multiple of `heads`.
        heads: H.

    Raises:
        ValueError: `width` is not divisible by `heads`.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads; take a multiple of {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens: (B, T, D) → (B, T, D)."""
        q, k, v = rearrange(self.qkv(x), "b t (three h e) -> three b h t e", three=3, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v)  # (B, H, T, E)
        return self.proj(rearrange(out, "b h t e -> b t (h e)"))


def attention_map(layer: SelfAttention, x: Tensor) -> Tensor:
    """The weights of every head, for figures: (B, T, D) → (B, H, T, T), each row summing to one."""
    q, k, _ = rearrange(layer.qkv(x), "b t (three h e) -> three b h t e", three=3, h=layer.heads)
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
