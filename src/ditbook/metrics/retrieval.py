"""Retrieval: finding the other side of a pair."""

import torch
from torch import Tensor


def recall_at(logits: Tensor, k: int) -> float:
    """Fraction of rows whose matching column, that of the same index, is among the `k` largest: (N, N) → [0, 1].

    Raises:
        ValueError: not square, or `k` is not between 1 and N.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or not 1 <= k <= len(logits):
        raise ValueError(f"recall at {k} of logits {tuple(logits.shape)}; expected (N, N) and k from 1 to N")
    best = logits.topk(k, dim=1).indices  # (N, k)
    right = torch.arange(len(logits), device=logits.device)[:, None]
    return (best == right).any(dim=1).float().mean().item()  # (8.8), if no two are equal
