"""Multi-head attention, and the same arithmetic written out.

Letters: `B` batch, `T` tokens that look, `S` tokens that are looked at, `D` width, `H` heads, `E` width of one head
(`D = H·E`). A mask is True where looking is allowed, and broadcasts to (B, H, T, S).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Past = tuple[Tensor, Tensor]  # keys and values of tokens already seen, each (B, H, S, E)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention written out: softmax(q kᵀ / √E) v. The teaching twin of PyTorch's fused kernel.

    Args:
        q: queries, (..., T, E).
        k: keys, (..., S, E).
        v: values, (..., S, E).
        mask: True where looking is allowed; each query must be allowed one key at least.

    Returns:
        One weighted mean of the values for each query, (..., T, E).

    Source: Vaswani et al. 2017, section 3.2.1, equation 1.
    """
    return attention_weights(q, k, mask) @ v  # (16.4), (3.1)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √E): (..., T, E), (..., S, E) → (..., T, S), each row summing to one."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)  # (3.5)
    return scores.softmax(dim=-1)


def causal_mask(tokens: int, device: torch.device | None = None) -> Tensor:
    """Each token may look at itself and at those before it: (T, T)."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()


def padding_mask(tokens: Tensor, pad: int) -> Tensor:
    """Nobody may look at padding: tokens (B, S) → (B, 1, 1, S)."""
    return (tokens != pad)[:, None, None]


def _checked(width: int, heads: int) -> int:
    if width % heads:
        raise ValueError(f"width {width} is not divisible by {heads} heads; take a multiple of {heads}")
    return heads


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
        self.heads = _checked(width, heads)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head: (B, T, D) → three of (B, H, T, E)."""
        q, k, v = rearrange(self.qkv(x), "b t (three h e) -> three b h t e", three=3, h=self.heads)
        return q, k, v

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix the tokens: (B, T, D) → (B, T, D)."""
        out = F.scaled_dot_product_attention(*self.project(x), attn_mask=mask)  # (B, H, T, E)  # (3.3)
        return self.proj(rearrange(out, "b h t e -> b t (h e)"))  # (3.4)

    def extend(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Add tokens (B, T, D) after those seen: they look at everything before them, and the past grows by them."""
        q, k, v = self.project(x)
        k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
        mask = causal_mask(k.shape[2], x.device)[-x.shape[1] :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(rearrange(out, "b h t e -> b t (h e)")), (k, v)


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another: queries from here, keys and values from there.

    Args:
        width: D, a multiple of `heads`.
        heads: H.

    Raises:
        ValueError: `width` is not divisible by `heads`.

    Source: Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = _checked(width, heads)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def remember(self, memory: Tensor) -> Past:
        """Keys and values of what is looked at: (B, S, D) → two of (B, H, S, E)."""
        k, v = rearrange(self.kv(memory), "b s (two h e) -> two b h s e", two=2, h=self.heads)
        return k, v

    def forward(self, x: Tensor, past: Past, mask: Tensor | None = None) -> Tensor:
        """Look: (B, T, D) at what was remembered → (B, T, D)."""
        q = rearrange(self.q(x), "b t (h e) -> b h t e", h=self.heads)
        out = F.scaled_dot_product_attention(q, *past, attn_mask=mask)
        return self.proj(rearrange(out, "b h t e -> b t (h e)"))


def attention_map(layer: SelfAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The weights of every head, for figures: (B, T, D) → (B, H, T, T), each row summing to one."""
    q, k, _ = layer.project(x)
    return attention_weights(q, k, mask)
