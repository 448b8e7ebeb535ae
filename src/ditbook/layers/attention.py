"""Multi-head attention, the same arithmetic written out, and the KV cache.

Letters: `B` batch, `T` queries, `S` keys, `D` width, `H` heads, `E` width of one head (`D = H·E`).
A mask is True where a query may attend to a key, and broadcasts to (B, H, T, S).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ditbook.layers.checks import check_multiple

KV = tuple[Tensor, Tensor]  # keys and values, each (B, H, S, E)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention written out: softmax(q kᵀ / √E) v. The teaching twin of PyTorch's fused kernel.

    Args:
        q: queries, (..., T, E).
        k: keys, (..., S, E).
        v: values, (..., S, E).
        mask: True where a query may attend to a key; each query needs one key at least.

    Returns:
        One weighted mean of the values for each query, (..., T, E).

    Source: Vaswani et al. 2017, section 3.2.1, equation 1.
    """
    return attention_weights(q, k, mask) @ v  # (16.4), (3.1)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √E): (..., T, E), (..., S, E) → (..., T, S), each row summing to one."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # √E: the standard deviation by (3.2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)  # (3.5)
    return scores.softmax(dim=-1)


def causal_mask(queries: int, device: torch.device | None = None, seen: int = 0) -> Tensor:
    """Mask that lets each query attend to itself and to the tokens before it.

    Args:
        queries: T.
        device: of the mask.
        seen: tokens before the first query.

    Returns:
        (T, seen + T).
    """
    return torch.ones(queries, seen + queries, dtype=torch.bool, device=device).tril(seen)


def padding_mask(tokens: Tensor, pad: int) -> Tensor:
    """Mask that excludes padding keys: tokens (B, S) → (B, 1, 1, S)."""
    return (tokens != pad)[:, None, None]


class KVCache:
    """Keys and values of the tokens that one layer has seen so far. Grows in place."""

    def __init__(self) -> None:
        self.kv: KV | None = None  # two of (B, H, S, E), None before the first token

    def __len__(self) -> int:
        """S, the tokens seen."""
        return 0 if self.kv is None else self.kv[0].shape[2]

    def extend(self, k: Tensor, v: Tensor) -> KV:
        """Append keys and values of new tokens, each (B, H, T, E) → those of all tokens, each (B, H, S + T, E)."""
        if self.kv is not None:
            k, v = torch.cat([self.kv[0], k], dim=2), torch.cat([self.kv[1], v], dim=2)
        self.kv = k, v
        return self.kv

    def select(self, rows: Tensor) -> "KVCache":
        """A new cache with the given rows of the batch, (N,), as beam search reorders them."""
        chosen = KVCache()
        if self.kv is not None:
            chosen.kv = self.kv[0][rows], self.kv[1][rows]
        return chosen


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
        check_multiple("width", width, "heads", heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head: (B, T, D) → three of (B, H, T, E)."""
        q, k, v = rearrange(self.qkv(x), "b t (three h e) -> three b h t e", three=3, h=self.heads)
        return q, k, v

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        """Attend from each token to the tokens of the same sequence: (B, T, D) → (B, T, D).

        Args:
            x: tokens, (B, T, D).
            mask: broadcasts to (B, H, T, S).
            cache: keys and values of the S − T tokens before `x`, to which those of `x` are appended. Attention is
                then causal, whatever the mask allows besides.
        """
        q, k, v = self.project(x)  # (B, H, T, E)
        if cache is not None:
            causal = causal_mask(x.shape[1], x.device, seen=len(cache))  # (T, S)
            mask = causal if mask is None else mask & causal
            k, v = cache.extend(k, v)  # (B, H, S, E)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, H, T, E)  # (3.3)
        return self.proj(rearrange(out, "b h t e -> b t (h e)"))  # (3.4)


class CrossAttention(nn.Module):
    """Multi-head attention from one sequence to another: queries of one, keys and values of the other.

    Args:
        width: D, a multiple of `heads`.
        heads: H.

    Raises:
        ValueError: `width` is not divisible by `heads`.

    Source: Vaswani et al. 2017, section 3.2.3.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_multiple("width", width, "heads", heads)
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def project_kv(self, memory: Tensor) -> KV:
        """Keys and values of every head: (B, S, D) → two of (B, H, S, E)."""
        k, v = rearrange(self.kv(memory), "b s (two h e) -> two b h s e", two=2, h=self.heads)
        return k, v

    def forward(self, x: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor:
        """Attend from tokens (B, T, D) to keys and values as `project_kv` gives them → (B, T, D)."""
        q = rearrange(self.q(x), "b t (h e) -> b h t e", h=self.heads)
        out = F.scaled_dot_product_attention(q, *kv, attn_mask=mask)
        return self.proj(rearrange(out, "b h t e -> b t (h e)"))


def attention_map(layer: SelfAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The attention weights of every head, for figures: (B, T, D) → (B, H, T, T), each row summing to one."""
    q, k, _ = layer.project(x)
    return attention_weights(q, k, mask)
