"""What sequence models are trained on and judged by.

Letters: `B` batch, `T` tokens, `V` vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ditbook.data.tokenizer import PAD


def next_token_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the next token over all places that are not padding, in nats.

    Args:
        logits: (B, T, V).
        targets: the tokens that come next, (B, T).
        smoothing: share of the probability that is spread evenly over the vocabulary instead of the right token.

    Raises:
        ValueError: there is nothing but padding.

    Source: Szegedy et al. 2016, section 7, for label smoothing; Vaswani et al. 2017, section 5.4, with 0.1.
    """
    kept = targets != PAD
    if not kept.any():
        raise ValueError("all targets are padding: there is nothing to predict")
    log_p = F.log_softmax(logits[kept], dim=-1)  # (N, V)
    right = log_p.gather(1, targets[kept][:, None]).mean()
    return -(1 - smoothing) * right - smoothing * log_p.mean()  # (3.14)


def exact_match(written: Tensor, wanted: Tensor, eos: int) -> Tensor:
    """Which sentences are right, word for word, up to their end.

    Args:
        written: (B, T), the end token after each sentence; anything may follow it.
        wanted: (B, T'), the same, padded on the right.
        eos: the end token.

    Returns:
        (B,) of booleans.
    """
    longest = max(written.shape[1], wanted.shape[1])
    sides = [F.pad(tokens, (0, longest - tokens.shape[1]), value=eos) for tokens in (written, wanted)]
    after_end = [(tokens == eos).long().cumsum(dim=1) > 0 for tokens in sides]
    ended = [tokens.masked_fill(over, eos) for tokens, over in zip(sides, after_end, strict=True)]
    return (ended[0] == ended[1]).all(dim=1)


def recall_at(logits: Tensor, k: int) -> float:
    """Share of rows whose right column, that of the same number, is among the `k` largest: logits (N, N) → [0, 1].

    Raises:
        ValueError: not square, or `k` is not between 1 and N.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or not 1 <= k <= len(logits):
        raise ValueError(f"recall at {k} of logits {tuple(logits.shape)}; expected (N, N) and k from 1 to N")
    best = logits.topk(k, dim=1).indices  # (N, k)
    return (best == torch.arange(len(logits))[:, None]).any(dim=1).double().mean().item()  # (8.8)
