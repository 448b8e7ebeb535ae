"""How well sentences are written."""

import torch.nn.functional as F
from torch import Tensor


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
