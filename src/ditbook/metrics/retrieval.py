"""How well one side of pairs is found from the other."""

import torch
from torch import Tensor


def recall_at(logits: Tensor, k: int) -> float:
    """Share of rows whose right column, that of the same number, is among the `k` largest: logits (N, N) → [0, 1].

    Raises:
        ValueError: not square, or `k` is not between 1 and N.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or not 1 <= k <= len(logits):
        raise ValueError(f"recall at {k} of logits {tuple(logits.shape)}; expected (N, N) and k from 1 to N")
    best = logits.topk(k, dim=1).indices  # (N, k)
    return (best == torch.arange(len(logits))[:, None]).any(dim=1).double().mean().item()  # (8.8)
